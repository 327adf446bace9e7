"""Documents by how hard they are: bits per byte under each model, and what a model twice as large takes off.

The use in choosing training data and in routing: a document that is hard and that size does not help is noise
or another language, one that size helps is what a larger model buys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from edgecap import stats
from edgecap.errors import UsageError
from edgecap.record import Absent, Compression, DocumentBits, Measurement, Profile


class RankedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One document: its place in the corpus, from 1, and bits per byte by model, in the order of their sizes.

    `rank` counts from the hardest, under the largest model. `bits_per_doubling` is the least-squares slope of bits
    per byte over log2 of the parameters: negative where a larger model knows more; None with one size.
    """

    rank: int
    document: int
    id: str
    domain: str
    bytes: int
    bits_per_byte: dict[str, float]
    bits_per_doubling: float | None


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """The documents of a corpus, the hardest first, under one precision and provider; `models` by their sizes."""

    corpus: str
    precision: str
    provider: str
    models: tuple[str, ...]
    documents: tuple[RankedDocument, ...]

    @property
    def bits_per_doubling(self) -> float | None:
        """The median slope of the documents; None with one size."""
        slopes = [d.bits_per_doubling for d in self.documents if d.bits_per_doubling is not None]
        return stats.median(slopes) if slopes else None

    @property
    def eased(self) -> list[RankedDocument]:
        """The documents that a larger model makes easier, the most eased first."""
        falling = [
            (d.bits_per_doubling, d.rank, d)
            for d in self.documents
            if (d.bits_per_doubling or 0.0) < 0
        ]
        return [document for _, _, document in sorted(falling, key=lambda item: item[:2])]


def rank_documents(records: Sequence[Profile]) -> Ranking:
    """The documents of a corpus, the hardest first; those without text are left out.

    The first precision and provider that was scored in all records counts. Raises UsageError where there is none, or
    the records are not of one text under one protocol.
    """
    which = _common(records)
    scored = sorted(
        ((_size(r), r.source.name, _scored(r)[which]) for r in records),
        key=lambda found: found[0] or 0,
    )
    _check_alike(records, [compression for _, _, compression in scored])
    names = _names([name for _, name, _ in scored])
    sizes = [size for size, _, _ in scored]
    rows = [
        _row(place, names, sizes, [compression.per_document[place] for _, _, compression in scored])
        for place, document in enumerate(scored[-1][2].per_document)
        if document.bytes
    ]
    ordered = sorted(rows, key=lambda row: -row.bits_per_byte[names[-1]])
    return Ranking(
        corpus=records[0].corpus.name,
        precision=which[0],
        provider=which[1],
        models=tuple(names),
        documents=tuple(
            msgspec.structs.replace(row, rank=number) for number, row in enumerate(ordered, 1)
        ),
    )


def _row(
    place: int, names: Sequence[str], sizes: Sequence[int | None], found: Sequence[DocumentBits]
) -> RankedDocument:
    bits = [document.nll_bits / document.bytes for document in found]
    first = found[0]
    return RankedDocument(
        rank=0,
        document=place + 1,
        id=first.id,
        domain=first.domain,
        bytes=first.bytes,
        bits_per_byte=dict(zip(names, bits, strict=True)),
        bits_per_doubling=_slope(sizes, bits),
    )


def _slope(sizes: Sequence[int | None], bits: Sequence[float]) -> float | None:
    """Least squares over log2 of the sizes; None unless there are two that are known and differ."""
    points = [(math.log2(size), y) for size, y in zip(sizes, bits, strict=True) if size]
    if len({x for x, _ in points}) < 2:
        return None
    mean_x, mean_y = (math.fsum(values) / len(points) for values in zip(*points, strict=True))
    across = math.fsum((x - mean_x) * (y - mean_y) for x, y in points)
    return across / math.fsum((x - mean_x) ** 2 for x, _ in points)


def _size(record: Profile) -> int | None:
    found = record.source.parameters
    return None if isinstance(found, Absent) else found


def _common(records: Sequence[Profile]) -> tuple[str, str]:
    """The first precision and provider of which all records have bits. Raises UsageError where there is none."""
    scored = [_scored(record) for record in records]
    none = next((r for r, found in zip(records, scored, strict=True) if not found), None)
    if none is not None:
        raise UsageError(f"no document of {none.source.name} was scored: there is nothing to rank")
    which = next((cell for cell in scored[0] if all(cell in found for found in scored)), None)
    if which is None:
        raise UsageError(
            "no precision was scored with all models: their documents cannot be ranked together"
        )
    return which


def _scored(record: Profile) -> dict[tuple[str, str], Compression]:
    """What was scored, by precision and provider."""
    return {
        (cell.precision, cell.provider): cell.outcome.compression
        for cell in record.cells
        if isinstance(cell.outcome, Measurement)
        and isinstance(cell.outcome.compression, Compression)
    }


def _check_alike(records: Sequence[Profile], found: Sequence[Compression]) -> None:
    texts = {record.corpus.sha256 for record in records}
    protocols = {(c.protocol, c.context, c.stride) for c in found}
    if len(texts) > 1 or len(protocols) > 1 or len({len(c.per_document) for c in found}) > 1:
        raise UsageError(
            "documents are ranked over one text under one protocol and window; these records differ in it"
        )


def _names(names: Sequence[str]) -> list[str]:
    """Names that differ, numbered where two models have one."""
    return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]
