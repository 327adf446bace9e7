"""Medians, bootstrap intervals and comparisons over rounds and documents.

Samples of one round are correlated and rounds drift, so rounds are resampled, never samples
(percentile bootstrap, Efron and Tibshirani 1993). Sums over documents are resampled by document.
Every draw is seeded: the same data give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from edgecap.record import Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DRAWS = 2000
SEED = 20511  # arXiv 2511.08066, so that two machines draw alike
_BLOCK = 4_000_000  # numbers held at once while resampling


def by_round(samples: Sequence[float], rounds: Sequence[int]) -> list[float]:
    """The median of each round, in the order of the rounds.

    `samples` and `rounds` have one entry a sample; returns one value a distinct round.
    """
    return list(_by_round(tuple(samples), tuple(rounds)))


@lru_cache(maxsize=64)
def _by_round(samples: tuple[float, ...], rounds: tuple[int, ...]) -> tuple[float, ...]:
    """Kept for a while, since several figures are made of one measurement's rounds."""
    grouped: dict[int, list[float]] = {}
    for sample, number in zip(samples, rounds, strict=True):
        grouped.setdefault(number, []).append(sample)
    return tuple(median(group) for group in grouped.values())


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones."""
    ordered = sorted(values)
    n = len(ordered)
    return float(ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2)


def quantile(values: Sequence[float], share: float) -> float:
    """The `share` quantile of values in any order, linear between neighbours."""
    return _between(sorted(values), share)


def _between(ordered: Sequence[float] | Floats, share: float) -> float:
    """The `share` quantile of ordered values."""
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (ordered[above] - ordered[below]) * (at - below))


def spread(samples: Sequence[float], rounds: Sequence[int]) -> float:
    """The interquartile range of the round medians over their median: how far rounds drift."""
    medians = by_round(samples, rounds)
    return (quantile(medians, 0.75) - quantile(medians, 0.25)) / median(medians)


class Modes(NamedTuple):
    """Two heaps of samples: their medians, and the share of the samples in the slower one."""

    fast: float
    slow: float
    share_slow: float


def modes(values: Sequence[float]) -> Modes | None:
    """Two heaps where the values lie in two, at least 15 % of them in each and 10 % apart; else None.

    The split is that of the least variance within (Otsu 1979); two heaps leave less than a tenth of the variance,
    where a normal distribution leaves 0.36 of it and an even one 0.25. A twentieth at either end is left out.
    """
    ordered = sorted(values)[len(values) // 20 : len(values) - len(values) // 20]
    n = len(ordered)
    if n < 20:
        return None
    total, mean = 0.0, sum(ordered) / n
    whole = sum((x - mean) ** 2 for x in ordered)
    best = (0.0, 0)
    for i, value in enumerate(ordered[:-1], 1):
        total += value
        between = (total - i * mean) ** 2 * n / (i * (n - i))
        best = max(best, (between, i))
    cut = best[1]
    fast, slow = (median(part) for part in (ordered[:cut], ordered[cut:])) if cut else (mean, mean)
    found = Modes(fast, slow, 1 - cut / n)
    apart = whole > 0 and best[0] > 0.9 * whole and slow > 1.1 * fast
    return found if apart and 0.15 <= found.share_slow <= 0.85 else None


def half_width(samples: Sequence[float], rounds: Sequence[int]) -> float:
    """Half the 95 % interval of the median of the round medians, as a share of it."""
    found = median_interval(samples, rounds)
    if found.low is None or found.high is None:
        return math.inf
    return (found.high - found.low) / 2 / found.value if found.value else math.inf


def draws_of_median(values: Sequence[float], seed: int = SEED) -> Floats:
    """`DRAWS` bootstrap draws of the median of a few values."""
    import numpy as np

    ordered, (below, above) = np.sort(np.asarray(values, np.float64)), _middles(len(values), seed)
    drawn: Floats = (ordered[below] + ordered[above]) / 2
    return drawn


@lru_cache(maxsize=512)
def _middles(n: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which two of `n` ordered values each draw has in its middle: the same for all values."""
    import random

    import numpy as np

    chance = random.Random(seed).random
    places = np.sort([[int(chance() * n) for _ in range(n)] for _ in range(DRAWS)])
    return places[:, (n - 1) // 2], places[:, n // 2]


def draws_of_sums(columns: Floats, seed: int = SEED) -> Floats:
    """Bootstrap draws, shape (DRAWS, k), of the column sums of `columns`, shape (n, k).

    Rows (documents) are resampled with replacement; the same seed draws the same rows, which pairs
    two measurements of the same documents.
    """
    import numpy as np

    n = len(columns)
    if n * DRAWS <= _BLOCK:
        drawn: Floats = _documents(n, seed) @ columns
        return drawn
    rng, step = np.random.default_rng(seed), max(1, _BLOCK // n)
    sizes = [min(step, DRAWS - start) for start in range(0, DRAWS, step)]
    return np.concatenate(
        [rng.multinomial(n, np.full(n, 1 / n), size=size) @ columns for size in sizes]
    )


@lru_cache(maxsize=4)
def _documents(n: int, seed: int) -> Floats:
    """How often each draw has each of `n` documents, shape (DRAWS, n)."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / max(1, n)), size=DRAWS).astype(np.float64)


def interval(value: float, draws: Sequence[float] | Floats | None) -> Estimate:
    """The percentile interval of `draws` about `value`; open where there is nothing to resample."""
    if draws is None:
        return Estimate(value=float(value), low=None, high=None)
    import numpy as np

    ordered = np.sort(np.asarray(draws, np.float64))
    if not (
        math.isfinite(ordered[0]) and math.isfinite(ordered[-1])
    ):  # what is no number is sorted to the end
        return Estimate(value=float(value), low=None, high=None)
    low, high = (_between(ordered, share) for share in (0.025, 0.975))
    return Estimate(value=float(value), low=min(low, value), high=max(high, value))


def median_interval(samples: Sequence[float], rounds: Sequence[int]) -> Estimate:
    """The median of the round medians with its 95 % interval."""
    medians = by_round(samples, rounds)
    return interval(median(medians), draws_of_median(medians) if len(medians) > 1 else None)
