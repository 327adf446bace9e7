"""Code tokens under a model with a range coder.

A text is cut into the windows of the exact protocol, and `LANES` windows are coded together, token
by token, each step one run of the graph. Both ends run the same steps, so that both have the same
probabilities to the last bit. The size is the sum of -log2 p within 0.1 % and 64 bytes.
Owns constriction (range coding; Bamler, arXiv 2201.01741).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from edgecap.protocols import Cache, Floats, Ids
from edgecap.text.codec_format import CodecError

LANES = 16  # windows that are coded together
MAX_TOKEN_BITS = 48.0  # of a token: two symbols, each of at least 2^-24

CodecProgress = Callable[[int, int], None]


class StepEngine(Protocol):
    """An engine as the coder needs it: rows of a batch, each with its own text."""

    vocabulary: int

    def step(self, cache: Cache | None, tokens: Ids) -> tuple[Floats, Cache]:
        """Read one token a row, shape (rows,), after `cache`.

        Returns logits of the next token, shape (rows, vocabulary), and the cache.
        """


def encode_tokens(
    ids: list[int], context: int, engine: StepEngine, start: int | None, share: CodecProgress
) -> tuple[bytes, float]:
    """Return range-coded tokens, and their summed -log2 p in bits."""
    import constriction

    coder, bits = constriction.stream.queue.RangeEncoder(), 0.0

    def put(lane: int, at: int, model: _Distribution | None) -> int:
        nonlocal bits
        token = ids[lane + at]
        bits += math.log2(size) if model is None else model.bits(token)
        for symbol, table in (
            _Distribution.uniform(size).path(token) if model is None else model.path(token)
        ):
            coder.encode(symbol, table)
        return token

    size = engine.vocabulary
    _code_windows(len(ids), context, engine, start, put, share)
    return coder.get_compressed().astype("<u4").tobytes(), bits


def decode_tokens(
    payload: bytes,
    count: int,
    context: int,
    engine: StepEngine,
    start: int | None,
    share: CodecProgress,
) -> list[int]:
    """Return the `count` tokens of a payload."""
    import constriction

    decoder = constriction.stream.queue.RangeDecoder(
        np.frombuffer(payload, "<u4").astype(np.uint32)
    )
    ids = [0] * count
    size = engine.vocabulary

    def get(lane: int, at: int, model: _Distribution | None) -> int:
        ids[lane + at] = (model or _Distribution.uniform(size)).find(decoder.decode)
        return ids[lane + at]

    _code_windows(count, context, engine, start, get, share)
    return ids


def _code_windows(
    count: int,
    context: int,
    engine: StepEngine,
    start: int | None,
    code: Callable[[int, int, _Distribution | None], int],
    share: CodecProgress,
) -> None:
    """Go through the windows of a text, `LANES` together, one token of each at a step.

    `code` takes the begin of a lane's window, the place in it and the distribution of the token
    there, and returns the token. Without a start token, the first of each window has no
    distribution: all tokens are alike.
    """
    width = context - 1 if start is not None else context
    begins, done = list(range(0, count, width)), 0
    for first in range(0, len(begins), LANES):
        lanes = begins[first : first + LANES]
        lengths = [min(width, count - b) for b in lanes]
        cache, logits = None, None
        tokens = np.full(len(lanes), start if start is not None else 0, np.int64)
        for at in range(max(lengths)):
            if start is not None or at:
                logits, cache = engine.step(cache, tokens)
            for row, (begin, length) in enumerate(zip(lanes, lengths, strict=True)):
                if at < length:
                    tokens[row] = code(
                        begin, at, None if logits is None else _Distribution.of(logits[row])
                    )
                    done += 1
            share(done, count)


class _Distribution:
    """Probabilities of a token as two choices: a group of neighbouring ids, a place in the group.

    A range coder gives every symbol at least 2^-24. Over 150,000 ids at once that would cost 0.9 %
    of the probability; over 390 groups of 390 ids the cost cannot be measured.
    """

    def __init__(self, groups: np.ndarray) -> None:
        self._groups = groups  # (groups, width), float64, not normalised
        self._sums = groups.sum(axis=1)

    @classmethod
    def of(cls, logits: Any) -> _Distribution:
        """Make one from logits of shape (vocabulary,). Raises CodecError on NaN or infinity."""
        row = np.asarray(logits, np.float64)
        top = row.max()
        if not np.isfinite(top):
            raise CodecError("the model gives NaN or infinity for a token's probability")
        return cls(_grouped(np.exp(row - top)))

    @classmethod
    def uniform(cls, size: int) -> _Distribution:
        """Make one in which all `size` tokens are alike."""
        return cls(_grouped(np.ones(size)))

    def bits(self, token: int) -> float:
        """Return -log2 p of a token as the coder has it."""
        p = self._groups[divmod(token, self._groups.shape[1])]
        return (
            min(MAX_TOKEN_BITS, float(np.log2(self._sums.sum()) - np.log2(p)))
            if p > 0
            else MAX_TOKEN_BITS
        )

    def path(self, token: int) -> list[tuple[int, Any]]:
        """Return the symbols of a token, each with its table."""
        group, place = divmod(token, self._groups.shape[1])
        return [(group, _table(self._sums)), (place, _table(self._groups[group]))]

    def find(self, decode: Callable[[Any], int]) -> int:
        """Return the token that a decoder reads."""
        group, width = int(decode(_table(self._sums))), int(self._groups.shape[1])
        return group * width + int(decode(_table(self._groups[group])))


def _grouped(p: np.ndarray) -> np.ndarray:
    width = max(2, math.isqrt(len(p)))
    rows = max(2, -(-len(p) // width))
    return np.pad(p, (0, rows * width - len(p))).reshape(rows, width)


def _table(weights: np.ndarray) -> Any:
    import constriction

    total = weights.sum()
    safe = weights if total > 0 else np.ones_like(weights)
    return constriction.stream.model.Categorical(safe / safe.sum(), perfect=False)
