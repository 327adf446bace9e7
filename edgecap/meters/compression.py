"""Bits of a corpus under a model: score each document window by window, pool sums in float64.

A protocol cuts each document into windows (`text_windows`). Finished documents go into a log, so
that an interrupted run resumes behind them with bit-identical sums.
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
    """A document to score."""

    @property
    def id(self) -> str:
        """Return a name for people."""

    @property
    def domain(self) -> str:
        """Return the part of the corpus that the document belongs to."""

    @property
    def text(self) -> str:
        """Return the original text."""


class NotFinite(EdgecapError):
    """The model's probabilities contain NaN or infinity."""


class NoTokens(EdgecapError):
    """The tokenizer makes no token of the corpus."""


class WindowPlan(NamedTuple):
    """Protocol, window length in positions, and the stride of overlapping windows in positions."""

    protocol: str
    context: int
    stride: int | None = None


class ScoredDocument(NamedTuple):
    """Bits of a finished document, whether its ids decode to its text, and wall seconds."""

    bits: DocumentBits
    lossless: bool
    wall_s: float


class DocumentLog(Protocol):
    """Log of finished documents, in corpus order."""

    @property
    def finished(self) -> Sequence[ScoredDocument]:
        """Return the documents that an earlier run finished, from the first on without a gap."""

    def add(self, scored: ScoredDocument) -> None:
        """Append a finished document."""


class NoLog:
    """Log that stores nothing."""

    finished: Sequence[ScoredDocument] = ()

    def add(self, scored: ScoredDocument) -> None:
        """Ignore the document."""


def document_bits(
    engine: Engine, cut: CutDocument, progress: Callable[[float], None] = lambda share: None
) -> float:
    """Return the bits of one document.

    `progress` is called with the share of its tokens that is done. Raises NotFinite on NaN or
    infinity.
    """
    sums, done = [], 0
    for window in cut.windows:
        sums.append(window_bits(engine, window))
        done += window.tokens
        progress(done / max(cut.tokens, 1))
    return math.fsum(sums)


def window_bits(engine: Engine, window: ScoredWindow) -> float:
    """Return the bits of the scored tokens of one window. Raises NotFinite on NaN or infinity."""
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
    log: DocumentLog | None = None,
) -> Compression:
    """Score a corpus of `total_bytes` of UTF-8, skipping documents that `log` has already.

    Raises NotFinite on NaN or infinity, NoTokens if the tokenizer makes no token of the corpus.
    """
    log = log or NoLog()
    scored, bytes_before = list(log.finished), 0
    for index, document in enumerate(documents):
        size = len(document.text.encode())
        if index >= len(scored):
            share = _share_of(progress, bytes_before, size, total_bytes)
            scored.append(_score(engine, cutter, document, clock, share))
            log.add(scored[-1])
        bytes_before += size
    progress(total_bytes, total_bytes)
    lossless = all(s.lossless for s in scored)
    return pool_documents(
        [s.bits for s in scored], plan, lossless, math.fsum(s.wall_s for s in scored)
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
    documents: Sequence[DocumentBits], plan: WindowPlan, lossless: bool, wall_s: float
) -> Compression:
    """Sum the bits of documents and divide by tokens and bytes.

    Raises NoTokens if there is no token.
    """
    total = _pool_domain(documents)
    if not total.tokens:
        raise NoTokens("the tokenizer makes no token of the whole corpus")
    names = dict.fromkeys(d.domain for d in documents)
    text_bits = (
        mean_text_bits(documents) if plan.protocol == "paper" else 8 * total.bytes / total.tokens
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
        per_document=tuple(documents),
        by_domain={
            name: _pool_domain([d for d in documents if d.domain == name]) for name in names
        },
    )


def mean_text_bits(documents: Sequence[DocumentBits]) -> float:
    """Return the mean of the documents' bits per token, unrounded, as the published scripts do."""
    quotients = [8 * d.bytes / d.tokens for d in documents if d.tokens]
    return math.fsum(quotients) / len(quotients)


def _pool_domain(documents: Sequence[DocumentBits]) -> DomainBits:
    size, bits = sum(d.bytes for d in documents), math.fsum(d.nll_bits for d in documents)
    return DomainBits(
        documents=len(documents),
        bytes=size,
        tokens=sum(d.tokens for d in documents),
        nll_bits=bits,
        bits_per_byte=bits / size if size else 0.0,
    )
