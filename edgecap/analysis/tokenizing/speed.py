"""Measure how fast tokenizers encode: rounds in turns, each with a new tokenizer.

The library caches words that it has split. A new tokenizer has an empty cache, so that all rounds
encode the text alike; loading it is not timed. One thread, in this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from edgecap import stats
from edgecap.analysis.tokenizing.loading import LoadedTokenizer
from edgecap.record import Absent, Estimate
from edgecap.text.corpus import Document
from edgecap.text.tokenizer import read_tokenizer

ROUNDS = 9
MOST_BYTES = 1_000_000  # of the corpus, from its beginning, in whole documents


class Speed(msgspec.Struct, frozen=True):
    """UTF-8 bytes encoded per second: the median of `rounds` with its 95 % interval.

    Each round encoded `bytes`.
    """

    bytes_per_s: Estimate
    bytes: int
    rounds: tuple[float, ...]


def measure_speed(
    tokenizers: Sequence[LoadedTokenizer],
    documents: Iterable[Document],
    now: Callable[[], float] = time.perf_counter,
) -> list[Speed | Absent]:
    """Measure the speed of each tokenizer on the same text; Absent if there is none."""
    texts, size = _first_texts(documents)
    if not size:
        return [Absent(reason="there is no text")] * len(tokenizers)
    seconds: list[list[float]] = [[] for _ in tokenizers]
    for turn in range(ROUNDS + 1):
        for samples, opened in zip(seconds, tokenizers, strict=True):
            elapsed_s = _encode_seconds(opened, texts, now)
            if turn:  # the first is the warm-up
                samples.append(elapsed_s)
    return [_speed(size, samples) for samples in seconds]


def _first_texts(documents: Iterable[Document]) -> tuple[list[str], int]:
    texts, size = list[str](), 0
    for document in documents:
        texts.append(document.text)
        size += len(document.text.encode())
        if size >= MOST_BYTES:
            break
    return texts, size


def _encode_seconds(
    opened: LoadedTokenizer, texts: Sequence[str], now: Callable[[], float]
) -> float:
    tokenizer = read_tokenizer(opened.folder)
    started = now()
    for text in texts:
        tokenizer.encode(text)
    return max(now() - started, 1e-9)


def _speed(size: int, seconds: Sequence[float]) -> Speed:
    rates = tuple(size / s for s in seconds)
    return Speed(stats.median_interval(rates, range(len(rates))), size, rates)
