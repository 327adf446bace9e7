"""Keeps finished pieces of long work on the disk, one JSON line each, so that a run that dies goes on."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from edgecap.errors import UsageError
from edgecap.storage.files import disk_errors

Piece = TypeVar("Piece")


class JsonlLog(Generic[Piece]):
    """Pieces in their order, in a file that only grows; a line that was torn by a crash is done again.

    `finished` are the pieces without a gap, from the first on; `readable` are all that can be read, as they lie in the
    file. A `durable` journal outlives a loss of power, at the cost of waiting for the disk.

    Raises DiskFull or UsageError where the file cannot be read or written.
    """

    def __init__(self, path: Path, kind: type[Piece], durable: bool = False) -> None:
        self._path, self._durable = path, durable
        self._line: type = tuple[int, kind]  # type: ignore[valid-type]
        self._added = False
        lines = list(self._read())
        self.readable: list[Piece] = [piece for _, piece in lines]
        self.finished: list[Piece] = _without_gap(dict(lines))
        self._count = len(self.finished)

    def _read(self) -> Iterator[tuple[int, Piece]]:
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"cannot read {self._path}: {error.strerror}") from error
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                yield msgspec.json.decode(line, type=self._line)

    def add(self, *pieces: Piece) -> None:
        """Keeps more pieces; all of them together wait for the disk once."""
        with disk_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                beginning, self._added = (
                    b"" if self._added else b"\n",
                    False,
                )  # what was torn ends before the next
                file.write(beginning + b"".join(self._lines(pieces)))
                file.flush()
                if self._durable:
                    os.fsync(file.fileno())
        self._added = True
        self._count += len(pieces)
        self.finished.extend(pieces)
        self.readable.extend(pieces)

    def _lines(self, pieces: Iterable[Piece]) -> Iterator[bytes]:
        return (
            msgspec.json.encode(numbered) + b"\n" for numbered in enumerate(pieces, self._count)
        )


def _without_gap(found: dict[int, Piece]) -> list[Piece]:
    first_gap = next(i for i in itertools.count() if i not in found)
    return [found[i] for i in range(first_gap)]
