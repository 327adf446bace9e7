"""State of a sweep: its folder, with records, a log of finished cells, and a lock.

    journal.jsonl       one line per finished cell: the file of its record, or its failure
    *.json              records, each written atomically before its line
    .edgecap/lock       held by the sweep that writes here; released when its process ends
    .edgecap/scores/    bits of documents, shared by cells that differ only in batch size or part
    .edgecap/scratch/   temporary files of the current run

A record without a line (the process died between the two) is adopted when the folder is opened. A
record that changed since it was written counts as not measured.
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
    """Line of a finished cell in journal.jsonl.

    `record` is the file name of the record, with its size in `bytes` and its `sha256`. `failure` is
    set if there is no record or its cell failed; `wrong` also if a part of the cell failed.
    `seconds` is the time on `device` ("" for this machine), `graph_bytes` the size of the graph.
    Cells with the same `like` share corpus and options.
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
    """Result of a cell: a record, or a failure if no record was started."""

    cell: PlannedCell
    outcome: Profile | Failure
    device: str = ""
    seconds: float = 0.0
    attempts: int = 1


class SweepState:
    """Folder of a sweep, open for one process: `with open_state(...) as state`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.private = folder, folder / PRIVATE
        _remove_leftovers(folder)
        self._journal = JsonlLog(folder / JOURNAL, StateRow, durable=True)
        self.rows = _valid_rows(self._journal.readable, folder)

    @property
    def scores(self) -> Path:
        """Folder for the bits of documents until the sweep is finished."""
        return self.private / "scores"

    @property
    def scratch(self) -> Path:
        """Folder for temporary files of a run."""
        return self.private / "scratch"

    def adopt(self, cells: Iterable[PlannedCell]) -> None:
        """Add a line for each record of these cells that has none."""
        logged = {row.key for row in self._journal.readable}
        unlogged = {cell.file_name: cell for cell in cells if cell.key not in logged}
        rows = (
            _adopted(unlogged[name], self.folder / name)
            for name in sorted(_names(self.folder) & unlogged.keys())
        )
        self._add(*filter(None, rows))

    def keep(self, finished: Finished) -> StateRow:
        """Write the record, then its line. After DiskFull or UsageError the cell is unfinished."""
        path = self.folder / finished.cell.file_name
        if isinstance(finished.outcome, Profile):
            save(finished.outcome, path)
        else:
            with disk_errors(path):
                path.unlink(missing_ok=True)  # record of an earlier attempt
        row = _row(finished, path)
        self._add(row)
        return row

    def _add(self, *rows: StateRow) -> None:
        if rows:
            self._journal.add(*rows)
            self.rows.update({row.key: row for row in rows})

    def done(self) -> None:
        """Remove the files that only an unfinished sweep needs."""
        shutil.rmtree(self.scores, ignore_errors=True)


@contextlib.contextmanager
def open_state(folder: Path) -> Iterator[SweepState]:
    """Open the folder for this process alone; create it if necessary.

    Raise UsageError if another sweep uses it, or it cannot be written.
    """
    check_writable(folder)
    with disk_errors(folder):
        (folder / PRIVATE).mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        state = SweepState(folder)
        try:
            yield state
        finally:
            shutil.rmtree(state.scratch, ignore_errors=True)


def read_rows(folder: Path) -> dict[str, StateRow]:
    """Return the finished cells of a folder by key, without locking it; {} if there is no folder.

    Raise UsageError if it cannot be read.
    """
    return _valid_rows(JsonlLog(folder / JOURNAL, StateRow).readable, folder)


def cells_without_record(journal: Path) -> list[SkippedFile]:
    """Return the cells of a journal without a record, with the reason; [] if it is unreadable."""
    with contextlib.suppress(UsageError):
        last = {row.key: row for row in JsonlLog(journal, StateRow).readable}
        return [
            SkippedFile(journal, f"{row.label}: {failure_text(row.failure)}")
            for row in last.values()
            if not row.record and row.failure
        ]
    return []


# --- rows and records -------------------------------------------------------------------------


def _valid_rows(rows: Sequence[StateRow], folder: Path) -> dict[str, StateRow]:
    """Return the last row of each cell, unless its record is missing or changed."""
    names = _names(folder)
    last = {row.key: row for row in rows}
    return {
        key: row
        for key, row in last.items()
        if not row.record or (row.record in names and _hash_of(folder / row.record) == row.sha256)
    }


def _hash_of(path: Path) -> str:
    """Return the SHA-256 of a record's file, or "" if it cannot be read."""
    try:
        return sha256_of_file(path)
    except OSError:
        return ""


def _names(folder: Path) -> set[str]:
    """Return the names of files that may be records."""
    try:
        with os.scandir(folder) as entries:
            return {e.name for e in entries if e.name.endswith(".json") and e.is_file()}
    except OSError:
        return set()


def _adopted(cell: PlannedCell, path: Path) -> StateRow | None:
    """Return the row of a record without a line, or None unless it matches the cell."""
    with contextlib.suppress(RecordError):
        record = load(path)
        if (
            record.complete
            and len(record.cells) == 1
            and _normalized(record.spec) == _normalized(cell.spec)
        ):
            return _row(Finished(cell=cell, outcome=record), path)
    return None


def _normalized(spec: Spec) -> Spec:
    """Remove paths from a spec; the key in the file name identifies model and corpus."""
    return msgspec.structs.replace(spec, model="", corpus="", timeout_s=1.0)


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files of a process that was killed."""
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


# --- lock -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Raise UsageError if another process holds it or locking fails."""
    holder = folder / PRIVATE / "holder"
    try:
        lock = locks.acquire(folder / PRIVATE / "lock")
    except OSError as error:
        raise UsageError(f"cannot lock {folder}: {error}; give a folder on a local disk") from error
    if lock is None:
        raise UsageError(
            f"{folder} is in use by {_holder_name(holder)}; wait for it, or give another -o FOLDER"
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
            for path in (holder, *holder.parent.glob(f".{holder.name}.*")):  # of a killed process
                path.unlink(missing_ok=True)
        lock.release()


def _holder_name(holder: Path) -> str:
    """Describe the process that holds the lock, from the text it left."""
    try:
        return f"another sweep ({holder.read_text('utf-8', 'replace')[:200]})"
    except OSError:
        return "another sweep"
