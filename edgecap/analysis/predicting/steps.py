"""What a step of a series takes: so much an operator, and a multiple of the shortest time that the machine allows. Pure numbers.

    measured = each * operators + times * attainable        both at least 0, least squares of the relative errors

Starting an operator costs the same whatever its size: launch, binding, synchronisation. On a GPU that can be all of the time
of a small model, where measured over attainable would promise absurd times for a large one. It grows with the layers, not
with their width. Joules follow the same law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgecap import stats
from edgecap.analysis.predicting.leave_one_out import student
from edgecap.analysis.score import Quantity
from edgecap.record import Absent, Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PARAMETERS = 2
MOST_APART = math.log(100)  # half an interval that is wider says nothing: it is left open


class StepLaw(NamedTuple):
    """What an operator costs in the unit of what was measured, and the multiple; arrays where they are those of resamplings."""

    each: Floats
    times: Floats

    def at(self, place: StepSize) -> Floats:
        """What a step of a size takes."""
        return self.each * place.operators + self.times * place.attainable


class StepSize(NamedTuple):
    """A size, or several with arrays of shape (k,): operators of its graph, and the seconds that the machine allows a step."""

    operators: float | Floats
    attainable: float | Floats


def fit_step_law(places: StepSize, measured: Floats) -> StepLaw:
    """The law of a series, or of each resampling; of one size, or several in one proportion, the multiple alone.

    `measured`, above 0, has the shape (..., k).
    """
    import numpy as np

    u, v = places.operators / measured, places.attainable / measured
    uu, uv, vv, su, sv = ((a).sum(-1) for a in (u * u, u * v, v * v, u, v))
    proportion = np.asarray(places.attainable / places.operators)
    alike = np.ptp(proportion) <= 1e-9 * proportion.max()
    scale = np.where(alike, 1.0, uu * vv - uv * uv)
    each = np.where(alike, 0.0, (su * vv - sv * uv) / scale)
    times = np.where(alike, sv / vv, (sv * uu - su * uv) / scale)
    none_each, none_times = each < 0, times < 0
    return StepLaw(
        np.where(none_each, 0.0, np.where(none_times, su / uu, each)),
        np.where(none_times, 0.0, np.where(none_each, sv / vv, times)),
    )


def relative_half_width(places: StepSize, measured: Floats, at: StepSize) -> float | None:
    """Half the 95 % interval of a new size as a share of what is predicted; None where no size is left to test the law.

    The prediction interval of regression on the relative errors: t s sqrt(1 + h) with the leverage h of the new size.
    """
    import numpy as np

    free = len(measured) - PARAMETERS
    if free < 1:
        return None
    law = fit_step_law(places, measured)
    errors = law.at(places) / measured - 1
    rows = np.column_stack([places.operators / measured, places.attainable / measured])
    new = np.array([at.operators, at.attainable]) / float(law.at(at))
    leverage = float(new @ np.linalg.pinv(rows.T @ rows) @ new)
    return student(free) * math.sqrt(float((errors**2).sum()) / free) * math.sqrt(1 + leverage)


def estimate_operators(layers: Floats, operators: Floats, at: int) -> float:
    """Operators of a graph with `at` layers, from those of a series: least squares where its depths differ, else in proportion."""
    import numpy as np

    if np.ptp(layers) == 0:
        return float(operators.mean()) * at / float(layers[0])
    slope, rest = np.polyfit(layers, operators, 1)
    return max(float(rest + slope * at), float(operators.min()) * at / float(layers.max()))


# --- of a series that was measured ------------------------------------------------------------


class MeasuredStep(NamedTuple):
    """A step of a size: its place, and what it was measured to take."""

    place: StepSize
    found: Quantity


def _places(measured: Sequence[MeasuredStep]) -> StepSize:
    import numpy as np

    return StepSize(
        np.array([m.place.operators for m in measured]),
        np.array([m.place.attainable for m in measured]),
    )


def fit_measured_steps(measured: Sequence[MeasuredStep]) -> StepLaw | None:
    """The law of the sizes that were measured; None of none."""
    import numpy as np

    return (
        fit_step_law(_places(measured), np.array([m.found[0] for m in measured]))
        if measured
        else None
    )


def predict_step(
    measured: Sequence[MeasuredStep], place: StepSize, least: float | None
) -> Estimate | Absent:
    """By the law of the series, with the interval of a size that is new, which cannot reach below `least`."""
    import numpy as np

    law = fit_measured_steps(measured)
    if law is None:
        return Absent(reason="no model of the series has it")
    places, values = _places(measured), np.array([m.found[0] for m in measured])
    drawn = [m.found[1] for m in measured if m.found[1] is not None]
    draws = (
        fit_step_law(places, np.column_stack(drawn)).at(place)
        if len(drawn) == len(measured)
        else None
    )
    return _estimate(
        float(law.at(place)), draws, relative_half_width(places, values, place), least or 0.0
    )


def _estimate(value: float, draws: Floats | None, half: float | None, least: float) -> Estimate:
    """With both errors on a logarithmic scale; open where no size is left to test the law, or its errors are beyond use."""
    if half is None or half > MOST_APART:
        return Estimate(value=value, low=None, high=None)
    inner = stats.interval(value, draws)
    bounds = (0.0 if b is None else math.log(b / value) for b in (inner.low, inner.high))
    low, high = (math.hypot(half, b) for b in bounds)
    return Estimate(
        value=value, low=min(value, max(least, value * math.exp(-low))), high=value * math.exp(high)
    )
