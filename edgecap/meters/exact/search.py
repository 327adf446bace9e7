"""The probability of a byte string under a model of tokens, summed over all tokenizations.

A cover of a string is a sequence of tokens whose bytes begin with the string, while its bytes
without the last token do not: the last token may run past the end. A generated text begins with the
string exactly if its tokens begin with one of its covers, and no cover begins with another, so that

    p(text begins with x) = sum of p(tokens) over the covers of x

Vieira et al. 2025, arXiv 2412.03719 ("covering"); Phan et al. 2025, arXiv 2410.09303 ("cover
encodings").

A token that stands for no bytes ends the text. Covers share prefixes: they are searched as a tree,
the most probable prefix first, each read by the model once. The rest is bounded, since all covers
that share a prefix are together no more probable than the prefix.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from edgecap.protocols import Floats, Ids

ROWS = 32  # prefixes of one length that the model reads together
TOLERANCE = 2.0**-10  # of the sum, that may be left: 0.0014 bits of a whole text
MAX_READ = 20_000  # prefixes per text


class TokenModel(Protocol):
    """An engine for the search."""

    vocabulary: int

    def next_log_probabilities(self, rows: Ids) -> Floats:
        """Return log2 p of the next token, shape (rows, vocabulary), for ids of shape (rows, n)."""


class Vocabulary:
    """Tokens sorted by their bytes, to find those that share a prefix with a text."""

    def __init__(self, spelled: Sequence[bytes | None], size: int) -> None:
        """Index the tokens that the model has.

        `spelled` holds the bytes of each id, None or empty if it stands for none; the model has
        `size` ids.
        """
        pairs = sorted((piece, i) for i, piece in enumerate(spelled[:size]) if piece)
        self._pieces = [piece for piece, _ in pairs]
        self._ids = np.array([i for _, i in pairs], np.int64)
        self._longest = max(map(len, self._pieces), default=0)

    def inside(self, text: bytes) -> list[tuple[int, int]]:
        """Return (id, length) of the tokens that are a proper prefix of the text."""
        prefixes = []
        for length in range(1, min(self._longest, len(text) - 1) + 1):
            prefixes += [(int(i), length) for i in self._ids[self._equal_range(text[:length])]]
        return prefixes

    def equal(self, text: bytes) -> Ids:
        """Return the ids of the tokens that spell exactly the text."""
        return self._ids[self._equal_range(text)]

    def covering(self, text: bytes) -> Ids:
        """Return the ids of the tokens that begin with the text."""
        begin = bisect.bisect_left(self._pieces, text)
        end = bisect.bisect_right(self._pieces, text, begin, key=lambda piece: piece[: len(text)])
        return self._ids[begin:end]

    def _equal_range(self, text: bytes) -> slice:
        return slice(
            bisect.bisect_left(self._pieces, text), bisect.bisect_right(self._pieces, text)
        )


class SearchResult(NamedTuple):
    """log2 p of the encoder's tokens, of all tokenizations, of all covers, and of the rest.

    `left` bounds what was not searched. `number` counts covers, `read` prefixes that the model
    read.
    """

    single: float
    tokenizations: float
    covers: float
    left: float
    number: int
    read: int


class _Prefix(NamedTuple):
    """Tokens that spell the first `at` bytes; `less` is -log2 p: the most probable sorts first."""

    less: float
    ids: tuple[int, ...]
    at: int


def search(
    text: bytes,
    own: Sequence[int],
    vocabulary: Vocabulary,
    engine: TokenModel,
    start: int | None,
    most_read: int = MAX_READ,
    alive: Callable[[], None] = lambda: None,
) -> SearchResult:
    """Sum the covers of a text whose encoding is `own`, until the rest is negligible.

    Stops after `most_read` prefixes too. Without a `start` token the first token is uniform over
    the vocabulary, as in the exact protocol. `alive` is called now and then.
    """
    tree = _Tree(text, vocabulary, engine, start)
    single = tree.walk(own)
    while tree.read < most_read and not tree.is_done():
        tree.grow(most_read - tree.read)
        alive()
    return SearchResult(
        single, tree.tokenizations, tree.covers, tree.left(), tree.number, tree.read
    )


class _Tree:
    """The prefixes not read yet, by length, and the sums so far."""

    def __init__(
        self, text: bytes, vocabulary: Vocabulary, engine: TokenModel, start: int | None
    ) -> None:
        rests = [text[at:] for at in range(len(text))]
        self._from = [
            (vocabulary.inside(r), vocabulary.equal(r), vocabulary.covering(r)) for r in rests
        ]
        self._engine, self._start = engine, start
        self._waiting: dict[int, list[_Prefix]] = defaultdict(list)
        self.tokenizations = self.covers = -math.inf
        self.number = self.read = 0

    def walk(self, own: Sequence[int]) -> float:
        """Read the prefixes of the encoder's own tokens and return log2 p of all of them."""
        prefix, single = _Prefix(0.0, (), 0), 0.0
        for token in own:
            (after,) = self._read([prefix])
            single = float(after[token]) - prefix.less
            longer = self._expand(prefix, after)
            self._push(b for b in longer if b.ids[-1] != token)
            prefix = next((b for b in longer if b.ids[-1] == token), prefix)
        return single

    def grow(self, most: int) -> None:
        """Read the most probable prefix and others of its length."""
        heap = min((h for h in self._waiting.values() if h), key=lambda h: h[0])
        prefixes = [heapq.heappop(heap) for _ in range(min(ROWS, most, len(heap)))]
        for prefix, after in zip(prefixes, self._read(prefixes), strict=True):
            self._push(self._expand(prefix, after))

    def is_done(self) -> bool:
        """Check that what is left cannot matter; sum it only if its largest term cannot."""
        smallest = min((h[0].less for h in self._waiting.values() if h), default=math.inf)
        enough = self.covers + math.log2(TOLERANCE)
        return -smallest <= enough and self.left() <= enough

    def left(self) -> float:
        """Return log2 of the total probability of all unread prefixes, a bound for their covers."""
        return _log2_sum(np.array([-b.less for heap in self._waiting.values() for b in heap]))

    def _push(self, prefixes: Iterable[_Prefix]) -> None:
        for prefix in prefixes:
            heapq.heappush(self._waiting[len(prefix.ids)], prefix)

    def _read(self, prefixes: Sequence[_Prefix]) -> Floats:
        """Return log2 p of the token after each prefix; all have one length."""
        self.read += len(prefixes)
        prompt = [] if self._start is None else [self._start]
        rows = np.array([[*prompt, *b.ids] for b in prefixes], np.int64)
        if not rows.shape[1]:
            return np.full(
                (len(rows), self._engine.vocabulary), -math.log2(self._engine.vocabulary)
            )
        return self._engine.next_log_probabilities(rows)

    def _expand(self, prefix: _Prefix, after: Floats) -> list[_Prefix]:
        """Add the covers that end one token after a prefix; return the longer prefixes."""
        inside, exact, over = self._from[prefix.at]
        self.tokenizations = float(
            np.logaddexp2(self.tokenizations, _log2_sum(after[exact]) - prefix.less)
        )
        self.covers = float(np.logaddexp2(self.covers, _log2_sum(after[over]) - prefix.less))
        self.number += len(over)
        return [
            _Prefix(prefix.less - float(after[i]), (*prefix.ids, i), prefix.at + length)
            for i, length in inside
        ]


def _log2_sum(values: Floats) -> float:
    return float(np.logaddexp2.reduce(values)) if len(values) else -math.inf
