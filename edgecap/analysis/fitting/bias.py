"""The bias that makes capacities most constant, with spreads and ranks. Pure numbers.

A capacity is (G + b) / log2 N = r + b u with r = G / log2 N and u = 1 / log2 N. The fit minimises
the coefficient of variation (standard deviation over mean) of a series. Unlike the deviation alone,
it does not prefer a bias that makes all capacities small; nor is an infinite bias a solution, since
the spread then is that of 1 / log2 N. arXiv 2511.08066 says that its bias makes the capacities of a
series nearly identical, and not by which measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CRITERION = "coefficient of variation of (G + b) / log2 N"


def best_bias(work: Floats, gains: Floats) -> Floats:
    """Return the bias of least spread in bits per token; NaN if all biases do alike.

    `work` is log2 of the FLOPs, shape (k,); `gains` bits per token, shape (..., k). The spread has
    one minimum in b, where its derivative vanishes; through two models it is the line that meets
    both. All biases do alike with equal sizes or equal gains.
    """
    import numpy as np

    ratio, slope = gains / work, 1 / work
    r, u = ratio.mean(-1), slope.mean()
    deviation = slope - u
    covariance = ((ratio - r[..., None]) * deviation).mean(-1)
    among_r, among_u = ratio.var(-1), slope.var()
    left, right = u * covariance, r * among_u
    flat = abs(left - right) <= 1e-12 * (abs(left) + abs(right))
    return np.where(
        flat, np.nan, (r * covariance - u * among_r) / np.where(flat, 1.0, left - right)
    )


def capacities(work: Floats, gains: Floats, bias: float | Floats) -> Floats:
    """Return (G + b) / log2 N of each model; `bias` has the shape of `gains` less its last axis."""
    import numpy as np

    values: Floats = (gains + np.asarray(bias, np.float64)[..., None]) / work
    return values


def is_determined(work: Floats, gains: Floats, bias: Floats) -> NDArray[np.bool_]:
    """Check that larger models gain more and that the best bias leaves capacities above 0."""
    import numpy as np

    rising = (gains * (work - work.mean())).sum(-1) > 0
    result: NDArray[np.bool_] = (
        rising & (capacities(work, gains, bias).mean(-1) > 0) & np.isfinite(bias)
    )
    return result


def spread(values: Floats) -> float:
    """Return the standard deviation over the mean, as a share; infinite for a mean of 0."""
    mean = abs(float(values.mean()))
    return float(values.std()) / mean if mean else float("inf")


def limit_spread(work: Floats) -> float:
    """Return the limit of the spread for an infinite bias: that of 1 / log2 N."""
    return spread(1 / work)


def leave_one_out_biases(work: Floats, gains: Floats) -> list[float | None]:
    """Fit the bias without each model in turn; None if undetermined or fewer than two are left."""
    import numpy as np

    if len(work) < 3:
        return [None] * len(work)
    biases = [float(best_bias(np.delete(work, i), np.delete(gains, i))) for i in range(len(work))]
    return [b if np.isfinite(b) else None for b in biases]


def ranks(values: Sequence[float]) -> list[int]:
    """Return ranks by falling value, from 1; equal values share the better rank."""
    return [1 + sum(other > value for other in values) for value in values]


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Kendall's tau of two orders: 1 the same, -1 reversed; ties count neither way."""
    pairs = [(i, j) for i in range(len(first)) for j in range(i)]
    alike = [_sign(first[i] - first[j]) * _sign(second[i] - second[j]) for i, j in pairs]
    return sum(alike) / len(pairs) if pairs else 1.0


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
