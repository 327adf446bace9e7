"""Medians, bootstrap intervals and comparisons over rounds and documents.

Samples within a round are correlated and rounds drift, so rounds are resampled, never samples
(percentile bootstrap, Efron and Tibshirani 1993). Sums over documents are resampled by document.
Every draw is seeded: equal data give equal intervals.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from edgecap.record import Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# A value and its bootstrap draws, if it has some; of several cells at once, see `analysis.draws`.
Quantity = tuple[Any, "Floats | None"]
DRAWS = 2000
FEW_ROUNDS = 5  # with fewer, the interval of a median is the range of the samples
SEED = 20511  # arXiv 2511.08066, so that two machines draw alike
_BLOCK = 1_000_000  # numbers in memory at once while resampling


def round_medians(samples: Sequence[float], rounds: Sequence[int]) -> list[float]:
    """Return the median of each round, in the order in which rounds first occur.

    `samples` and `rounds` have one entry per sample; the result has one per distinct round.
    """
    return list(_round_medians(tuple(samples), tuple(rounds)))


@lru_cache(maxsize=64)  # several metrics use the rounds of one measurement
def _round_medians(samples: tuple[float, ...], rounds: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(medians_by_round(samples, rounds).values())


def medians_by_round(samples: tuple[float, ...], rounds: tuple[int, ...]) -> dict[int, float]:
    """Return the median of each round by its number, likewise."""
    if len(samples) != len(rounds):
        raise ValueError(f"{len(samples)} samples of {len(rounds)} rounds")
    runs = _runs(rounds)
    if runs is not None:
        return {
            number: (ordered[low] + ordered[high]) / 2
            for number, start, end, low, high in runs
            for ordered in (sorted(samples[start:end]),)
        }
    grouped: dict[int, list[float]] = {}
    for sample, number in zip(samples, rounds, strict=True):
        grouped.setdefault(number, []).append(sample)
    return {number: median(group) for number, group in grouped.items()}


@lru_cache(maxsize=64)  # the cells of a run have like rounds
def _runs(rounds: tuple[int, ...]) -> list[tuple[int, int, int, int, int]] | None:
    """Return each round, its start, end and two middle ranks; None if rounds are mixed."""
    runs, start = [], 0
    for number, n in Counter(rounds).items():
        if rounds[start : start + n] != (number,) * n:
            return None
        runs.append((number, start, start + n, (n - 1) // 2, n // 2))
        start += n
    return runs


def median(values: Sequence[float]) -> float:
    """Return the middle value, or the mean of the two middle ones."""
    ordered = sorted(values)
    n = len(ordered)
    return float(ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the `share` quantile of values in any order, interpolated linearly."""
    ordered = sorted(values)
    below, above, between = _between(share, len(ordered))
    return float(ordered[below] + (ordered[above] - ordered[below]) * between)


def relative_spread(samples: Sequence[float], rounds: Sequence[int]) -> float:
    """Return the interquartile range of the round medians over their median."""
    return spread_of_medians(round_medians(samples, rounds))


def spread_of_medians(medians: Sequence[float]) -> float:
    """Return the interquartile range of medians over their median."""
    ordered = sorted(medians)
    return (quantile(ordered, 0.75) - quantile(ordered, 0.25)) / median(ordered)


class Modes(NamedTuple):
    """Two clusters of samples: their medians, and the share of samples in the slower one."""

    fast: float
    slow: float
    share_slow: float


def modes(values: Sequence[float]) -> Modes | None:
    """Split values into two clusters; None unless each has at least 15 % and they lie 10 % apart.

    The split minimises the variance within the clusters (Otsu 1979). Two clusters leave less than a
    tenth of the variance; a normal distribution would leave 0.36 of it and a uniform one 0.25. A
    twentieth at either end is ignored.
    """
    ordered = sorted(values)[len(values) // 20 : len(values) - len(values) // 20]
    n = len(ordered)
    if n < 20:
        return None
    total, mean = 0.0, sum(ordered) / n
    variance = sum((x - mean) ** 2 for x in ordered)
    best = (0.0, 0)
    for i, value in enumerate(ordered[:-1], 1):
        total += value
        between = (total - i * mean) ** 2 * n / (i * (n - i))
        best = max(best, (between, i))
    cut = best[1]
    fast, slow = (median(part) for part in (ordered[:cut], ordered[cut:])) if cut else (mean, mean)
    split = Modes(fast, slow, 1 - cut / n)
    separate = variance > 0 and best[0] > 0.9 * variance and slow > 1.1 * fast
    return split if separate and 0.15 <= split.share_slow <= 0.85 else None


def relative_half_width(samples: Sequence[float], rounds: Sequence[int]) -> float:
    """Return half the 95 % interval of the median of the round medians, as a share of it."""
    estimate = median_interval(samples, rounds)
    if estimate.low is None or estimate.high is None:
        return math.inf
    return (estimate.high - estimate.low) / 2 / estimate.value if estimate.value else math.inf


def bootstrap_medians(
    values: Sequence[float] | Floats, seed: int = SEED, of: Callable[[Floats], Floats] | None = None
) -> Floats:
    """Return bootstrap draws, shape (..., DRAWS), of the median of `values`, shape (..., n).

    `of` is applied to each median: few are distinct, so that it costs little here.
    """
    import numpy as np

    ordered = np.sort(np.asarray(values, np.float64))
    below, above, drawn = _middle_pairs(ordered.shape[-1], seed)
    medians: Floats = (ordered[..., below] + ordered[..., above]) / 2
    return np.take(of(medians) if of else medians, drawn, axis=-1, mode="clip")


@lru_cache(maxsize=512)  # depends on the number of values only
def _middle_pairs(n: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return each pair of middle values among `n` ordered ones, and which pair each draw has."""
    import random

    import numpy as np

    uniform = random.Random(seed).random
    indices = np.sort([[int(uniform() * n) for _ in range(n)] for _ in range(DRAWS)])
    pairs, drawn = np.unique(indices[:, (n - 1) // 2] * n + indices[:, n // 2], return_inverse=True)
    return pairs // n, pairs % n, drawn


def bootstrap_sums(columns: Floats, seed: int = SEED, strata: Sequence[str] = ()) -> Floats:
    """Return bootstrap draws, shape (DRAWS, k), of the column sums of `columns`, shape (n, k).

    Rows (documents) are resampled with replacement. One seed draws the same rows for all callers,
    which pairs two measurements of the same documents. With `strata`, a name for each row, rows are
    resampled within those of one name, so that each draw has as many of each; rows that are alone
    with their names are one stratum.
    """
    import numpy as np

    groups = _rows_by_stratum(strata)
    if len(groups) > 1:
        drawn = (bootstrap_sums(columns[rows], seed + k) for k, rows in enumerate(groups))
        total: Floats = np.sum(list(drawn), axis=0)
        return total
    n = len(columns)
    if n * DRAWS <= _BLOCK:
        draws: Floats = _row_counts(n, seed) @ columns
        return draws
    rng, step = np.random.default_rng(seed), max(1, _BLOCK // n)
    sizes = [min(step, DRAWS - start) for start in range(0, DRAWS, step)]
    return np.concatenate(
        [rng.multinomial(n, np.full(n, 1 / n), size=size) @ columns for size in sizes]
    )


def bootstrap_columns(columns: Floats, seed: int = SEED, strata: Sequence[str] = ()) -> Floats:
    """Return the draws of `bootstrap_sums` as shape (k, DRAWS), for many columns in one product."""
    import numpy as np

    n = len(columns)
    if n * DRAWS > _BLOCK:
        return np.ascontiguousarray(bootstrap_sums(columns, seed, strata).T)
    draws: Floats = columns.T @ _stratified_counts(n, seed, tuple(strata)).T
    return draws


@lru_cache(maxsize=4)
def _stratified_counts(n: int, seed: int, strata: tuple[str, ...]) -> Floats:
    """Return how often each draw contains each of `n` rows, shape (DRAWS, n)."""
    import numpy as np

    groups = _rows_by_stratum(strata)
    counts = np.empty((DRAWS, n))
    for k, rows in enumerate(groups if len(groups) > 1 else [list(range(n))]):
        counts[:, rows] = _row_counts(len(rows), seed + k)
    return counts


def _rows_by_stratum(strata: Sequence[str]) -> list[list[int]]:
    """Return the rows of each name; rows that are alone with theirs have no spread, so are one."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(strata):
        rows.setdefault(name, []).append(row)
    several = [group for group in rows.values() if len(group) > 1]
    alone = [row for group in rows.values() if len(group) == 1 for row in group]
    if len(alone) == 1 and several:
        several[0] = sorted([*several[0], *alone])
        return several
    return [*several, alone] if alone else several


@lru_cache(maxsize=16)  # of up to 8 MB
def _row_counts(n: int, seed: int) -> Floats:
    """Return how often each draw contains each of `n` rows, shape (DRAWS, n)."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / max(1, n)), size=DRAWS).astype(np.float64)


def interval(value: float, draws: Sequence[float] | Floats | None) -> Estimate:
    """Return `value` with the 95 % percentile interval of `draws`, extended to contain the value.

    Draws of shape (k, DRAWS), under k assumptions, give the interval that spans those of all. The
    bounds are None without draws, or where a draw is not finite.
    """
    if draws is None:
        return Estimate(value=float(value), low=None, high=None)
    import numpy as np

    drawn = np.array(draws, np.float64)
    return intervals([float(value)], drawn.reshape(-1, 1, drawn.shape[-1]))[0]


def intervals(
    values: Sequence[float], draws: Floats | None, of: Callable[[Floats], Floats] | None = None
) -> list[Estimate]:
    """Return m values, each with the interval of its draws, shape (m, DRAWS) or (k, m, DRAWS).

    As `interval` of each. The draws are reordered. `of` is a rising function to apply to them
    first; it costs little, since it is applied to those only that the bounds lie between.
    """
    if draws is None:
        return [Estimate(value=value, low=None, high=None) for value in values]
    import numpy as np

    ends = of(_ends(draws)) if of else _ends(draws)
    ends = ends.reshape(len(ends), -1, len(values))
    finite: list[bool] = np.isfinite(ends).min(axis=(0, 1)).tolist()
    low, high = (_between(share, draws.shape[-1])[2] for share in (0.025, 0.975))
    lows = (ends[1] + (ends[2] - ends[1]) * low).min(0).tolist()
    highs = (ends[3] + (ends[4] - ends[3]) * high).max(0).tolist()
    return [
        Estimate(value=value, low=min(low, value), high=max(high, value))
        if whole
        else Estimate(value=value, low=None, high=None)
        for value, low, high, whole in zip(values, lows, highs, finite, strict=True)
    ]


def _between(share: float, n: int) -> tuple[int, int, float]:
    """Return the ranks between which a quantile of `n` values lies, and how far between."""
    position = share * (n - 1)
    below = math.floor(position)
    return below, min(below + 1, n - 1), position - below


def _ends(draws: Floats) -> Floats:
    """Return six draws of each row, shape (6, ...): the least, two at each bound, the greatest.

    Reorders the draws. To place one rank and look for its neighbour is several times as fast as to
    sort.
    """
    import numpy as np

    below, above, _ = _between(0.025, draws.shape[-1])
    draws.partition(above)
    tail = draws[..., : above + 1]
    low = [tail.min(-1), tail[..., : below + 1].max(-1), tail[..., -1].copy()]
    below, above, _ = _between(0.975, draws.shape[-1])
    draws.partition(below)
    tail = draws[..., below:]
    return np.array([*low, tail[..., 0], tail[..., above - below :].min(-1), tail.max(-1)])


def median_interval(samples: Sequence[float], rounds: Sequence[int]) -> Estimate:
    """Return the median of the round medians with its 95 % interval."""
    medians = round_medians(samples, rounds)
    return interval(median(medians), bootstrap_medians(medians) if len(medians) > 1 else None)
