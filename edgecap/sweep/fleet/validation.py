"""Is what a device sent what it was asked for? Nothing of it is written or shown before these checks pass.

A device can lie about its seconds and joules; nobody else was there. It cannot pass off another model, text or graph,
its sums must follow from its documents, and no word of it reaches a file name or commands a terminal.
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

MOST_BITS = 1e15  # of a window; fp32 gives no token more than 150
MOST_LETTERS = 2000  # of a text from a device


class UnexpectedRecord(EdgecapError):
    """A record of something else."""


def printable_failure(failure: Failure) -> Failure:
    """A failure in a device's words, without what could command a terminal."""
    return Failure(
        stage=_word(failure.stage, 80),
        error=_word(failure.error, 80),
        message=_word(failure.message, 500),
    )


def _word(text: str, most: int = MOST_LETTERS) -> str:
    return printable(text[:most])


def validated_record(
    raw: msgspec.Raw,
    cell: PlannedCell,
    bundle: ModelBundle,
    corpus: Corpus,
    scored: ScoredText,
    device: str = "",
) -> Profile:
    """The record of a cell as it is kept: with the names that this side knows. Raises RecordError or NotAsked.

    `device` is what the fleet calls the machine, `scored` is what was scored before, part by part, if that was so.
    """
    try:
        record = read_record(_cleaned(msgspec.json.decode(raw)), "what came")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"what came is no JSON: {error}") from error
    if not record.complete or len(record.cells) != 1:
        raise UnexpectedRecord(
            f"a record of {len(record.cells)} cells came, not of one finished one"
        )
    _check_same(record, cell, bundle, corpus)
    return msgspec.structs.replace(
        record,
        spec=cell.spec,
        machine=msgspec.structs.replace(record.machine, name=device or record.machine.name),
        source=msgspec.structs.replace(record.source, name=bundle.name, revision=bundle.revision),
        corpus=msgspec.structs.replace(
            record.corpus,
            name=corpus.name,
            documents=corpus.count,
            bytes=corpus.bytes,
            domains=corpus.domains,
        ),
        cells=(_told(record.cells[0], cell, corpus, scored),),
    )


def _cleaned(value: Any) -> Any:
    """Parsed JSON with texts that can be shown anywhere."""
    if isinstance(value, str):
        return _word(value)
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    if isinstance(value, dict):
        return {_word(name): _cleaned(one) for name, one in value.items()}
    return value


def _check_same(record: Profile, cell: PlannedCell, bundle: ModelBundle, corpus: Corpus) -> None:
    """Raises NotAsked where the record is of another cell, model or text."""
    spec, found = cell.spec, record.cells[0]
    _check(
        {
            "precision": (found.precision, spec.precisions[0]),
            "provider": (found.provider, spec.providers[0]),
            "weights": (record.source.weights_sha256, bundle.hashes.weights),
            "tokenizer": (record.source.tokenizer_sha256, bundle.hashes.tokenizer),
            "text": (record.corpus.sha256, corpus.sha256),
        }
    )
    if isinstance(found.graph, Graph):
        _check({"graph": (_hashes(found.graph.files), _hashes(bundle.graph))})


def _hashes(files: Any) -> set[str]:
    return {file.sha256 for file in files}


def _check(same: dict[str, tuple[object, object]]) -> None:
    wrong = next((name for name, (came, asked) in same.items() if came != asked), None)
    if wrong:
        raise UnexpectedRecord(f"a record came with another {wrong} than was asked for")


# --- the text ---------------------------------------------------------------------------------


def _told(cell: Cell, planned: PlannedCell, corpus: Corpus, scored: ScoredText) -> Cell:
    """The cell with the documents' own names, and the devices that scored them, where that was not its own alone.

    A device is told a bias, not where it was fitted: only this side sees whether that was for another protocol.
    """
    found = cell.outcome
    if not isinstance(found, Measurement) or not isinstance(found.compression, Compression):
        return cell
    compression = _compression(found.compression, planned, corpus)
    if scored.documents and [d.nll_bits for d in compression.per_document] != [
        document.bits.nll_bits for document in scored.documents
    ]:
        raise UnexpectedRecord("a record came with other bits than the parts of its text have")
    compression = msgspec.structs.replace(compression, scored_on=scored.devices)
    outcome = msgspec.structs.replace(found, compression=compression)
    unsaid = (c for c in foreign_bias(corpus.card, compression) if c not in cell.cautions)
    return msgspec.structs.replace(cell, outcome=outcome, cautions=(*cell.cautions, *unsaid))


def _compression(came: Compression, planned: PlannedCell, corpus: Corpus) -> Compression:
    """What came, pooled anew. Raises NotAsked where it is of other documents, or its sums are not theirs."""
    spec = planned.spec
    _check(
        {
            "protocol": (came.protocol, spec.protocol),
            "context": (came.context, spec.context or came.context),
            "stride": (came.stride, spec.stride),
            "number of documents": (len(came.per_document), corpus.count),
        }
    )
    documents = tuple(_named(came.per_document, corpus, spec.protocol == "exact"))
    try:
        pooled = pool_documents(
            documents,
            WindowPlan(came.protocol, came.context, came.stride),
            came.lossless_tokens,
            came.wall_s,
        )
    except NoTokens as error:
        raise UnexpectedRecord("a record came without a token of the text") from error
    if (pooled.bits_per_byte, pooled.tokens) != (
        came.bits_per_byte,
        came.tokens,
    ) or not 0 <= came.wall_s < math.inf:
        raise UnexpectedRecord("a record came whose sums are not those of its documents")
    return pooled


def _named(came: tuple[DocumentBits, ...], corpus: Corpus, whole: bool) -> Iterator[DocumentBits]:
    """The documents as this side knows them; where texts are scored `whole`, of the bytes that they have."""
    for document, told in zip(corpus.documents, came, strict=True):
        size = len(document.text.encode())
        if not (
            0 <= told.nll_bits < MOST_BITS
            and told.tokens >= 0
            and (told.bytes == size or not whole)
        ):
            raise UnexpectedRecord("a record came with bits or bytes that a document cannot have")
        if not 0 <= told.bytes <= size:
            raise UnexpectedRecord("a record came with more bytes than a document has")
        yield msgspec.structs.replace(told, id=document.id, domain=document.domain)


def validated_shares(reply: PartDone, corpus: Corpus) -> tuple[DocumentShare, ...]:
    """The shares of a part with the documents' own names, if they are of this text. Raises Garbled."""
    shares = reply.shares
    numbers = [
        b for share in shares for b in (*share.window_bits, share.wall_s, share.tokens, share.bytes)
    ]
    if len(shares) != corpus.count or not all(0 <= n < MOST_BITS for n in numbers):  # NaN fails too
        raise InvalidMessage("a part came that is not one of this text")
    return tuple(
        msgspec.structs.replace(share, id=document.id, domain=document.domain)
        for share, document in zip(shares, corpus.documents, strict=True)
    )
