"""Many records: finds their files, reads each once, and says of every other file why it gives nothing.

A file is read again when its size or time changes, so that a folder can be watched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from edgecap.errors import RecordError, UsageError
from edgecap.record import Profile
from edgecap.storage.files import sha256_of
from edgecap.storage.records import load

T = TypeVar("T")
JOURNAL = "journal.jsonl"  # of a sweep
FileStamp = tuple[int, int]  # of a file: nanoseconds of its last change, bytes


class SkippedFile(NamedTuple):
    """A file that gives nothing to show, or tells of a cell without a record, and why in one line."""

    path: Path
    reason: str


class LoadedRecord(NamedTuple, Generic[T]):
    """What was kept of a record's file."""

    path: Path
    value: T


class Collection(Generic[T]):
    """The records in folders and files; of each record only what `keep` makes of it stays in memory.

    A folder may hold a journal too, which `tells` what has no record.
    """

    def __init__(
        self,
        places: Sequence[Path],
        keep: Callable[[Profile], T],
        tells: Callable[[Path], Sequence[SkippedFile]] = lambda journal: (),
    ) -> None:
        """Raises UsageError where a place is not there."""
        missing = [place for place in places if not place.exists()]
        if missing:
            raise UsageError(f"there is no {missing[0]}: give folders with records, or records")
        self._places, self._keep, self._tells = tuple(places), keep, tells
        self._known: dict[Path, tuple[FileStamp, Sequence[LoadedRecord[T] | SkippedFile]]] = {}

    def version(self) -> str:
        """A word that changes when a file comes, goes or changes."""
        return sha256_of(
            *(f"{path}\0{stamp}".encode("utf-8", "replace") for path, stamp in self._files())
        )[:16]

    def read(
        self, watch: Callable[[int, int], None] = lambda done, total: None
    ) -> list[LoadedRecord[T] | SkippedFile]:
        """Everything that lies there, in the order of the names; `watch` is told how many files are done."""
        files, known = list(self._files()), {}
        for done, (path, stamp) in enumerate(files, 1):
            had = self._known.get(path)
            known[path] = had if had and had[0] == stamp else (stamp, self._opened(path))
            watch(done, len(files))
        self._known = known
        return [one for _, found in known.values() for one in found]

    def _opened(self, path: Path) -> Sequence[LoadedRecord[T] | SkippedFile]:
        return self._tells(path) if path.name == JOURNAL else [self._open(path)]

    def _open(self, path: Path) -> LoadedRecord[T] | SkippedFile:
        try:
            return LoadedRecord(path, self._keep(load(path)))
        except RecordError as error:
            reason = str(error).replace(str(path), path.name)
        except (
            ArithmeticError,
            LookupError,
            ValueError,
            RecursionError,
        ) as error:  # of a record that someone wrote
            reason = (
                f"{path.name} holds numbers that cannot be joined ({type(error).__name__}: {error})"
            )
        return SkippedFile(path, " ".join(reason.split()))

    def _files(self) -> Iterator[tuple[Path, FileStamp]]:
        """Each file once: those named, `*.json` directly in the folders, and their journals."""
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
            names = [e.name for e in entries if _may_tell(e.name) and e.is_file()]
    except OSError as error:
        raise UsageError(f"cannot read the folder {folder}: {error.strerror}") from error
    return [folder / name for name in sorted(names)]


def _may_tell(name: str) -> bool:
    return name == JOURNAL or (name.endswith(".json") and name[0] != ".")


def _stamp(path: Path) -> FileStamp:
    """Zeros where the file cannot be looked at: reading it will say why."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
