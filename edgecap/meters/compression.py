"""Bits of a corpus under a model: each document scored window by window, sums pooled in float64.

How a document becomes windows is the protocol's business (see `windows`). A finished document goes
into a journal, so that a run that is cut off goes on behind it, with the same sums to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from edgecap.errors import EdgecapError
from edgecap.meters.text_windows import CutDocument, Cutter, ScoredWindow
from edgecap.protocols import Clock, Engine
from edgecap.record import Compression, DocumentBits, DomainBits


class ScorableText(Protocol):
    """A document as this meter needs it."""

    @property
    def id(self) -> str:
        """A name for people."""

    @property
    def domain(self) -> str:
        """The part of the corpus that it belongs to."""

    @property
    def text(self) -> str:
        """The original text."""


class NotFinite(EdgecapError):
    """The model's probabilities hold NaN or infinity."""


class NoTokens(EdgecapError):
    """A corpus of which nothing is left to score."""


class WindowPlan(NamedTuple):
    """How to score: the protocol's name, positions of a window, and where they overlap their distance."""

    protocol: str
    context: int
    stride: int | None = None


class ScoredDocument(NamedTuple):
    """A finished document, whether its ids decode to its text, and the seconds that it took."""

    bits: DocumentBits
    lossless: bool
    wall_s: float


class DocumentLog(Protocol):
    """Keeps finished documents, in their order."""

    @property
    def finished(self) -> Sequence[ScoredDocument]:
        """Documents that an earlier run finished, from the first on without a gap."""

    def add(self, scored: ScoredDocument) -> None:
        """Keeps one more."""


class NoLog:
    """A journal that keeps nothing."""

    finished: Sequence[ScoredDocument] = ()

    def add(self, scored: ScoredDocument) -> None:
        """Keeps nothing."""


def document_bits(
    engine: Engine, cut: CutDocument, progress: Callable[[float], None] = lambda share: None
) -> float:
    """Bits of one document; `progress` hears the share that is done. Raises NotFinite on NaN or infinity."""
    sums, done = [], 0
    for window in cut.windows:
        sums.append(window_bits(engine, window))
        done += window.tokens
        progress(done / max(cut.tokens, 1))
    return math.fsum(sums)


def window_bits(engine: Engine, window: ScoredWindow) -> float:
    """Bits of the tokens of one window. Raises NotFinite on NaN or infinity."""
    bits = (
        engine.nll(window.inputs, window.targets)[window.skip :]
        if len(window.targets)
        else np.zeros(0)
    )
    if not np.all(np.isfinite(bits)):
        raise NotFinite("the model gives NaN or infinity for a token's probability")
    return math.fsum([*bits, window.charged_bits])


def measure_compression(
    engine: Engine,
    cutter: Cutter,
    documents: Iterable[ScorableText],
    plan: WindowPlan,
    clock: Clock,
    total_bytes: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    journal: DocumentLog | None = None,
) -> Compression:
    """Scores a corpus whose texts have `total_bytes`; documents that the journal holds are not scored again."""
    journal = journal or NoLog()
    found, before = list(journal.finished), 0
    for index, document in enumerate(documents):
        size = len(document.text.encode())
        if index >= len(found):
            share = _share_of(progress, before, size, total_bytes)
            found.append(_score(engine, cutter, document, clock, share))
            journal.add(found[-1])
        before += size
    progress(total_bytes, total_bytes)
    lossless = all(s.lossless for s in found)
    return pool_documents(
        [s.bits for s in found], plan, lossless, math.fsum(s.wall_s for s in found)
    )


def _share_of(
    progress: Callable[[int, int], None], before: int, size: int, total: int
) -> Callable[[float], None]:
    return lambda share: progress(before + int(share * size), total)


def _score(
    engine: Engine,
    cutter: Cutter,
    document: ScorableText,
    clock: Clock,
    share: Callable[[float], None],
) -> ScoredDocument:
    started = clock.now()
    cut = cutter(document.text)
    bits = document_bits(engine, cut, share)
    scored = DocumentBits(
        id=document.id, domain=document.domain, bytes=cut.bytes, tokens=cut.tokens, nll_bits=bits
    )
    return ScoredDocument(scored, cut.lossless, clock.now() - started)


def pool_documents(
    found: Sequence[DocumentBits], plan: WindowPlan, lossless: bool, wall_s: float
) -> Compression:
    """Sums over documents and their quotients."""
    total = _pool_domain(found)
    if not total.tokens:
        raise NoTokens("the tokenizer makes no token of the whole corpus")
    names = dict.fromkeys(d.domain for d in found)
    text_bits = (
        mean_text_bits(found) if plan.protocol == "paper" else 8 * total.bytes / total.tokens
    )
    nll_bits = total.nll_bits / total.tokens
    return Compression(
        protocol=plan.protocol,
        context=plan.context,
        stride=plan.stride,
        documents=total.documents,
        tokens=total.tokens,
        bytes=total.bytes,
        text_bits_per_token=text_bits,
        nll_bits_per_token=nll_bits,
        gain_bits_per_token=text_bits - nll_bits,
        bits_per_byte=total.bits_per_byte,
        wall_s=wall_s,
        lossless_tokens=lossless,
        per_document=tuple(found),
        by_domain={name: _pool_domain([d for d in found if d.domain == name]) for name in names},
    )


def mean_text_bits(found: Sequence[DocumentBits]) -> float:
    """Mean of the documents' own bits per token, as the published scripts take it; unrounded."""
    quotients = [8 * d.bytes / d.tokens for d in found if d.tokens]
    return math.fsum(quotients) / len(quotients)


def _pool_domain(found: Sequence[DocumentBits]) -> DomainBits:
    size, bits = sum(d.bytes for d in found), math.fsum(d.nll_bits for d in found)
    return DomainBits(
        documents=len(found),
        bytes=size,
        tokens=sum(d.tokens for d in found),
        nll_bits=bits,
        bits_per_byte=bits / size if size else 0.0,
    )
