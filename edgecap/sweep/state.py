"""The folder of a sweep: a record for each measured cell, a line for each finished one, and who works on it.

    journal.jsonl       a line for each finished cell: its record, or the reason why there is none
    *.json              the records, each written at once, before its line
    .edgecap/lock       held while a sweep writes here; free as soon as its process ends, however it ends
    .edgecap/scores/    bits of documents, shared by cells that differ in the batch only, or by parts of one text
    .edgecap/scratch/   of the run that is going on

A record without its line (the process died between the two) is taken in when the folder is opened; one that is
no longer as it was written counts as not measured.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from edgecap.analysis.outcomes import failure_text, has_failure
from edgecap.errors import RecordError, UsageError
from edgecap.record import Failure, Graph, Profile
from edgecap.spec import Spec
from edgecap.storage import locks
from edgecap.storage.collection import JOURNAL, SkippedFile
from edgecap.storage.files import (
    check_writable,
    disk_errors,
    sha256_of_file,
    utc_now,
    write_atomically,
)
from edgecap.storage.jsonl_log import JsonlLog
from edgecap.storage.records import load, save
from edgecap.sweep.plan import PlannedCell

PRIVATE = ".edgecap"
_HALF_WRITTEN = re.compile(r"\.[\w.-]+--[0-9a-f]{16}\.json\.\w{8}|\.edgecap-\w{8}", re.ASCII)


class StateRow(msgspec.Struct, frozen=True, kw_only=True):
    """A finished cell, as the journal keeps it.

    `record` names the file of its record, of `bytes` with a hash; where there is none, or the cell in it failed,
    `failure` says why; `wrong` says that it or a part of it went wrong. `seconds` is what it took on `device`
    ("" on this machine), `graph_bytes` what its graph takes; `like` is one for all cells of one text and one set of options.
    """

    key: str
    measured: str
    model: str
    precision: str
    provider: str
    label: str
    like: str = ""
    record: str = ""
    bytes: int = 0
    sha256: str = ""
    failure: Failure | None = None
    wrong: bool = False
    device: str = ""
    seconds: float = 0.0
    graph_bytes: int = 0
    attempts: int = 1
    finished_utc: str = ""


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a cell: a record, or a failure where no record could be begun."""

    cell: PlannedCell
    outcome: Profile | Failure
    device: str = ""
    seconds: float = 0.0
    attempts: int = 1


class SweepState:
    """The folder, opened by one sweep at a time. Use it as `with open_ledger(...) as ledger`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.private = folder, folder / PRIVATE
        _clear_away(folder)
        self._journal = JsonlLog(folder / JOURNAL, StateRow, durable=True)
        self.rows = _sound(self._journal.readable, folder)

    @property
    def scores(self) -> Path:
        """Where bits of documents are kept until the sweep is done."""
        return self.private / "scores"

    @property
    def scratch(self) -> Path:
        """Where a run may write meanwhile."""
        return self.private / "scratch"

    def adopt(self, cells: Iterable[PlannedCell]) -> None:
        """Takes in records of these cells that lie here without a line."""
        lined = {row.key for row in self._journal.readable}
        lost = {cell.file_name: cell for cell in cells if cell.key not in lined}
        found = (
            _adopted(lost[name], self.folder / name)
            for name in sorted(_names(self.folder) & lost.keys())
        )
        self._add(*filter(None, found))

    def keep(self, finished: Finished) -> StateRow:
        """Writes the record, then its line. Raises DiskFull or UsageError; then nothing of it counts as done."""
        path = self.folder / finished.cell.file_name
        if isinstance(finished.outcome, Profile):
            save(finished.outcome, path)
        else:
            with disk_errors(path):
                path.unlink(missing_ok=True)  # of an earlier attempt
        row = _row(finished, path)
        self._add(row)
        return row

    def _add(self, *rows: StateRow) -> None:
        if rows:
            self._journal.add(*rows)
            self.rows.update({row.key: row for row in rows})

    def done(self) -> None:
        """Clears away what only an unfinished sweep needs."""
        shutil.rmtree(self.scores, ignore_errors=True)


@contextlib.contextmanager
def open_state(folder: Path) -> Iterator[SweepState]:
    """The folder, made if it is not there, for this process alone.

    Raises UsageError where another sweep works on it, or it cannot be written.
    """
    check_writable(folder)
    with disk_errors(folder):
        (folder / PRIVATE).mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        ledger = SweepState(folder)
        try:
            yield ledger
        finally:
            shutil.rmtree(ledger.scratch, ignore_errors=True)


def read_rows(folder: Path) -> dict[str, StateRow]:
    """The finished cells of a folder by key, without waiting for who works on it; none where there is no folder.

    Raises UsageError where it cannot be read.
    """
    return _sound(JsonlLog(folder / JOURNAL, StateRow).readable, folder)


def cells_without_record(journal: Path) -> list[SkippedFile]:
    """The cells of a journal that have no record, and why. Nothing of a journal that cannot be read."""
    with contextlib.suppress(UsageError):
        last = {row.key: row for row in JsonlLog(journal, StateRow).readable}
        return [
            SkippedFile(journal, f"{row.label}: {failure_text(row.failure)}")
            for row in last.values()
            if not row.record and row.failure
        ]
    return []


# --- what is there ----------------------------------------------------------------------------


def _sound(rows: Sequence[StateRow], folder: Path) -> dict[str, StateRow]:
    """The last line of each cell, if its record still lies there as it was written."""
    names = _names(folder)
    last = {row.key: row for row in rows}
    return {
        key: row
        for key, row in last.items()
        if not row.record or (row.record in names and _hash_of(folder / row.record) == row.sha256)
    }


def _hash_of(path: Path) -> str:
    """The hash of a record's file, or nothing where it cannot be read."""
    try:
        return sha256_of_file(path)
    except OSError:
        return ""


def _names(folder: Path) -> set[str]:
    """The files that may be records."""
    try:
        with os.scandir(folder) as entries:
            return {e.name for e in entries if e.name.endswith(".json") and e.is_file()}
    except OSError:
        return set()


def _adopted(cell: PlannedCell, path: Path) -> StateRow | None:
    """The line of a record that lies here without one, if it answers what the cell asks; else it is measured again."""
    with contextlib.suppress(RecordError):
        record = load(path)
        if (
            record.complete
            and len(record.cells) == 1
            and _question(record.spec) == _question(cell.spec)
        ):
            return _row(Finished(cell=cell, outcome=record), path)
    return None


def _question(spec: Spec) -> Spec:
    """What was asked, wherever model and text lay; the key in the file's name says what they were."""
    return msgspec.structs.replace(spec, model="", corpus="", timeout_s=1.0)


def _clear_away(folder: Path) -> None:
    """Removes what a process left half written that was killed."""
    shutil.rmtree(folder / PRIVATE / "scratch", ignore_errors=True)
    with contextlib.suppress(OSError):
        for path in [
            p
            for place in (folder, folder / PRIVATE)
            for p in place.iterdir()
            if _HALF_WRITTEN.fullmatch(p.name)
        ]:
            path.unlink()


def _row(finished: Finished, path: Path) -> StateRow:
    cell, outcome = finished.cell, finished.outcome
    spec = cell.spec
    row = StateRow(
        key=cell.key,
        measured=cell.measured,
        model=Path(spec.model).name,
        precision=spec.precisions[0],
        provider=spec.providers[0],
        label=str(cell),
        like=cell.like,
        device=finished.device,
        seconds=finished.seconds,
        attempts=finished.attempts,
        finished_utc=utc_now(),
    )
    if isinstance(outcome, Failure):
        return msgspec.structs.replace(row, failure=outcome, wrong=True)
    measured = outcome.cells[0]
    return msgspec.structs.replace(
        row,
        record=path.name,
        bytes=path.stat().st_size,
        sha256=_hash_of(path),
        failure=measured.outcome if isinstance(measured.outcome, Failure) else None,
        wrong=has_failure(measured),
        graph_bytes=measured.graph.bytes if isinstance(measured.graph, Graph) else 0,
    )


# --- who works on it --------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock. Raises UsageError where another process has it, or there can be none."""
    holder = folder / PRIVATE / "holder"
    try:
        lock = locks.acquire(folder / PRIVATE / "lock")
    except OSError as error:
        raise UsageError(f"cannot lock {folder}: {error}; give a folder on a local disk") from error
    if lock is None:
        raise UsageError(
            f"{folder} is in use by {_who(holder)}; wait for it, or give another -o FOLDER"
        )
    try:
        with contextlib.suppress(UsageError):
            write_atomically(
                holder,
                f"process {os.getpid()} on {platform.node()} since {utc_now()}".encode(),
            )
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink()
        lock.release()


def _who(holder: Path) -> str:
    """Who said that it works here, for people: the lock itself is what counts."""
    try:
        return f"another sweep ({holder.read_text('utf-8', 'replace')[:200]})"
    except OSError:
        return "another sweep"
