"""Append finished pieces of long work to a JSON Lines file, so that a run can go on."""

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
    """Pieces in order, in a file that only grows; a line that a crash cut off is ignored.

    `finished` are the pieces from the first on, without a gap; `readable` are all that can be read,
    in the order of the file. A `durable` log survives a loss of power, but waits for the disk.

    Raises DiskFull or UsageError if the file cannot be read or written.
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
        """Append pieces; all of them wait for the disk once."""
        with disk_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                # A line that was cut off ends before the next one.
                separator, self._added = b"" if self._added else b"\n", False
                file.write(separator + b"".join(self._lines(pieces)))
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


def _without_gap(pieces: dict[int, Piece]) -> list[Piece]:
    first_gap = next(i for i in itertools.count() if i not in pieces)
    return [pieces[i] for i in range(first_gap)]
