"""What a step of a series takes: a fixed part, and a multiple of the shortest time that the machine allows. Pure numbers.

    measured = fixed + times * attainable        both at least 0, least squares of the relative errors

The fixed part is what starting a step costs whatever the size: launches, bindings, synchronisation. On a GPU it can be all
of the time of a small model, where measured over attainable would promise absurd times for a large one. Joules follow the same law.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from edgecap.predicting.leaving import student

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PARAMETERS = 2


class StepLaw(NamedTuple):
    """The fixed part in the unit of what was measured, and the multiple; arrays where they are those of resamplings."""

    fixed: Floats
    times: Floats

    def at(self, attainable: float | Floats) -> Floats:
        """What a step takes that the machine allows in `attainable` seconds."""
        return self.fixed + self.times * attainable


def step_law(attainable: Floats, measured: Floats) -> StepLaw:
    """The law of a series, or of each resampling; of one size, or several that are alike, the multiple alone.

    `attainable` seconds, shape (k,); `measured`, above 0, shape (..., k).
    """
    import numpy as np

    u, v = 1 / measured, attainable / measured
    uu, uv, vv, su, sv = ((a).sum(-1) for a in (u * u, u * v, v * v, u, v))
    alike = np.ptp(attainable) <= 1e-9 * attainable.max()
    scale = np.where(alike, 1.0, uu * vv - uv * uv)
    fixed = np.where(alike, 0.0, (su * vv - sv * uv) / scale)
    times = np.where(alike, sv / vv, (sv * uu - su * uv) / scale)
    none_fixed, none_times = fixed < 0, times < 0
    return StepLaw(
        np.where(none_fixed, 0.0, np.where(none_times, su / uu, fixed)),
        np.where(none_times, 0.0, np.where(none_fixed, sv / vv, times)),
    )


def relative_half_width(attainable: Floats, measured: Floats, at: float) -> float | None:
    """Half the 95 % interval of a new size as a share of what is predicted; None where no size is left to test the law.

    The prediction interval of regression on the relative errors: t s sqrt(1 + h) with the leverage h of the new size.
    """
    import numpy as np

    free = len(attainable) - PARAMETERS
    if free < 1:
        return None
    law = step_law(attainable, measured)
    errors = law.at(attainable) / measured - 1
    rows, new = (np.column_stack([1 / t, x / t]) for t, x in ((measured, attainable), _alone(law, at)))
    leverage = float((new @ np.linalg.pinv(rows.T @ rows) @ new.T)[0, 0])
    return student(free) * math.sqrt(float((errors**2).sum()) / free) * math.sqrt(1 + leverage)


def _alone(law: StepLaw, at: float) -> tuple[Floats, Floats]:
    import numpy as np

    return np.array([float(law.at(at))]), np.array([at])


def left_out(attainable: Floats, measured: Floats) -> Floats | None:
    """What each size takes, predicted from the others; None of one."""
    import numpy as np

    if len(attainable) < 2:
        return None
    others = [(np.delete(attainable, i), np.delete(measured, i)) for i in range(len(attainable))]
    return np.array([float(step_law(x, t).at(at)) for (x, t), at in zip(others, attainable, strict=True)])
