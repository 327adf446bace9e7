"""Read many records: find their files, read each once, give a reason for each skipped file.

A file is read again when its size or time changes, so that a folder can be watched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from edgecap.errors import RecordError, UsageError
from edgecap.names import one_line
from edgecap.record import Profile
from edgecap.storage.files import sha256_of
from edgecap.storage.records import load

T = TypeVar("T")
JOURNAL = "journal.jsonl"  # of a sweep
FileStamp = tuple[int, int]  # of a file: nanoseconds of its last change, bytes


class SkippedFile(NamedTuple):
    """A skipped file, or a cell without a record, and the reason in one line."""

    path: Path
    reason: str


class LoadedRecord(NamedTuple, Generic[T]):
    """The value that was kept of a record's file."""

    path: Path
    value: T


class Collection(Generic[T]):
    """The records in folders and files; only the value of `keep` stays in memory of each.

    A folder may hold a sweep's journal, too; `tells` reads the cells without a record from it.
    """

    def __init__(
        self,
        places: Sequence[Path],
        keep: Callable[[Profile], T],
        tells: Callable[[Path], Sequence[SkippedFile]] = lambda journal: (),
    ) -> None:
        """Raise UsageError if a place is missing."""
        missing = [place for place in places if not place.exists()]
        if missing:
            raise UsageError(f"there is no {missing[0]}: give folders with records, or records")
        self._places, self._keep, self._tells = tuple(places), keep, tells
        self._known: dict[Path, tuple[FileStamp, Sequence[LoadedRecord[T] | SkippedFile]]] = {}

    def version(self) -> str:
        """Return a string that changes when a file comes, goes or changes."""
        return sha256_of(
            *(f"{path}\0{stamp}".encode("utf-8", "replace") for path, stamp in self._files())
        )[:16]

    def read(
        self, watch: Callable[[int, int], None] = lambda done, total: None
    ) -> list[LoadedRecord[T] | SkippedFile]:
        """Read all files in the order of their names; call `watch(done, total)` after each."""
        files, known = list(self._files()), {}
        for done, (path, stamp) in enumerate(files, 1):
            before = self._known.get(path)
            is_same = before is not None and before[0] == stamp
            known[path] = before if before and is_same else (stamp, self._read_file(path))
            watch(done, len(files))
        self._known = known
        return [item for _, items in known.values() for item in items]

    def _read_file(self, path: Path) -> Sequence[LoadedRecord[T] | SkippedFile]:
        return self._tells(path) if path.name == JOURNAL else [self._open(path)]

    def _open(self, path: Path) -> LoadedRecord[T] | SkippedFile:
        try:
            return LoadedRecord(path, self._keep(load(path)))
        except RecordError as error:
            reason = str(error).replace(str(path), path.name)
        except (ArithmeticError, LookupError, ValueError, RecursionError) as error:
            # A record that was edited by hand.
            problem = f"{type(error).__name__}: {error}"
            reason = f"{path.name} holds numbers that cannot be joined ({problem})"
        return SkippedFile(path, one_line(reason))

    def _files(self) -> Iterator[tuple[Path, FileStamp]]:
        """Yield each file once: those given, `*.json` directly in folders, and their journals."""
        files = (
            path
            for place in self._places
            for path in (_records_in(place) if place.is_dir() else [place])
        )
        once = {os.path.abspath(path): path for path in files}
        return ((path, _stamp(path)) for path in once.values())


def _records_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if _is_readable(e.name) and e.is_file()]
    except OSError as error:
        raise UsageError(f"cannot read the folder {folder}: {error.strerror}") from error
    return [folder / name for name in sorted(names)]


def _is_readable(name: str) -> bool:
    return name == JOURNAL or (name.endswith(".json") and name[0] != ".")


def _stamp(path: Path) -> FileStamp:
    """Return zeros if the file has no status; reading it gives the reason."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size
