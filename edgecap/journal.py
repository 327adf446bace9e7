"""Keeps finished pieces of long work on the disk, one JSON line each, so that a run that dies goes on."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import Generic, TypeVar, cast

import msgspec

from edgecap.store import disk_errors

Piece = TypeVar("Piece")


class Journal(Generic[Piece]):
    """Pieces in their order, in a file that only grows; a line that was torn by a crash is done again.

    A `durable` one outlives a loss of power, at the cost of waiting for the disk. Raises DiskFull or UsageError where the file cannot be written.
    """

    def __init__(self, path: Path, kind: type[Piece], durable: bool = False) -> None:
        self._path, self._durable = path, durable
        self._line: type = tuple[int, kind]  # type: ignore[valid-type]
        self._added = False
        self.finished: list[Piece] = self._read()
        self._count = len(self.finished)

    def _read(self) -> list[Piece]:
        found: dict[int, Piece] = {}
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                index, piece = cast("tuple[int, Piece]", msgspec.json.decode(line, type=self._line))
                found[index] = piece
        first_gap = next(i for i in itertools.count() if i not in found)
        return [found[i] for i in range(first_gap)]

    def add(self, piece: Piece) -> None:
        """Keeps one more piece."""
        line = msgspec.json.encode((self._count, piece)) + b"\n"
        with disk_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                beginning, self._added = b"" if self._added else b"\n", False  # what was torn ends before the next
                file.write(beginning + line)
                file.flush()
                if self._durable:
                    os.fsync(file.fileno())
        self._added = True
        self._count += 1
        self.finished.append(piece)
