"""What a sweep leaves in the cache: graphs that it made go when no cell needs them, those that were there stay.

What was there is written down in the sweep's folder when it first begins, so that one that is cut off and
goes on still knows it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from edgecap import pruning, store
from edgecap.caching import Thing, survey
from edgecap.errors import EdgecapError

NOTE = ".before"
GRAPHS = {"export", "variant", "fused"}


class Leavings:
    """The graphs of one sweep in one cache."""

    def __init__(self, cache: Path, folder: Path) -> None:
        self._cache, self._note = cache, folder / NOTE
        self._before = self._read() or {thing.path for thing in _graphs(cache)}

    def begin(self) -> None:
        """Writes down what was there. Raises DiskFull or UsageError."""
        if not self._note.exists():
            store.write_atomically(self._note, msgspec.json.encode(sorted(self._before)))

    def remove(self, model: str | None = None) -> None:
        """Removes the graphs that were made since, of one model or of all; what others use stays."""
        with contextlib.suppress(EdgecapError):
            made = [thing for thing in _graphs(self._cache) if thing.path not in self._before]
            pruning.remove(self._cache, [thing for thing in made if model is None or thing.model == model])

    def end(self) -> None:
        """The sweep is done."""
        self._note.unlink(missing_ok=True)

    def _read(self) -> set[str] | None:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(self._note.read_bytes(), type=set[str])
        return None


def _graphs(cache: Path) -> list[Thing]:
    return [thing for thing in survey(cache).things if thing.kind in GRAPHS and thing.ours]
