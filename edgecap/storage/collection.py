"""Read many records: find their files in folders, read each once, give a reason for each skipped.

A file is read again when its size or time changes, so that a folder can be watched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from edgecap.errors import RecordError, UsageError
from edgecap.names import one_line
from edgecap.record import Profile
from edgecap.storage.files import sha256_of
from edgecap.storage.records import load

T = TypeVar("T")
JOURNAL = "journal.jsonl"  # of a sweep
MOST_ENTRIES = 200_000  # files and folders below a folder that is searched
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

    Folders are searched to any depth. One may hold a sweep's journal, too; `tells` reads the cells
    without a record from it.
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
        stamps = (f"{path}\0{_stamp(path)}" for path in _distinct(self._found()))
        return sha256_of(*(stamp.encode("utf-8", "replace") for stamp in stamps))[:16]

    def read(
        self, watch: Callable[[int, int], None] = lambda done, total: None
    ) -> list[LoadedRecord[T] | SkippedFile]:
        """Read all files in the order of their names; call `watch(done, total)` after each.

        Folders without a record come first, as skipped.
        """
        found = self._found()
        files, known = _distinct(found), {}
        for done, (path, place) in enumerate(files.items(), 1):
            stamp, before = _stamp(path), self._known.get(path)
            is_same = before is not None and before[0] == stamp
            known[path] = before if before and is_same else (stamp, self._read_file(path, place))
            watch(done, len(files))
        self._known = known
        items = [item for _, items in known.values() for item in items]
        return [*_without_record(found, items), *items]

    def _read_file(self, path: Path, place: Path) -> Sequence[LoadedRecord[T] | SkippedFile]:
        if path.name == JOURNAL:
            return self._tells(path)
        if os.path.isdir(path):  # one that the walk could not enter
            return [SkippedFile(path, f"{_shown(path, place)} is a folder that cannot be read")]
        return [self._open(path, place)]

    def _open(self, path: Path, place: Path) -> LoadedRecord[T] | SkippedFile:
        shown = _shown(path, place)
        try:
            return LoadedRecord(path, self._keep(load(path)))
        except RecordError as error:
            reason = str(error).replace(str(path), shown)
        except (ArithmeticError, LookupError, ValueError, RecursionError) as error:
            # A record that was edited by hand.
            problem = f"{type(error).__name__}: {error}"
            reason = f"{shown} holds numbers that cannot be joined ({problem})"
        return SkippedFile(path, one_line(reason))

    def _found(self) -> dict[Path, list[Path]]:
        """Return the files of each place: itself, or what a folder holds."""
        return {place: _files_below(place) if place.is_dir() else [place] for place in self._places}


def _distinct(found: dict[Path, list[Path]]) -> dict[Path, Path]:
    """Return each file once, with the place that it comes from."""
    once: dict[str, tuple[Path, Path]] = {}
    for place, files in found.items():
        for path in files:
            once.setdefault(os.path.realpath(path), (path, place))
    return dict(once.values())


def _without_record(
    found: dict[Path, list[Path]], items: Sequence[LoadedRecord[T] | SkippedFile]
) -> list[SkippedFile]:
    """Return the folders among the places that hold no record."""
    loaded = {os.path.realpath(item.path) for item in items if isinstance(item, LoadedRecord)}
    return [
        SkippedFile(place, f"there is no record in {place} or its sub-folders")
        for place, files in found.items()
        if place.is_dir() and loaded.isdisjoint(map(os.path.realpath, files))
    ]


def _shown(path: Path, place: Path) -> str:
    """Return the path below the folder that was given, or the name of a given file."""
    return path.relative_to(place).as_posix() if path != place else path.name


# --- folders ----------------------------------------------------------------------------------


def _files_below(folder: Path) -> list[Path]:
    """Return the `*.json` and journals below a folder: its own in order, then each sub-folder's.

    Links are followed, and each folder is entered once. Hidden names are left out. A sub-folder
    that cannot be read stands for its files. Raise UsageError if the folder itself cannot be read,
    or if it holds more than MOST_ENTRIES files and folders.
    """
    files: list[Path] = []
    waiting, entered, entries = [folder], set[str](), 0
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(current)
        if real in entered:
            continue
        entered.add(real)
        try:
            names, folders = _listed(current)
        except OSError as error:
            if current == folder:
                raise UsageError(f"cannot read the folder {folder}: {error.strerror}") from error
            names, folders = [""], []
        entries += len(names) + len(folders)
        if entries > MOST_ENTRIES:
            raise UsageError(
                f"{folder} holds more than {MOST_ENTRIES:,} files: name the folders with records"
            )
        files += [current / name for name in names if not name or _is_readable(name)]
        waiting += [current / name for name in reversed(folders)]
    return files


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of files and of folders in a folder, sorted, without hidden ones."""
    names: tuple[list[str], list[str]] = ([], [])
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                names[_is_folder(entry)].append(entry.name)
    return sorted(names[False]), sorted(names[True])


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_readable(name: str) -> bool:
    return name == JOURNAL or name.endswith(".json")


def _stamp(path: Path) -> FileStamp:
    """Return zeros if the file has no status; reading it gives the reason."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size
