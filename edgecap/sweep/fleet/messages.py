"""What the client and a device of a fleet say to each other, as JSON in bytes: nothing of it is ever code.

client                                     device
order: a cell, or a part of a text  ─────▶ lays the model out, if it has all of its files
     ◀── needs: files that it lacks ────── else asks for them
piece: of one of these files        ─────▶ keeps it, checks it when it is whole
order again                         ─────▶ measures
     ◀── done | scored | failed ──────────

Both sides check what they get: a device, that every file has its hash and lies below its folder; the
client, that a record is one, and the one that it asked for.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

import msgspec

from edgecap.errors import EdgecapError, UsageError
from edgecap.meters.compression import ScoredDocument
from edgecap.meters.sharding import DocumentShare
from edgecap.record import Failure, File
from edgecap.spec import Spec
from edgecap.sweep.plan import EVERY

MOST_BYTES = 256_000_000  # of a message: a record of a million documents
PIECE_BYTES = (
    4_000_000  # of a file at a time, so that the scheduler holds little and heartbeats come through
)
SLOT = "edgecap"  # the resource of dask that a measuring device has one of


class _FleetMessage(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"
):
    pass


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of a text, of how many."""

    number: int
    of: int


class Order(_FleetMessage, frozen=True, tag="order"):
    """Measure a cell, or score a `part` of its text.

    `spec` has one precision and one provider; its model is what `manifest` (of `edgecap export`, JSON) lists, its
    corpus `text` under `text_name`, or the bundled one. `documents` were scored elsewhere.
    """

    edgecap: str
    spec: Spec
    model_name: str
    manifest: str
    text: File | None = None
    text_name: str = ""
    part: Part | None = None
    documents: tuple[ScoredDocument, ...] = ()


class FilesNeeded(_FleetMessage, frozen=True, tag="needs"):
    """Files that the device lacks, by their hash, and how many bytes of each have come already."""

    had: dict[str, int]


class CellDone(_FleetMessage, frozen=True, tag="done"):
    """The record of a cell, as JSON."""

    record: msgspec.Raw


class PartDone(_FleetMessage, frozen=True, tag="part"):
    """A share of each document."""

    shares: tuple[DocumentShare, ...]


class TaskFailed(_FleetMessage, frozen=True, tag="failed"):
    """Nothing was measured, and why; `elsewhere` says that it is this device's trouble: another one may do it."""

    failure: Failure
    elsewhere: bool = False


Reply = FilesNeeded | CellDone | PartDone | TaskFailed
MessageType = TypeVar("MessageType")

# --- what a device says of itself -------------------------------------------------------------

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_WORDS = r"[^\x00-\x1f\x7f-\x9f]{0,200}"
Word = Annotated[str, msgspec.Meta(pattern=rf"\A{_WORDS}\Z")]
Few = Annotated[tuple[Word, ...], msgspec.Meta(max_length=32)]


class DeviceInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device says of itself when it joins."""

    edgecap: Word
    name: Annotated[str, msgspec.Meta(pattern=rf"\A{_NAME}\Z")]
    host: Word
    cpu: Word
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)]
    providers: Few
    counters: Few


class DeviceProgress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a measurement is; `beats` counts its signs of life."""

    beats: Annotated[int, msgspec.Meta(ge=0)] = 0
    stage: Word = ""
    done: Annotated[float, msgspec.Meta(ge=0)] = 0
    total: Annotated[float, msgspec.Meta(ge=0)] = 0

    def __str__(self) -> str:
        share = f" {100 * min(self.done / self.total, 1):.0f} %" if self.total > 1 else ""
        return f"{self.stage}{share}"


def check_name(name: str) -> str:
    """A name for a device, as plans write it. Raises UsageError."""
    if not re.fullmatch(_NAME, name, re.ASCII) or name == EVERY:
        raise UsageError(
            f"{name!r} cannot name a device: give --name with up to 63 letters, digits, '.', '_' and '-', a letter or"
            f" digit first, and not '{EVERY}'"
        )
    return name


# --- as they travel ---------------------------------------------------------------------------


class InvalidMessage(EdgecapError):
    """A message that is none."""


def encode(message: msgspec.Struct) -> bytes:
    """A message as it travels."""
    return msgspec.json.encode(message)


def decode(data: object, kind: type[MessageType]) -> MessageType:
    """A message of the kind that is expected. Raises Garbled: whatever came, nothing but this is done with it."""
    if not isinstance(data, bytes | bytearray | memoryview) or len(data) > MOST_BYTES:
        raise InvalidMessage("not a message of edgecap, or too large for one")
    try:
        return msgspec.json.decode(bytes(data), type=kind)
    except (msgspec.DecodeError, EdgecapError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(
            f"not a message of this edgecap: {' '.join(str(error).split())[:200]}"
        ) from error
