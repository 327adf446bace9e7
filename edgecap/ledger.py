"""The folder of a sweep: a record for each measured cell, a line for each finished one, and who works on it.

    journal.jsonl    a line for each finished cell: its record, or the reason why there is none
    *.json           the records, each written at once, before its line
    .lock            held while a sweep writes here; free as soon as its process ends, however it ends
    .scores/         bits of documents, shared by cells that differ in the batch only, or by parts of one text
    .scratch/        of the run that is going on

A record without its line (the process died between the two) is taken in when the folder is opened.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from edgecap import store
from edgecap.errors import RecordError, UsageError
from edgecap.journal import Journal
from edgecap.metrics import went_wrong
from edgecap.plan import Planned
from edgecap.record import Failure, Graph, Profile

JOURNAL = "journal.jsonl"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A finished cell, as the journal keeps it.

    `record` names the file of its record, of `bytes`; where there is none, or the cell in it failed, `failure` says
    why; `wrong` says that it or a part of it went wrong. `seconds` is what it took on `device` ("" on this machine),
    `graph_bytes` what its graph takes.
    """

    key: str
    measured: str
    model: str
    precision: str
    provider: str
    label: str
    record: str = ""
    bytes: int = 0
    failure: Failure | None = None
    wrong: bool = False
    device: str = ""
    seconds: float = 0.0
    graph_bytes: int = 0
    attempts: int = 1
    finished_utc: str = ""


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a cell: a record, or a failure where no record could be begun."""

    cell: Planned
    outcome: Profile | Failure
    device: str = ""
    seconds: float = 0.0
    attempts: int = 1


class Ledger:
    """The folder, opened by one sweep at a time. Use it as `with open_ledger(...) as ledger`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._journal = Journal(folder / JOURNAL, Row, durable=True)
        self.rows = _whole(self._journal.finished, folder)

    @property
    def scores(self) -> Path:
        """Where bits of documents are kept until the sweep is done."""
        return self.folder / ".scores"

    @property
    def scratch(self) -> Path:
        """Where a run may write meanwhile."""
        return self.folder / ".scratch"

    def adopt(self, cells: Iterable[Planned]) -> None:
        """Takes in records of these cells that lie here without a line."""
        lost = {cell.file_name: cell for cell in cells if cell.key not in self.rows}
        for name in sorted(_names(self.folder) & lost.keys()):
            with contextlib.suppress(RecordError):  # what cannot be read is measured again
                record = store.load(self.folder / name)
                if record.complete and len(record.cells) == 1:
                    self._add(_row(Finished(cell=lost[name], outcome=record), self.folder / name))

    def keep(self, finished: Finished) -> Row:
        """Writes the record, then its line. Raises DiskFull or UsageError; then nothing of it counts as done."""
        path = self.folder / finished.cell.file_name
        if isinstance(finished.outcome, Profile):
            store.save(finished.outcome, path)
        else:
            path.unlink(missing_ok=True)  # of an earlier attempt
        return self._add(_row(finished, path))

    def _add(self, row: Row) -> Row:
        self._journal.add(row)
        self.rows[row.key] = row
        return row

    def close(self, done: bool) -> None:
        """Clears away what only an unfinished sweep needs."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        if done:
            shutil.rmtree(self.scores, ignore_errors=True)


@contextlib.contextmanager
def open_ledger(folder: Path) -> Iterator[Ledger]:
    """The folder, made if it is not there, for this process alone.

    Raises UsageError where another sweep works on it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    with store.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    store.check_writable(folder)
    lock = FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"{folder} is in use by {_holder(folder)}; wait for it, or give another -o FOLDER") from None
    except (OSError, NotImplementedError) as error:
        raise UsageError(f"cannot lock {folder}: {error}; give a folder on a local disk") from error
    try:
        _say_who(folder)
        yield Ledger(folder)
    finally:
        with contextlib.suppress(OSError):
            (folder / ".holder").unlink()
        lock.release()


def look_into(folder: Path) -> dict[str, Row]:
    """The finished cells of a folder by key, without waiting for who works on it; none where there is no folder."""
    return _whole(Journal(folder / JOURNAL, Row).finished, folder)


# --- what is there ----------------------------------------------------------------------------


def _whole(rows: Sequence[Row], folder: Path) -> dict[str, Row]:
    """The last line of each cell, if its record still lies there as it was written."""
    sizes = _sizes(folder)
    last = {row.key: row for row in rows}
    return {key: row for key, row in last.items() if not row.record or sizes.get(row.record) == row.bytes}


def _names(folder: Path) -> set[str]:
    return set(_sizes(folder))


def _sizes(folder: Path) -> dict[str, int]:
    """The sizes of the files that may be records."""
    try:
        with os.scandir(folder) as entries:
            return {e.name: e.stat().st_size for e in entries if e.name.endswith(".json") and e.is_file()}
    except OSError:
        return {}


def _row(finished: Finished, path: Path) -> Row:
    cell, outcome = finished.cell, finished.outcome
    spec = cell.spec
    row = Row(
        key=cell.key,
        measured=cell.measured,
        model=Path(spec.model).name,
        precision=spec.precisions[0],
        provider=spec.providers[0],
        label=str(cell),
        device=finished.device,
        seconds=finished.seconds,
        attempts=finished.attempts,
        finished_utc=_now(),
    )
    if isinstance(outcome, Failure):
        return msgspec.structs.replace(row, failure=outcome, wrong=True)
    measured = outcome.cells[0]
    return msgspec.structs.replace(
        row,
        record=path.name,
        bytes=path.stat().st_size,
        failure=measured.outcome if isinstance(measured.outcome, Failure) else None,
        wrong=went_wrong(measured),
        graph_bytes=measured.graph.bytes if isinstance(measured.graph, Graph) else 0,
    )


# --- who works on it --------------------------------------------------------------------------


def _say_who(folder: Path) -> None:
    with contextlib.suppress(UsageError):
        words = f"process {os.getpid()} on {platform.node()} since {_now()}"
        store.write_atomically(folder / ".holder", words.encode())


def _holder(folder: Path) -> str:
    """Who said that it works here, for people: the lock itself is what counts."""
    try:
        return f"another sweep ({(folder / '.holder').read_text('utf-8', 'replace')[:200]})"
    except OSError:
        return "another sweep"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
