"""Code lengths of short texts: what the encoder's own tokens cost, and what the text costs over all tokenizations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import numpy as np

from edgecap import stats
from edgecap.meters.exact.search import TokenModel, Vocabulary, search
from edgecap.record import Estimate
from edgecap.text.corpus import Document
from edgecap.text.vocabulary import Pieces, require_spelling


class TextEncoder(Protocol):
    """A tokenizer as the search needs it."""

    start: int | None

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""


class TextBits(msgspec.Struct, frozen=True, kw_only=True):
    """The code length of one text in bits, three times; `tokens` are the encoder's.

    `single_bits` is that of the encoder's own tokens, what a profile counts; `tokenizations_bits` sums over all
    tokenizations of exactly the text; `covers_bits` over all covers, `least_bits` is the least that it can be where
    the search left some out, else the same. `covers` were found, `read` beginnings were read.
    """

    id: str
    domain: str
    bytes: int
    tokens: int
    single_bits: float
    tokenizations_bits: float
    covers_bits: float
    least_bits: float
    covers: int
    read: int


class ExactBytesTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Bits per byte of the beginnings of documents, by the three code lengths of `TextBits`.

    `saved_by_tokenizations` and `saved_by_covers` are the bits per byte by which those are less than that of the
    encoder's tokens, with 95 % intervals over documents; `undecided` is what the search left open of the latter.
    `left_out` are documents without text, or whose first character has more bytes than `most_bytes`.
    """

    model: str
    precision: str
    provider: str
    corpus: str
    most_bytes: int
    documents: int
    left_out: int
    bytes: int
    single: float
    tokenizations: float
    covers: float
    saved_by_tokenizations: Estimate
    saved_by_covers: Estimate
    undecided: float
    texts: tuple[TextBits, ...]


def text_prefix(text: str, most: int) -> str:
    """A text's first `most` bytes of UTF-8 or fewer: cut in front of its last space there, else behind a character."""
    raw = text.encode()
    if len(raw) <= most:
        return text
    cut = raw[:most].decode("utf-8", "ignore")
    whole = (
        cut
        if text[len(cut)].isspace()
        else cut[: max((n for n, c in enumerate(cut) if c.isspace()), default=0)]
    )
    return whole.rstrip() or cut


def text_bits(
    document: Document,
    most_bytes: int,
    tokenizer: TextEncoder,
    pieces: Pieces,
    vocabulary: Vocabulary,
    engine: TokenModel,
    alive: Callable[[], None] = lambda: None,
) -> TextBits:
    """The code lengths of a document's beginning; `alive` is called now and then.

    Raises UsageError where its tokens do not spell it.
    """
    text = text_prefix(document.text, most_bytes)
    ids = tokenizer.encode(text)
    spelled = require_spelling(pieces, ids, text, document.id)
    found = search(spelled, ids, vocabulary, engine, tokenizer.start, alive=alive)
    return TextBits(
        id=document.id,
        domain=document.domain,
        bytes=len(text.encode()),
        tokens=len(ids),
        single_bits=-found.single,
        tokenizations_bits=-found.tokenizations,
        covers_bits=-found.covers,
        least_bits=-float(np.logaddexp2(found.covers, found.left)),
        covers=found.number,
        read=found.read,
    )


def sum_texts(
    texts: tuple[TextBits, ...],
    model: str,
    precision: str,
    provider: str,
    corpus: str,
    most: int,
    asked: int,
) -> ExactBytesTotals:
    """Sums over the texts that could be scored of `asked`, and what they say of the encoder's tokens."""
    columns = np.array(
        [(t.bytes, t.single_bits, t.tokenizations_bits, t.covers_bits) for t in texts], np.float64
    )
    draws = stats.draws_of_sums(columns) if len(columns) > 1 else None
    size, single, tokenizations, covers = columns.sum(axis=0).tolist()
    return ExactBytesTotals(
        model=model,
        precision=precision,
        provider=provider,
        corpus=corpus,
        most_bytes=most,
        documents=len(texts),
        left_out=asked - len(texts),
        bytes=int(size),
        single=single / size,
        tokenizations=tokenizations / size,
        covers=covers / size,
        saved_by_tokenizations=_saved((single - tokenizations) / size, draws, 2),
        saved_by_covers=_saved((single - covers) / size, draws, 3),
        undecided=sum(t.covers_bits - t.least_bits for t in texts) / size,
        texts=texts,
    )


def _saved(value: float, draws: stats.Floats | None, column: int) -> Estimate:
    found = stats.interval(
        value, None if draws is None else (draws[:, 1] - draws[:, column]) / draws[:, 0]
    )
    return Estimate(value=found.value, low=found.low, high=found.high)
