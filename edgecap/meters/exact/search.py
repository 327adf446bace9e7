"""The probability of a byte string under a model of tokens: the sum over all tokenizations, not only the encoder's.

A cover of a string is a sequence of tokens whose bytes begin with the string, and whose bytes without the last token
do not: the last may run past the end. The text that a model writes begins with the string exactly where its tokens
begin with one of its covers, and no cover begins with another, so that

    p(text begins with x) = sum over the covers of x of p(tokens)      Vieira et al. 2025, arXiv 2412.03719, "covering"
                                                                       Phan et al. 2025, arXiv 2410.09303, "cover encodings"

A token that stands for no bytes ends the text. Covers share their beginnings: they are searched as a tree, the most
probable beginning first, each beginning read by the model once. What is not searched is bounded, since all
covers that begin alike are together no more probable than their beginning.
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

ROWS = 32  # beginnings of one length that the model reads together
TOLERANCE = 2.0**-10  # of what was found, that may be left: 0.0014 bits of a whole text
MAX_READ = 20_000  # beginnings a text


class TokenModel(Protocol):
    """An engine as the search needs it."""

    vocabulary: int

    def next_log_probabilities(self, rows: Ids) -> Floats:
        """log2 p of the token behind each row of ids, shape (rows, vocabulary), from (rows, n)."""


class Vocabulary:
    """Tokens by their bytes: those that a text begins with, and those that begin with a text."""

    def __init__(self, spelled: Sequence[bytes | None], size: int) -> None:
        """`spelled` are the bytes of each id, None or empty where it stands for none; `size` ids the model has."""
        pairs = sorted((piece, i) for i, piece in enumerate(spelled[:size]) if piece)
        self._pieces = [piece for piece, _ in pairs]
        self._ids = np.array([i for _, i in pairs], np.int64)
        self._longest = max(map(len, self._pieces), default=0)

    def inside(self, text: bytes) -> list[tuple[int, int]]:
        """(id, length) of the tokens that the text begins with and goes on behind."""
        found = []
        for length in range(1, min(self._longest, len(text) - 1) + 1):
            found += [(int(i), length) for i in self._ids[self._alike(text[:length])]]
        return found

    def equal(self, text: bytes) -> Ids:
        """Ids of the tokens that stand for exactly the text."""
        return self._ids[self._alike(text)]

    def covering(self, text: bytes) -> Ids:
        """Ids of the tokens that begin with the text."""
        begin = bisect.bisect_left(self._pieces, text)
        end = bisect.bisect_right(self._pieces, text, begin, key=lambda piece: piece[: len(text)])
        return self._ids[begin:end]

    def _alike(self, text: bytes) -> slice:
        return slice(
            bisect.bisect_left(self._pieces, text), bisect.bisect_right(self._pieces, text)
        )


class SearchResult(NamedTuple):
    """What a search found: log2 p of the encoder's tokens, of all tokenizations, of all covers, and of what is
    left; the `number` of covers, and of beginnings that were read.
    """

    single: float
    tokenizations: float
    covers: float
    left: float
    number: int
    read: int


class _Beginning(NamedTuple):
    """Tokens that spell the first `at` bytes; `less` is -log2 p, so that the most probable sorts first."""

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
    """Sums the covers of a text whose encoding is `own`, until nothing or next to nothing is left.

    Without a `start` token the first token is expected to be anything, as the exact protocol has it. `alive` is called
    now and then.
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
    """Beginnings of covers that were not read yet, by length, and the covers so far."""

    def __init__(
        self, text: bytes, vocabulary: Vocabulary, engine: TokenModel, start: int | None
    ) -> None:
        rests = [text[at:] for at in range(len(text))]
        self._from = [
            (vocabulary.inside(r), vocabulary.equal(r), vocabulary.covering(r)) for r in rests
        ]
        self._engine, self._start = engine, start
        self._waiting: dict[int, list[_Beginning]] = defaultdict(list)
        self.tokenizations = self.covers = -math.inf
        self.number = self.read = 0

    def walk(self, own: Sequence[int]) -> float:
        """Reads the beginnings of the encoder's own tokens, and gives log2 p of them all."""
        here, single = _Beginning(0.0, (), 0), 0.0
        for token in own:
            (after,) = self._read([here])
            single = float(after[token]) - here.less
            going = self._expand(here, after)
            self._keep(b for b in going if b.ids[-1] != token)
            here = next((b for b in going if b.ids[-1] == token), here)
        return single

    def grow(self, most: int) -> None:
        """Reads the most probable beginning, with others of its length."""
        heap = min((h for h in self._waiting.values() if h), key=lambda h: h[0])
        taken = [heapq.heappop(heap) for _ in range(min(ROWS, most, len(heap)))]
        for one, after in zip(taken, self._read(taken), strict=True):
            self._keep(self._expand(one, after))

    def is_done(self) -> bool:
        """Whether what is left cannot matter; it is summed up only once the largest of it cannot."""
        least = min((h[0].less for h in self._waiting.values() if h), default=math.inf)
        enough = self.covers + math.log2(TOLERANCE)
        return -least <= enough and self.left() <= enough

    def left(self) -> float:
        """log2 of the probability of all beginnings that were not read: covers that begin so have no more."""
        return _log2_sum(np.array([-b.less for heap in self._waiting.values() for b in heap]))

    def _keep(self, beginnings: Iterable[_Beginning]) -> None:
        for one in beginnings:
            heapq.heappush(self._waiting[len(one.ids)], one)

    def _read(self, beginnings: Sequence[_Beginning]) -> Floats:
        """log2 p of the next token behind each of some beginnings of one length."""
        self.read += len(beginnings)
        prompt = [] if self._start is None else [self._start]
        rows = np.array([[*prompt, *b.ids] for b in beginnings], np.int64)
        if not rows.shape[1]:
            return np.full(
                (len(rows), self._engine.vocabulary), -math.log2(self._engine.vocabulary)
            )
        return self._engine.next_log_probabilities(rows)

    def _expand(self, beginning: _Beginning, after: Floats) -> list[_Beginning]:
        """Counts the covers that end one token behind a beginning, and gives those that go on."""
        inside, exact, over = self._from[beginning.at]
        self.tokenizations = float(
            np.logaddexp2(self.tokenizations, _log2_sum(after[exact]) - beginning.less)
        )
        self.covers = float(np.logaddexp2(self.covers, _log2_sum(after[over]) - beginning.less))
        self.number += len(over)
        return [
            _Beginning(beginning.less - float(after[i]), (*beginning.ids, i), beginning.at + length)
            for i, length in inside
        ]


def _log2_sum(found: Floats) -> float:
    return float(np.logaddexp2.reduce(found)) if len(found) else -math.inf
