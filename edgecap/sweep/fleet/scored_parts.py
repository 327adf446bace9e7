"""Parts of texts that were scored, kept on the disk, so that a run that is cut off scores none twice."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgecap.meters.compression import ScoredDocument
from edgecap.meters.sharding import DocumentShare, Unequal, join_parts
from edgecap.storage.files import write_atomically
from edgecap.sweep.plan import PlannedCell


class ScoredText(msgspec.Struct, frozen=True):
    """A text that is scored: its documents, and the devices that did it."""

    documents: tuple[ScoredDocument, ...] = ()
    devices: tuple[str, ...] = ()


class ScoredParts:
    """The parts in a folder, a file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._whole: dict[str, ScoredText] = {}

    def missing(self, cell: PlannedCell) -> list[int]:
        """Numbers of the parts that nobody scored yet; none of a cell that is not scored in parts."""
        return [
            part
            for part in range(cell.shards)
            if cell.shards > 1 and not self._path(cell, part).is_file()
        ]

    def keep(
        self, cell: PlannedCell, part: int, device: str, shares: tuple[DocumentShare, ...]
    ) -> None:
        """Keeps one more. Raises DiskFull or UsageError."""
        write_atomically(self._path(cell, part), msgspec.json.encode((device, shares)))

    def whole(self, cell: PlannedCell) -> ScoredText:
        """All parts of a cell together, which are there; nothing where it is not scored in parts.

        Raises Unequal where they do not belong together; none is kept then.
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
        """Gives the memory back, once the cell is finished."""
        self._whole.pop(cell.key, None)

    def _joined(self, cell: PlannedCell) -> ScoredText:
        read = [self._read(cell, part) for part in range(cell.shards)]
        devices = tuple(sorted({device for device, _ in read}))
        try:
            return ScoredText(join_parts([shares for _, shares in read]), devices)
        except Unequal as error:
            raise Unequal(f"{error}; it was scored by {', '.join(devices)}") from error

    def _read(self, cell: PlannedCell, part: int) -> tuple[str, tuple[DocumentShare, ...]]:
        try:
            return msgspec.json.decode(
                self._path(cell, part).read_bytes(), type=tuple[str, tuple[DocumentShare, ...]]
            )
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unequal(f"part {part + 1} of the text is damaged on this disk") from error

    def _path(self, cell: PlannedCell, part: int) -> Path:
        return self._folder / f"{cell.key}-{part}-of-{cell.shards}.json"
