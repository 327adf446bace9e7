"""The exact protocol: every token scored, every byte of the original text counted, sums pooled.

A document is tokenised without special tokens and cut into windows without overlap. The input of a
window is the start token (BOS, else EOS) and up to `context` - 1 tokens, all of them scored. Where a
tokenizer has neither, a window is `context` tokens whose first is charged log2(vocabulary) bits.
The sum is a code length that an arithmetic coder reaches. docs/method.md, section Exact protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from edgecap.errors import EdgecapError
from edgecap.record import Compression, DocumentBits, DomainBits
from edgecap.seams import Clock, Engine, Ids


class Text(Protocol):
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


class Encoder(Protocol):
    """A tokenizer as this meter needs it."""

    start: int | None

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""

    def is_lossless(self, text: str, ids: list[int]) -> bool:
        """Whether the ids decode to the text."""


class NotFinite(EdgecapError):
    """The model's probabilities hold NaN or infinity."""


class NoTokens(EdgecapError):
    """A corpus of which nothing is left to score."""


class ScoredWindow(NamedTuple):
    """Inputs and targets of one run, shape (n,), and bits charged beside it."""

    inputs: Ids
    targets: Ids
    charged_bits: float


def windows(ids: Sequence[int], start: int | None, context: int, vocabulary: int) -> Iterator[ScoredWindow]:
    """Cuts a document's ids into windows; every id is a target, or charged, exactly once."""
    width = context - 1 if start is not None else context
    for begin in range(0, len(ids), width):
        part = list(ids[begin : begin + width])
        row = np.array([start, *part] if start is not None else part, np.int64)
        yield ScoredWindow(row[:-1], row[1:], 0.0 if start is not None else math.log2(vocabulary))


def document_bits(engine: Engine, ids: Sequence[int], start: int | None, context: int, vocabulary: int) -> float:
    """Bits of one document. Raises NotFinite where the model answers NaN or infinity."""
    total = 0.0
    for window in windows(ids, start, context, vocabulary):
        bits = engine.nll(window.inputs, window.targets) if len(window.targets) else np.zeros(0)
        if not np.all(np.isfinite(bits)):
            raise NotFinite("the model gives NaN or infinity for a token's probability")
        total += math.fsum(bits) + window.charged_bits
    return total


def measure_compression(
    engine: Engine,
    tokenizer: Encoder,
    documents: Sequence[Text],
    context: int,
    vocabulary: int,
    clock: Clock,
    progress: Callable[[int, int], None],
) -> Compression:
    """Scores a corpus. `context` is the positions of a window, `vocabulary` the size of the model's."""
    started = clock.now()
    found, lossless = [], True
    for done, document in enumerate(documents):
        progress(done, len(documents))
        ids = tokenizer.encode(document.text)
        lossless = lossless and tokenizer.is_lossless(document.text, ids)
        bits = document_bits(engine, ids, tokenizer.start, context, vocabulary)
        size = len(document.text.encode())
        found.append(DocumentBits(id=document.id, domain=document.domain, bytes=size, tokens=len(ids), nll_bits=bits))
    progress(len(documents), len(documents))
    return pool(found, context, lossless, clock.now() - started)


def pool(found: Sequence[DocumentBits], context: int, lossless: bool, wall_s: float) -> Compression:
    """Sums over documents and their quotients."""
    total = _pool_domain(found)
    if not total.tokens:
        raise NoTokens("the tokenizer makes no token of the whole corpus")
    names = dict.fromkeys(d.domain for d in found)
    text_bits = 8 * total.bytes / total.tokens
    nll_bits = total.nll_bits / total.tokens
    return Compression(
        protocol="exact",
        context=context,
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


def _pool_domain(found: Sequence[DocumentBits]) -> DomainBits:
    size, bits = sum(d.bytes for d in found), math.fsum(d.nll_bits for d in found)
    return DomainBits(
        documents=len(found),
        bytes=size,
        tokens=sum(d.tokens for d in found),
        nll_bits=bits,
        bits_per_byte=bits / size if size else 0.0,
    )
