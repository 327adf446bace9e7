"""Score one corpus in parts, in any order and on any machine, with bit-identical sums.

Windows are numbered through the whole corpus, and part k of n scores every n-th from the k-th on:
parts cost alike whatever the lengths of documents. A window's bits are rounded once; a document's
are the exact sum of its windows', rounded once (math.fsum, Shewchuk 1997), so that neither order
nor grouping matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from edgecap.errors import EdgecapError
from edgecap.meters.compression import ScorableText, ScoredDocument, window_bits
from edgecap.meters.text_windows import Cutter
from edgecap.protocols import Clock, Engine
from edgecap.record import DocumentBits


class DocumentShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One document in one part: the bits of the part's windows, and the document's totals."""

    id: str
    domain: str
    bytes: int
    tokens: int
    lossless: bool
    window_bits: tuple[float, ...]
    wall_s: float


class Unequal(EdgecapError):
    """Parts do not belong to one corpus under one tokenizer."""


def score_part(
    engine: Engine,
    cutter: Cutter,
    documents: Iterable[ScorableText],
    part: int,
    parts: int,
    clock: Clock,
    total_bytes: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[DocumentShare]:
    """Score every `parts`-th window from number `part` on.

    Returns a share of every document; some may be empty. Raises NotFinite on NaN or infinity.
    """
    shares, number, bytes_done = [], 0, 0
    for document in documents:
        started = clock.now()
        cut = cutter(document.text)
        bits = []
        for window in cut.windows:
            if number % parts == part:
                bits.append(window_bits(engine, window))
            number += 1
        bytes_done += cut.bytes
        progress(bytes_done, total_bytes)
        shares.append(
            DocumentShare(
                id=document.id,
                domain=document.domain,
                bytes=cut.bytes,
                tokens=cut.tokens,
                lossless=cut.lossless,
                window_bits=tuple(bits),
                wall_s=clock.now() - started,
            )
        )
    return shares


def join_parts(parts: Sequence[Sequence[DocumentShare]]) -> tuple[ScoredDocument, ...]:
    """Join the shares of all parts. Raises Unequal if the parts differ in their documents."""
    if len({len(part) for part in parts}) != 1:
        raise Unequal("parts of a corpus have different numbers of documents")
    return tuple(_join_shares(shares) for shares in zip(*parts, strict=True))


def _join_shares(shares: Sequence[DocumentShare]) -> ScoredDocument:
    first = shares[0]
    if len({(s.id, s.domain, s.bytes, s.tokens, s.lossless) for s in shares}) != 1:
        raise Unequal(f"parts of a corpus do not agree on document {first.id}")
    bits = math.fsum(bits for share in shares for bits in share.window_bits)
    whole = DocumentBits(
        id=first.id, domain=first.domain, bytes=first.bytes, tokens=first.tokens, nll_bits=bits
    )
    return ScoredDocument(whole, first.lossless, math.fsum(s.wall_s for s in shares))
