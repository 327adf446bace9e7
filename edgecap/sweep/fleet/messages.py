"""Messages between client and device: JSON in bytes, never code.

client                                     device
order: a cell, or a part of a text  ─────▶ prepares the model, if it has all files
     ◀── needs: missing files ──────────── else requests them
piece: of one of these files        ─────▶ stores it, checks the hash of the complete file
order again                         ─────▶ measures
     ◀── done | part | failed ────────────

Both sides validate: the device, that every file has its hash and stays in its folder; the client,
that a record is valid and is the requested one.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

import msgspec

from edgecap.errors import EdgecapError, UsageError
from edgecap.meters.compression import ScoredDocument
from edgecap.meters.sharding import DocumentShare
from edgecap.names import one_line
from edgecap.record import Failure, File
from edgecap.spec import Spec
from edgecap.sweep.plan import EVERY

MOST_BYTES = 256_000_000  # limit of a message; enough for a record of a million documents
PIECE_BYTES = 4_000_000  # of a file at a time: small, so that heartbeats are not delayed
SLOT = "edgecap"  # dask resource; a device has one


class _FleetMessage(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"
):
    pass


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Part `number` of a text that is scored in `of` parts."""

    number: int
    of: int


class Order(_FleetMessage, frozen=True, tag="order"):
    """Order to measure a cell, or to score a `part` of its text.

    `spec` has one precision and one provider. `manifest` (JSON of `edgecap export`) lists the files
    of the model; `text` is the corpus, named `text_name`, or None for the bundled one. `documents`
    are scored already.
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
    """Files that the device lacks: by SHA-256, the bytes of each that it has received."""

    had: dict[str, int]


class CellDone(_FleetMessage, frozen=True, tag="done"):
    """Record of a measured cell, as JSON."""

    record: msgspec.Raw


class PartDone(_FleetMessage, frozen=True, tag="part"):
    """Share of each document that was scored."""

    shares: tuple[DocumentShare, ...]


class TaskFailed(_FleetMessage, frozen=True, tag="failed"):
    """Failure of a task; `elsewhere` if another device may succeed."""

    failure: Failure
    elsewhere: bool = False


Reply = FilesNeeded | CellDone | PartDone | TaskFailed
MessageType = TypeVar("MessageType")

# --- device -----------------------------------------------------------------------------------

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_WORDS = r"[^\x00-\x1f\x7f-\x9f]{0,200}"
Word = Annotated[str, msgspec.Meta(pattern=rf"\A{_WORDS}\Z")]
Few = Annotated[tuple[Word, ...], msgspec.Meta(max_length=32)]


class DeviceInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Description of a device, sent when it joins."""

    edgecap: Word
    name: Annotated[str, msgspec.Meta(pattern=rf"\A{_NAME}\Z")]
    host: Word
    cpu: Word
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)]
    providers: Few
    counters: Few


class DeviceProgress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Progress of a measurement, sent with heartbeats; `beats` counts the updates."""

    beats: Annotated[int, msgspec.Meta(ge=0)] = 0
    stage: Word = ""
    done: Annotated[float, msgspec.Meta(ge=0)] = 0
    total: Annotated[float, msgspec.Meta(ge=0)] = 0

    def __str__(self) -> str:
        share = f" {100 * min(self.done / self.total, 1):.0f} %" if self.total > 1 else ""
        return f"{self.stage}{share}"


def check_name(name: str) -> str:
    """Return a valid device name. Raise UsageError for any other."""
    if not re.fullmatch(_NAME, name, re.ASCII) or name == EVERY:
        raise UsageError(
            f"{name!r} cannot name a device: give --name with up to 63 letters, digits, '.', '_' "
            f"and '-', a letter or digit first, and not '{EVERY}'"
        )
    return name


# --- encoding ---------------------------------------------------------------------------------

# At import, before threads decode messages; see storage/records.py.
for _kind in (Order, Reply, DeviceInfo, DeviceProgress):
    msgspec.json.Decoder(_kind)


class InvalidMessage(EdgecapError):
    """Received data that is not a valid message."""


def encode(message: msgspec.Struct) -> bytes:
    """Encode a message as JSON."""
    return msgspec.json.encode(message)


def decode(data: object, kind: type[MessageType]) -> MessageType:
    """Decode a message of the expected type. Raise InvalidMessage for anything else."""
    if not isinstance(data, bytes | bytearray | memoryview) or len(data) > MOST_BYTES:
        raise InvalidMessage("not a message of edgecap, or too large")
    try:
        return msgspec.json.decode(bytes(data), type=kind)
    except (msgspec.DecodeError, EdgecapError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"not a message of this edgecap: {one_line(error, 200)}") from error
