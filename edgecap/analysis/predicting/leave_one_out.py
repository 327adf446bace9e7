"""Check predictions of a series by leaving out each size that it has. Pure numbers.

In r = G / log2 N and u = 1 / log2 N the capacity law G = c log2 N - b is the line r = c - b u, on
which the sizes of a series scatter alike. A size left out lies further from the line of the others
than from that of all, the more so the further out it is (its leverage h). With that taken out, the
errors give the scatter s, and a new size is predicted within t s sqrt(1 + h). Allen 1974 (PRESS).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# The 97.5 % quantile of Student's t with 1, 2, ... degrees of freedom.
# fmt: off
_T = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)
# fmt: on


def leverage(places: Floats, at: float, parameters: int) -> float:
    """Return the leverage of a place: 1/k for a mean, more with distance for a line.

    A mean has 1 parameter, a line 2.
    """
    k = len(places)
    if parameters == 1:
        return 1 / k
    around = places - places.mean()
    return 1 / k + (at - float(places.mean())) ** 2 / float((around**2).sum())


def scatter(errors: Floats, places: Floats, parameters: int) -> float | None:
    """Return the standard deviation of a series about its fit, from leave-one-out errors.

    None if there are no more sizes than `parameters`.
    """
    free = len(errors) - parameters
    if free < 1:
        return None
    residuals = [
        e * (1 - leverage(places, u, parameters))
        for e, u in zip(errors.tolist(), places.tolist(), strict=True)
    ]
    return math.sqrt(sum(e * e for e in residuals) / free)


def half_width(errors: Floats, places: Floats, at: float, parameters: int) -> float | None:
    """Return half the 95 % interval of a new size at `at`, in the unit of the errors.

    None if nothing can be left out.
    """
    deviation = scatter(errors, places, parameters)
    if deviation is None:
        return None
    return (
        student(len(errors) - parameters)
        * deviation
        * math.sqrt(1 + leverage(places, at, parameters))
    )


def student(free: int) -> float:
    """Return the 97.5 % quantile of Student's t."""
    return _T[free - 1] if free <= len(_T) else 1.96 + 2.5 / free
