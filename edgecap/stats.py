"""Medians, bootstrap intervals and comparisons over rounds and documents.

Samples of one round are correlated and rounds drift, so rounds are resampled, never samples
(percentile bootstrap, Efron and Tibshirani 1993). Sums over documents are resampled by document.
Every draw is seeded: the same data give the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS = 2000
SEED = 20511  # arXiv 2511.08066, so that two machines draw alike
_BLOCK = 4_000_000  # numbers held at once while resampling


class Interval(NamedTuple):
    """A value and its 95 % interval; the bounds are None where nothing could be resampled."""

    value: float
    low: float | None
    high: float | None


def by_round(samples: Sequence[float], rounds: Sequence[int]) -> Floats:
    """The median of each round, in the order of the rounds.

    `samples` and `rounds` have one entry a sample; returns one value a distinct round.
    """
    values, labels = np.asarray(samples, np.float64), np.asarray(rounds)
    return np.array([np.median(values[labels == r]) for r in dict.fromkeys(rounds)])


def draws_of_median(values: Floats, seed: int = SEED) -> Floats:
    """Bootstrap draws, shape (DRAWS,), of the median of `values`, shape (n,)."""
    rng = np.random.default_rng(seed)
    return np.asarray(np.median(values[rng.integers(0, len(values), (DRAWS, len(values)))], axis=1))


def draws_of_sums(columns: Floats, seed: int = SEED) -> Floats:
    """Bootstrap draws, shape (DRAWS, k), of the column sums of `columns`, shape (n, k).

    Rows (documents) are resampled with replacement; the same seed draws the same rows, which pairs
    two measurements of the same documents.
    """
    rng, n = np.random.default_rng(seed), len(columns)
    step = max(1, min(DRAWS, _BLOCK // max(1, n)))
    parts = [
        rng.multinomial(n, np.full(n, 1 / n), size=min(step, DRAWS - start)) @ columns
        for start in range(0, DRAWS, step)
    ]
    return np.concatenate(parts)


def interval(value: float, draws: Floats | None) -> Interval:
    """The percentile interval of `draws` about `value`; open where there is nothing to resample."""
    if draws is None or not np.all(np.isfinite(draws)):
        return Interval(float(value), None, None)
    low, high = np.percentile(draws, (2.5, 97.5))
    return Interval(float(value), float(min(low, value)), float(max(high, value)))


def median_interval(samples: Sequence[float], rounds: Sequence[int]) -> Interval:
    """The median of the round medians with its 95 % interval."""
    medians = by_round(samples, rounds)
    return interval(float(np.median(medians)), draws_of_median(medians) if len(medians) > 1 else None)
