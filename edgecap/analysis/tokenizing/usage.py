"""Measure how a tokenizer spends its tokens on a corpus. Sums are pooled, documents resampled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import msgspec

from edgecap import stats
from edgecap.analysis.tokenizing import text_counts
from edgecap.analysis.tokenizing.loading import LoadedTokenizer
from edgecap.record import Absent, Estimate
from edgecap.text.corpus import Document


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Use of tokens on the text of a domain, or on all of it.

    Bytes are UTF-8 of the original text, characters code points, words as in `text_counts`, in the
    `worded_documents` whose scripts have spaces; `tokens_per_word` covers those alone.
    `vocabulary_used` counts different tokens, `vocabulary_share` is their share of the vocabulary.
    The other shares are of the tokens: `byte_fallback_share` are not whole characters by
    themselves, `single_byte_share` stand for one byte, `unknown_share` for text that was lost.
    `altered_documents` do not decode to the original.
    """

    documents: int
    bytes: int
    characters: int
    words: int
    worded_documents: int
    tokens: int
    bytes_per_token: Estimate | Absent
    tokens_per_word: float | Absent
    tokens_per_character: float | Absent
    vocabulary_used: int
    vocabulary_share: float
    byte_fallback_share: float
    single_byte_share: float
    unknown_share: float
    altered_documents: int


class _Tally(NamedTuple):
    """Sums over documents.

    `sizes` holds bytes and tokens of each, `worded` the words, tokens and number of documents with
    words.
    """

    sizes: list[tuple[int, int]]
    characters: int
    worded: tuple[int, int, int]
    ids: Counter[int]
    altered: int


_NOTHING = _Tally([], 0, (0, 0, 0), Counter(), 0)


def measure_usage(
    opened: LoadedTokenizer, documents: Iterable[Document]
) -> tuple[Usage, dict[str, Usage]]:
    """Return the tokenizer's use of all documents, and of each domain in order of appearance."""
    tallies: dict[str, _Tally] = {}
    for document in documents:
        tally_so_far = tallies.get(document.domain, _NOTHING)
        tallies[document.domain] = _merge(tally_so_far, _tally(opened, document.text))
    by_domain = {name: _usage(opened, tally) for name, tally in tallies.items()}
    return _usage(opened, reduce(_merge, tallies.values(), _NOTHING)), by_domain


def _tally(opened: LoadedTokenizer, text: str) -> _Tally:
    ids = opened.tokenizer.encode(text)
    written, altered = text_counts.count_text(text), not opened.tokenizer.is_lossless(text, ids)
    worded = (written.words, len(ids), 1) if written.has_words else (0, 0, 0)
    return _Tally(
        [(len(text.encode()), len(ids))], written.characters, worded, Counter(ids), int(altered)
    )


def _merge(one: _Tally, other: _Tally) -> _Tally:
    (words, tokens, documents), other_worded = one.worded, other.worded
    return _Tally(
        one.sizes + other.sizes,
        one.characters + other.characters,
        (words + other_worded[0], tokens + other_worded[1], documents + other_worded[2]),
        one.ids + other.ids,
        one.altered + other.altered,
    )


def _usage(opened: LoadedTokenizer, tally: _Tally) -> Usage:
    tokens, pieces = tally.ids.total(), opened.pieces
    words, of_words, worded = tally.worded
    return Usage(
        documents=len(tally.sizes),
        bytes=sum(size for size, _ in tally.sizes),
        characters=tally.characters,
        words=words,
        worded_documents=worded,
        tokens=tokens,
        bytes_per_token=_bytes_per_token(tally.sizes),
        tokens_per_word=of_words / words if words else _NO_WORDS,
        tokens_per_character=tokens / tally.characters if tally.characters else _EMPTY,
        vocabulary_used=len(tally.ids),
        vocabulary_share=len(tally.ids) / max(1, opened.tokenizer.size),
        byte_fallback_share=share_of(tally.ids, pieces.parts),
        single_byte_share=share_of(tally.ids, pieces.single_bytes),
        unknown_share=share_of(
            tally.ids, frozenset() if pieces.unknown is None else frozenset({pieces.unknown})
        ),
        altered_documents=tally.altered,
    )


_EMPTY = Absent(reason="there is no text")
_NO_WORDS = Absent(reason="there are no words that spaces tell apart")


def _bytes_per_token(sizes: list[tuple[int, int]]) -> Estimate | Absent:
    import numpy as np

    columns = np.array(sizes, np.float64).reshape(-1, 2)
    size, tokens = columns.sum(axis=0)
    if not tokens:
        return _EMPTY
    draws = stats.bootstrap_sums(columns) if len(columns) > 1 else None
    ratios = None if draws is None else draws[:, 0] / draws[:, 1].clip(1)
    return stats.interval(size / tokens, ratios)


def share_of(ids: Counter[int], which: frozenset[int]) -> float:
    """Return the share of tokens whose id is in `which`."""
    return sum(n for i, n in ids.items() if i in which) / max(1, ids.total())
