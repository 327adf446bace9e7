"""Rank documents by difficulty: bits per byte under each model, and what doubling its size saves.

For choosing training data and routing: a document that is hard and that size does not help is noise
or another language; one that size helps shows what a larger model buys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from edgecap import stats
from edgecap.errors import UsageError
from edgecap.record import Absent, Compression, DocumentBits, Measurement, Profile


class RankedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One document: its place in the corpus, from 1, and bits per byte by model, smallest first.

    `rank` counts from the hardest, under the largest model. `bits_per_doubling` is the
    least-squares slope of bits per byte over log2 of the parameters: negative if larger models know
    more; None with one size.
    """

    rank: int
    document: int
    id: str
    domain: str
    bytes: int
    bits_per_byte: dict[str, float]
    bits_per_doubling: float | None


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """The documents of a corpus, hardest first, under one precision and provider.

    `models` are ordered by size.
    """

    corpus: str
    precision: str
    provider: str
    models: tuple[str, ...]
    documents: tuple[RankedDocument, ...]

    @property
    def bits_per_doubling(self) -> float | None:
        """Return the median slope of the documents; None with one size."""
        slopes = [d.bits_per_doubling for d in self.documents if d.bits_per_doubling is not None]
        return stats.median(slopes) if slopes else None

    @property
    def eased(self) -> list[RankedDocument]:
        """Return the documents that a larger model makes easier, most eased first."""
        falling = [
            (d.bits_per_doubling, d.rank, d)
            for d in self.documents
            if (d.bits_per_doubling or 0.0) < 0
        ]
        return [document for _, _, document in sorted(falling, key=lambda item: item[:2])]


def rank_documents(records: Sequence[Profile]) -> Ranking:
    """Rank the documents of a corpus, hardest first; leave out those without text.

    Uses the first precision and provider that was scored in all records. Raises UsageError if there
    is none, or if the records differ in text or protocol.
    """
    cell = _common_cell(records)
    scored = sorted(
        ((_size(r), r.source.name, _scored_cells(r)[cell]) for r in records),
        key=lambda row: row[0] or 0,
    )
    _check_alike(records, [compression for _, _, compression in scored])
    names = _names([name for _, name, _ in scored])
    sizes = [size for size, _, _ in scored]
    rows = [
        _rank_row(
            place, names, sizes, [compression.per_document[place] for _, _, compression in scored]
        )
        for place, document in enumerate(scored[-1][2].per_document)
        if document.bytes
    ]
    ordered = sorted(rows, key=lambda row: -row.bits_per_byte[names[-1]])
    return Ranking(
        corpus=records[0].corpus.name,
        precision=cell[0],
        provider=cell[1],
        models=tuple(names),
        documents=tuple(
            msgspec.structs.replace(row, rank=number) for number, row in enumerate(ordered, 1)
        ),
    )


def _rank_row(
    place: int, names: Sequence[str], sizes: Sequence[int | None], documents: Sequence[DocumentBits]
) -> RankedDocument:
    bits = [document.nll_bits / document.bytes for document in documents]
    first = documents[0]
    return RankedDocument(
        rank=0,
        document=place + 1,
        id=first.id,
        domain=first.domain,
        bytes=first.bytes,
        bits_per_byte=dict(zip(names, bits, strict=True)),
        bits_per_doubling=_bits_per_doubling(sizes, bits),
    )


def _bits_per_doubling(sizes: Sequence[int | None], bits: Sequence[float]) -> float | None:
    """Fit least squares over log2 of the sizes; None unless two known sizes differ."""
    points = [(math.log2(size), y) for size, y in zip(sizes, bits, strict=True) if size]
    if len({x for x, _ in points}) < 2:
        return None
    mean_x, mean_y = (math.fsum(values) / len(points) for values in zip(*points, strict=True))
    covariance = math.fsum((x - mean_x) * (y - mean_y) for x, y in points)
    return covariance / math.fsum((x - mean_x) ** 2 for x, _ in points)


def _size(record: Profile) -> int | None:
    parameters = record.source.parameters
    return None if isinstance(parameters, Absent) else parameters


def _common_cell(records: Sequence[Profile]) -> tuple[str, str]:
    """Return the first precision and provider scored in all records. Raises UsageError if none."""
    scored = [_scored_cells(record) for record in records]
    unscored = next((r for r, cells in zip(records, scored, strict=True) if not cells), None)
    if unscored is not None:
        raise UsageError(
            f"no document of {unscored.source.name} was scored: there is nothing to rank"
        )
    shared = next((cell for cell in scored[0] if all(cell in cells for cells in scored)), None)
    if shared is None:
        raise UsageError(
            "no precision was scored with all models: their documents cannot be ranked together"
        )
    return shared


def _scored_cells(record: Profile) -> dict[tuple[str, str], Compression]:
    """Return the compression of each measured cell, by precision and provider."""
    return {
        (cell.precision, cell.provider): cell.outcome.compression
        for cell in record.cells
        if isinstance(cell.outcome, Measurement)
        and isinstance(cell.outcome.compression, Compression)
    }


def _check_alike(records: Sequence[Profile], scored: Sequence[Compression]) -> None:
    texts = {record.corpus.sha256 for record in records}
    protocols = {(c.protocol, c.context, c.stride) for c in scored}
    if len(texts) > 1 or len(protocols) > 1 or len({len(c.per_document) for c in scored}) > 1:
        raise UsageError(
            "documents are ranked over one text under one protocol and window; "
            "these records differ in them"
        )


def _names(names: Sequence[str]) -> list[str]:
    """Append numbers to the names that several models share."""
    return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]
