"""The cost of a step in a series: so much per operator, and a multiple of its attainable time.

    measured = each * operators + times * attainable

Both factors are at least 0, by least squares of the relative errors. Starting an operator costs the
same whatever its size: launch, binding, synchronisation. On a GPU that can be all of the time of a
small model, where measured over attainable would predict absurd times for a large one. It grows
with the layers, not with their width. Joules follow the same law. Pure numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgecap import stats
from edgecap.analysis.predicting.leave_one_out import student
from edgecap.record import Absent, Estimate
from edgecap.stats import Quantity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PARAMETERS = 2
MOST_APART = math.log(100)  # a wider half interval says nothing and is left open


class StepLaw(NamedTuple):
    """Cost of an operator, in the measured unit, and the multiple; arrays for many resamplings."""

    each: Floats
    times: Floats

    def at(self, size: StepSize) -> Floats:
        """Return the cost of a step of a size."""
        return self.each * size.operators + self.times * size.attainable


class StepSize(NamedTuple):
    """Operators of a graph and attainable seconds of a step; shape (k,) for several sizes."""

    operators: float | Floats
    attainable: float | Floats


def fit_step_law(sizes: StepSize, measured: Floats) -> StepLaw:
    """Fit the law of a series, or of each resampling.

    `measured`, above 0, has the shape (..., k). One size, or several in one proportion, give the
    multiple alone.
    """
    import numpy as np

    u, v = sizes.operators / measured, sizes.attainable / measured
    uu, uv, vv, su, sv = ((a).sum(-1) for a in (u * u, u * v, v * v, u, v))
    proportion = np.asarray(sizes.attainable / sizes.operators)
    proportional = np.ptp(proportion) <= 1e-9 * proportion.max()
    scale = np.where(proportional, 1.0, uu * vv - uv * uv)
    each = np.where(proportional, 0.0, (su * vv - sv * uv) / scale)
    times = np.where(proportional, sv / vv, (sv * uu - su * uv) / scale)
    no_each, no_times = each < 0, times < 0
    return StepLaw(
        np.where(no_each, 0.0, np.where(no_times, su / uu, each)),
        np.where(no_times, 0.0, np.where(no_each, sv / vv, times)),
    )


def relative_half_width(sizes: StepSize, measured: Floats, at: StepSize) -> float | None:
    """Return half the 95 % interval of a new size as a share of the prediction.

    None if no size is left to test the law. The prediction interval of regression on the relative
    errors is t s sqrt(1 + h) with the leverage h of the new size.
    """
    import numpy as np

    degrees = len(measured) - PARAMETERS
    if degrees < 1:
        return None
    law = fit_step_law(sizes, measured)
    errors = law.at(sizes) / measured - 1
    rows = np.column_stack([sizes.operators / measured, sizes.attainable / measured])
    new = np.array([at.operators, at.attainable]) / float(law.at(at))
    leverage = float(new @ np.linalg.pinv(rows.T @ rows) @ new)
    return (
        student(degrees) * math.sqrt(float((errors**2).sum()) / degrees) * math.sqrt(1 + leverage)
    )


def estimate_operators(layers: Floats, operators: Floats, at: int) -> float:
    """Estimate the operators of a graph with `at` layers from those of a series.

    Least squares if its depths differ, else in proportion.
    """
    import numpy as np

    if np.ptp(layers) == 0:
        return float(operators.mean()) * at / float(layers[0])
    slope, rest = np.polyfit(layers, operators, 1)
    return max(float(rest + slope * at), float(operators.min()) * at / float(layers.max()))


# --- law of a measured series -----------------------------------------------------------------


class MeasuredStep(NamedTuple):
    """A step of one size: its size, and its measured cost."""

    size: StepSize
    cost: Quantity


def _sizes(measured: Sequence[MeasuredStep]) -> StepSize:
    import numpy as np

    return StepSize(
        np.array([m.size.operators for m in measured]),
        np.array([m.size.attainable for m in measured]),
    )


def fit_measured_steps(measured: Sequence[MeasuredStep]) -> StepLaw | None:
    """Fit the law of the measured sizes; None if there are none."""
    import numpy as np

    return (
        fit_step_law(_sizes(measured), np.array([m.cost[0] for m in measured]))
        if measured
        else None
    )


def predict_step(
    measured: Sequence[MeasuredStep], size: StepSize, least: float | None
) -> Estimate | Absent:
    """Predict a step by the law of the series, with the interval of a new size.

    The interval does not reach below `least`.
    """
    import numpy as np

    law = fit_measured_steps(measured)
    if law is None:
        return Absent(reason="no model of the series has it")
    sizes, values = _sizes(measured), np.array([m.cost[0] for m in measured])
    drawn = [m.cost[1] for m in measured if m.cost[1] is not None]
    draws = (
        fit_step_law(sizes, np.column_stack(drawn)).at(size)
        if len(drawn) == len(measured)
        else None
    )
    return _estimate(
        float(law.at(size)), draws, relative_half_width(sizes, values, size), least or 0.0
    )


def _estimate(value: float, draws: Floats | None, half: float | None, least: float) -> Estimate:
    """Combine both errors on a logarithmic scale.

    Open if no size is left to test the law, or if its errors are beyond use.
    """
    if half is None or half > MOST_APART:
        return Estimate(value=value, low=None, high=None)
    inner = stats.interval(value, draws)
    bounds = (0.0 if b is None else math.log(b / value) for b in (inner.low, inner.high))
    low, high = (math.hypot(half, b) for b in bounds)
    return Estimate(
        value=value, low=min(value, max(least, value * math.exp(-low))), high=value * math.exp(high)
    )
