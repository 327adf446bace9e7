"""Validate results of devices before anything of them is written or shown.

A device could report wrong seconds and joules, which cannot be checked. It cannot substitute
another model, text or graph; sums must match the documents; text is cleaned of control characters
and never reaches a file name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from edgecap.analysis.warnings.quality import foreign_bias
from edgecap.errors import EdgecapError, RecordError
from edgecap.meters.compression import NoTokens, WindowPlan, pool_documents
from edgecap.meters.sharding import DocumentShare
from edgecap.names import printable
from edgecap.record import Cell, Compression, DocumentBits, Failure, Graph, Measurement, Profile
from edgecap.storage.records import read_record
from edgecap.sweep.fleet.bundles import ModelBundle
from edgecap.sweep.fleet.messages import InvalidMessage, PartDone
from edgecap.sweep.fleet.scored_parts import ScoredText
from edgecap.sweep.plan import PlannedCell
from edgecap.text.corpus import Corpus

MOST_BITS = 1e15  # bits of a window; fp32 gives a token at most 150
MOST_LETTERS = 2000  # characters of a text from a device


class UnexpectedRecord(EdgecapError):
    """Record that does not match the request."""


def printable_failure(failure: Failure) -> Failure:
    """Return the failure of a device without control characters."""
    return Failure(
        stage=_clean_text(failure.stage, 80),
        error=_clean_text(failure.error, 80),
        message=_clean_text(failure.message, 500),
    )


def _clean_text(text: str, most: int = MOST_LETTERS) -> str:
    return printable(text[:most])


def validated_record(
    raw: msgspec.Raw,
    cell: PlannedCell,
    bundle: ModelBundle,
    corpus: Corpus,
    scored: ScoredText,
    device: str = "",
) -> Profile:
    """Validate the record of a cell, and restore local names.

    `device` is the name of the machine in the fleet; `scored` holds the parts scored before.
    Raise RecordError or UnexpectedRecord.
    """
    try:
        record = read_record(_clean(msgspec.json.decode(raw)), "the record of a device")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"the record of a device is not JSON: {error}") from error
    if not record.complete or len(record.cells) != 1:
        raise UnexpectedRecord(
            f"the record has {len(record.cells)} cells or is incomplete; "
            "one finished cell is expected"
        )
    _check_same(record, cell, bundle, corpus)
    return msgspec.structs.replace(
        record,
        spec=cell.spec,
        machine=msgspec.structs.replace(record.machine, name=device or record.machine.name),
        source=msgspec.structs.replace(
            record.source, name=bundle.name, revision=bundle.revision, other_graphs=bundle.others
        ),
        corpus=msgspec.structs.replace(
            record.corpus,
            name=corpus.name,
            documents=corpus.count,
            bytes=corpus.bytes,
            domains=corpus.domains,
        ),
        cells=(_restored(record.cells[0], cell, corpus, scored),),
    )


def _clean(value: Any) -> Any:
    """Clean all strings of parsed JSON."""
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, list):
        return [_clean(one) for one in value]
    if isinstance(value, dict):
        return {_clean_text(name): _clean(one) for name, one in value.items()}
    return value


def _check_same(record: Profile, cell: PlannedCell, bundle: ModelBundle, corpus: Corpus) -> None:
    """Raise UnexpectedRecord if the record is of another cell, model or text."""
    spec, measured = cell.spec, record.cells[0]
    _check(
        {
            "precision": (measured.precision, spec.precisions[0]),
            "provider": (measured.provider, spec.providers[0]),
            "weights": (record.source.weights_sha256, bundle.hashes.weights),
            "tokenizer": (record.source.tokenizer_sha256, bundle.hashes.tokenizer),
            "text": (record.corpus.sha256, corpus.sha256),
        }
    )
    if isinstance(measured.graph, Graph):
        _check({"graph": (_hashes(measured.graph.files), _hashes(bundle.graph))})


def _hashes(files: Any) -> set[str]:
    return {file.sha256 for file in files}


def _check(same: dict[str, tuple[object, object]]) -> None:
    wrong = next((name for name, (actual, expected) in same.items() if actual != expected), None)
    if wrong:
        raise UnexpectedRecord(f"the record has another {wrong} than requested")


# --- text -------------------------------------------------------------------------------------


def _restored(cell: Cell, planned: PlannedCell, corpus: Corpus, scored: ScoredText) -> Cell:
    """Restore the names of documents, and add the devices that scored them in parts.

    A device receives a bias without its origin: only the client can warn that it was fitted for
    another protocol.
    """
    measurement = cell.outcome
    if not isinstance(measurement, Measurement) or not isinstance(
        measurement.compression, Compression
    ):
        return cell
    compression = _compression(measurement.compression, planned, corpus)
    if scored.documents and [d.nll_bits for d in compression.per_document] != [
        document.bits.nll_bits for document in scored.documents
    ]:
        raise UnexpectedRecord("the bits of the record differ from those of the scored parts")
    compression = msgspec.structs.replace(compression, scored_on=scored.devices)
    outcome = msgspec.structs.replace(measurement, compression=compression)
    unsaid = (c for c in foreign_bias(corpus.card, compression) if c not in cell.cautions)
    return msgspec.structs.replace(cell, outcome=outcome, cautions=(*cell.cautions, *unsaid))


def _compression(received: Compression, planned: PlannedCell, corpus: Corpus) -> Compression:
    """Pool the documents again. Raise UnexpectedRecord if documents or sums do not match."""
    spec = planned.spec
    _check(
        {
            "protocol": (received.protocol, spec.protocol),
            "context": (received.context, spec.context or received.context),
            "stride": (received.stride, spec.stride),
            "number of documents": (len(received.per_document), corpus.count),
        }
    )
    documents = tuple(_named(received.per_document, corpus, spec.protocol == "exact"))
    try:
        pooled = pool_documents(
            documents,
            WindowPlan(received.protocol, received.context, received.stride),
            received.lossless_tokens,
            received.wall_s,
        )
    except NoTokens as error:
        raise UnexpectedRecord("the record has no token of the text") from error
    if (pooled.bits_per_byte, pooled.tokens) != (
        received.bits_per_byte,
        received.tokens,
    ) or not 0 <= received.wall_s < math.inf:
        raise UnexpectedRecord("the sums of the record do not match its documents")
    return pooled


def _named(
    received: tuple[DocumentBits, ...], corpus: Corpus, whole: bool
) -> Iterator[DocumentBits]:
    """Yield the documents with local names; `whole` documents must have the bytes of the text."""
    for document, bits in zip(corpus.documents, received, strict=True):
        size = len(document.text.encode())
        if not (
            0 <= bits.nll_bits < MOST_BITS
            and bits.tokens >= 0
            and (bits.bytes == size or not whole)
        ):
            raise UnexpectedRecord("the record has impossible bits or bytes of a document")
        if not 0 <= bits.bytes <= size:
            raise UnexpectedRecord("the record has more bytes than a document")
        yield msgspec.structs.replace(bits, id=document.id, domain=document.domain)


def validated_shares(reply: PartDone, corpus: Corpus) -> tuple[DocumentShare, ...]:
    """Validate the shares of a part, and restore names. Raise InvalidMessage."""
    shares = reply.shares
    numbers = [
        b for share in shares for b in (*share.window_bits, share.wall_s, share.tokens, share.bytes)
    ]
    if len(shares) != corpus.count or not all(0 <= n < MOST_BITS for n in numbers):  # NaN fails too
        raise InvalidMessage("the part does not belong to this text")
    return tuple(
        msgspec.structs.replace(share, id=document.id, domain=document.domain)
        for share, document in zip(shares, corpus.documents, strict=True)
    )
