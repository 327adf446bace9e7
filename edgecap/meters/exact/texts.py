"""Code lengths of short texts: of the encoder's own tokens, and over all tokenizations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import numpy as np

from edgecap import stats
from edgecap.meters.exact.search import TokenModel, Vocabulary, search
from edgecap.record import Estimate
from edgecap.text.corpus import Document
from edgecap.text.vocabulary import TokenBytes, require_exact_bytes


class TextEncoder(Protocol):
    """A tokenizer for the search."""

    start: int | None

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""


class TextBits(msgspec.Struct, frozen=True, kw_only=True):
    """Code lengths of one text in bits; `tokens` counts the encoder's.

    `single_bits` is that of the encoder's own tokens, as a profile counts; `tokenizations_bits`
    sums over all tokenizations of exactly the text; `covers_bits` sums over all covers.
    `least_bits` is a lower bound of the latter, less than it if the search left covers out. The
    search found `covers` and read `read` prefixes.
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

    `saved_by_tokenizations` and `saved_by_covers` are bits per byte below the encoder's tokens,
    with 95 % intervals over documents; `undecided` is what the search left open of the latter.
    `left_out` counts documents without text, or whose first character has more bytes than
    `most_bytes`.
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
    """Return the text's first `most` bytes of UTF-8 or fewer.

    Cuts before the last space there, else after a whole character.
    """
    raw = text.encode()
    if len(raw) <= most:
        return text
    cut = raw[:most].decode("utf-8", "ignore")
    before_space = (
        cut
        if text[len(cut)].isspace()
        else cut[: max((n for n, c in enumerate(cut) if c.isspace()), default=0)]
    )
    return before_space.rstrip() or cut


def text_bits(
    document: Document,
    most_bytes: int,
    tokenizer: TextEncoder,
    pieces: TokenBytes,
    vocabulary: Vocabulary,
    engine: TokenModel,
    alive: Callable[[], None] = lambda: None,
) -> TextBits:
    """Return the code lengths of a document's beginning; `alive` is called now and then.

    Raises UsageError if its tokens do not spell it.
    """
    text = text_prefix(document.text, most_bytes)
    ids = tokenizer.encode(text)
    spelled = require_exact_bytes(pieces, ids, text, document.id)
    result = search(spelled, ids, vocabulary, engine, tokenizer.start, alive=alive)
    return TextBits(
        id=document.id,
        domain=document.domain,
        bytes=len(text.encode()),
        tokens=len(ids),
        single_bits=-result.single,
        tokenizations_bits=-result.tokenizations,
        covers_bits=-result.covers,
        least_bits=-float(np.logaddexp2(result.covers, result.left)),
        covers=result.number,
        read=result.read,
    )


def sum_texts(
    texts: tuple[TextBits, ...],
    model: str,
    precision: str,
    provider: str,
    corpus: str,
    most: int,
    requested: int,
) -> ExactBytesTotals:
    """Sum the code lengths of the scored texts, out of `requested` documents."""
    columns = np.array(
        [(t.bytes, t.single_bits, t.tokenizations_bits, t.covers_bits) for t in texts], np.float64
    )
    draws = stats.bootstrap_sums(columns) if len(columns) > 1 else None
    size, single, tokenizations, covers = columns.sum(axis=0).tolist()
    return ExactBytesTotals(
        model=model,
        precision=precision,
        provider=provider,
        corpus=corpus,
        most_bytes=most,
        documents=len(texts),
        left_out=requested - len(texts),
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
    saved = None if draws is None else (draws[:, 1] - draws[:, column]) / draws[:, 0]
    return stats.interval(value, saved)
