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

from typing import TypeVar

import msgspec

from edgecap.errors import EdgecapError
from edgecap.meters.compression import Scored
from edgecap.meters.sharing import Share
from edgecap.record import Failure, File
from edgecap.spec import Spec

MOST_BYTES = 256_000_000  # of a message: a record of a million documents
PIECE_BYTES = 4_000_000  # of a file at a time, so that the scheduler holds little and heartbeats come through
SLOT = "edgecap"  # the resource of dask that a measuring device has one of


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    pass


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of a text, of how many."""

    number: int
    of: int


class Order(_Message, frozen=True, tag="order"):
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
    documents: tuple[Scored, ...] = ()


class Needs(_Message, frozen=True, tag="needs"):
    """Files that the device lacks, and how many bytes of each have come already."""

    files: tuple[File, ...]
    had: tuple[int, ...]


class Done(_Message, frozen=True, tag="done"):
    """The record of a cell, as JSON."""

    record: msgspec.Raw


class PartDone(_Message, frozen=True, tag="part"):
    """A share of each document."""

    shares: tuple[Share, ...]


class Failed(_Message, frozen=True, tag="failed"):
    """Nothing was measured, and why; `elsewhere` says that it is this device's trouble: another one may do it."""

    failure: Failure
    elsewhere: bool = False


Reply = Needs | Done | PartDone | Failed
Kind = TypeVar("Kind")


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device says of itself when it joins."""

    edgecap: str
    name: str
    host: str
    cpu: str
    memory_bytes: int
    providers: tuple[str, ...]
    counters: tuple[str, ...]


class Garbled(EdgecapError):
    """A message that is none."""


def packed(message: msgspec.Struct) -> bytes:
    """A message as it travels."""
    return msgspec.json.encode(message)


def unpacked(data: object, kind: type[Kind]) -> Kind:
    """A message of the kind that is expected. Raises Garbled: whatever came, nothing but this is done with it."""
    if not isinstance(data, bytes | bytearray | memoryview) or len(data) > MOST_BYTES:
        raise Garbled("not a message of edgecap, or too large for one")
    try:
        return msgspec.json.decode(bytes(data), type=kind)
    except (msgspec.DecodeError, EdgecapError, UnicodeDecodeError, RecursionError) as error:
        raise Garbled(f"not a message of this edgecap: {' '.join(str(error).split())[:200]}") from error
