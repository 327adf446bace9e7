"""Is what a device sent what it was asked for? Nothing of it is written before these checks pass."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgecap.corpus import Corpus
from edgecap.errors import EdgecapError, RecordError
from edgecap.fleet.bundles import Bundle
from edgecap.fleet.messages import Garbled, PartDone
from edgecap.meters.sharing import Share
from edgecap.plan import Planned
from edgecap.record import Cell, Compression, Measurement, Profile
from edgecap.store import read_record


class NotAsked(EdgecapError):
    """A record of something else."""


def record_of(raw: msgspec.Raw, cell: Planned, bundle: Bundle, corpus: Corpus, scored_on: Sequence[str]) -> Profile:
    """The record of a cell as it is kept: with the names that this side knows. Raises RecordError or NotAsked."""
    try:
        record = read_record(msgspec.json.decode(raw), "what came")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"what came is no JSON: {error}") from error
    _check(record, cell, bundle, corpus)
    return msgspec.structs.replace(
        record,
        spec=cell.spec,
        source=msgspec.structs.replace(record.source, name=bundle.name, revision=bundle.revision),
        cells=tuple(_told(c, scored_on) for c in record.cells),
    )


def _check(record: Profile, cell: Planned, bundle: Bundle, corpus: Corpus) -> None:
    """Raises NotAsked where the record is of another cell, model or text."""
    spec = cell.spec
    if not record.complete or len(record.cells) != 1:
        raise NotAsked(f"a record of {len(record.cells)} cells came, not of one finished one")
    found = record.cells[0]
    same: dict[str, tuple[object, object]] = {
        "precision": (found.precision, spec.precisions[0]),
        "provider": (found.provider, spec.providers[0]),
        "weights": (record.source.weights_sha256, bundle.hashes.weights),
        "tokenizer": (record.source.tokenizer_sha256, bundle.hashes.tokenizer),
        "text": (record.corpus.sha256, corpus.sha256),
    }
    compression = found.outcome.compression if isinstance(found.outcome, Measurement) else None
    if isinstance(compression, Compression):
        same["bytes of text"] = (compression.bytes, corpus.bytes if spec.protocol == "exact" else compression.bytes)
        same["context"] = (compression.context, spec.context or compression.context)
    wrong = next((name for name, (came, asked) in same.items() if came != asked), None)
    if wrong:
        raise NotAsked(f"a record came with another {wrong} than was asked for")


def _told(cell: Cell, scored_on: Sequence[str]) -> Cell:
    """The cell with the devices that scored its text, where that was not its own alone."""
    found = cell.outcome
    if not isinstance(found, Measurement) or not isinstance(found.compression, Compression):
        return cell
    compression = msgspec.structs.replace(found.compression, scored_on=tuple(scored_on))
    return msgspec.structs.replace(cell, outcome=msgspec.structs.replace(found, compression=compression))


def shares_of(reply: PartDone, corpus: Corpus) -> tuple[Share, ...]:
    """The shares of a part, if they are of this text. Raises Garbled."""
    shares = reply.shares
    numbers = [b for share in shares for b in (*share.window_bits, share.wall_s)]
    if len(shares) != corpus.count or not all(0 <= n < 1e15 for n in numbers):  # NaN fails too
        raise Garbled("a part came that is not one of this text")
    return shares
