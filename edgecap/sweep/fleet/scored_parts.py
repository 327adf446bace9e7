"""Scored parts of texts, stored on disk so that a resumed sweep scores no part twice."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgecap.meters.compression import ScoredDocument
from edgecap.meters.sharding import DocumentShare, Unequal, join_parts
from edgecap.storage.files import write_atomically
from edgecap.sweep.plan import PlannedCell


class ScoredText(msgspec.Struct, frozen=True):
    """Scored text: its documents, and the devices that scored them."""

    documents: tuple[ScoredDocument, ...] = ()
    devices: tuple[str, ...] = ()


class ScoredParts:
    """Scored parts in a folder, one file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._whole: dict[str, ScoredText] = {}

    def missing(self, cell: PlannedCell) -> list[int]:
        """Return the numbers of the missing parts; [] for a cell that is not scored in parts."""
        return [
            part
            for part in range(cell.shards)
            if cell.shards > 1 and not self._path(cell, part).is_file()
        ]

    def keep(
        self, cell: PlannedCell, part: int, device: str, shares: tuple[DocumentShare, ...]
    ) -> None:
        """Store a part. Raise DiskFull or UsageError."""
        write_atomically(self._path(cell, part), msgspec.json.encode((device, shares)))

    def whole(self, cell: PlannedCell) -> ScoredText:
        """Join all parts of a cell, which must be stored; empty if it is not scored in parts.

        Raise Unequal if the parts do not belong together, and delete them.
        """
        if cell.shards > 1 and cell.key not in self._whole:
            try:
                self._whole[cell.key] = self._joined(cell)
            except Unequal:
                for part in range(cell.shards):
                    self._path(cell, part).unlink(missing_ok=True)
                raise
        return self._whole.get(cell.key, ScoredText())

    def forget(self, cell: PlannedCell) -> None:
        """Free the memory of a finished cell."""
        self._whole.pop(cell.key, None)

    def _joined(self, cell: PlannedCell) -> ScoredText:
        read = [self._read(cell, part) for part in range(cell.shards)]
        devices = tuple(sorted({device for device, _ in read}))
        try:
            return ScoredText(join_parts([shares for _, shares in read]), devices)
        except Unequal as error:
            raise Unequal(f"{error}; scored by {', '.join(devices)}") from error

    def _read(self, cell: PlannedCell, part: int) -> tuple[str, tuple[DocumentShare, ...]]:
        try:
            return msgspec.json.decode(
                self._path(cell, part).read_bytes(), type=tuple[str, tuple[DocumentShare, ...]]
            )
        except (OSError, ValueError, RecursionError) as error:
            raise Unequal(f"part {part + 1} of the text is damaged on this disk") from error

    def _path(self, cell: PlannedCell, part: int) -> Path:
        return self._folder / f"{cell.key}-{part}-of-{cell.shards}.json"
