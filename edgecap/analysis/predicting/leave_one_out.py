"""How well a series predicts a size that it has not: by leaving out each one that it has. Pure numbers.

In r = G / log2 N and u = 1 / log2 N the capacity law G = c log2 N - b is the line r = c - b u, on which the sizes of a
series scatter alike. A size left out lies further from the line of the others than from that of all, the more
so the further out it is (its leverage h); with that taken out, the errors give the scatter s, and a new size is
predicted within t s sqrt(1 + h). Allen 1974 (PRESS).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# The 97.5 % quantile of Student's t with 1, 2, ... degrees of freedom.
_T = (
    *(
        12.7062,
        4.3027,
        3.1824,
        2.7764,
        2.5706,
        2.4469,
        2.3646,
        2.3060,
        2.2622,
        2.2281,
        2.2010,
        2.1788,
        2.1604,
    ),
    *(
        2.1448,
        2.1314,
        2.1199,
        2.1098,
        2.1009,
        2.0930,
        2.0860,
        2.0796,
        2.0739,
        2.0687,
        2.0639,
        2.0595,
        2.0555,
    ),
    *(2.0518, 2.0484, 2.0452, 2.0423),
)


def leverage(places: Floats, at: float, parameters: int) -> float:
    """How far a place is from those of a series: 1/k for a mean alone, more with distance for a line (2 parameters)."""
    k = len(places)
    if parameters == 1:
        return 1 / k
    around = places - places.mean()
    return 1 / k + (at - float(places.mean())) ** 2 / float((around**2).sum())


def scatter(errors: Floats, places: Floats, parameters: int) -> float | None:
    """The standard deviation of a series about its own fit, from the errors of each size left out.

    None where there are no more sizes than `parameters`.
    """
    free = len(errors) - parameters
    if free < 1:
        return None
    own = [
        e * (1 - leverage(places, u, parameters))
        for e, u in zip(errors.tolist(), places.tolist(), strict=True)
    ]
    return math.sqrt(sum(e * e for e in own) / free)


def half_width(errors: Floats, places: Floats, at: float, parameters: int) -> float | None:
    """Half the 95 % interval of a new size at `at`, in the unit of the errors; None where nothing can be left out."""
    found = scatter(errors, places, parameters)
    if found is None:
        return None
    return (
        student(len(errors) - parameters) * found * math.sqrt(1 + leverage(places, at, parameters))
    )


def student(free: int) -> float:
    """The 97.5 % quantile of Student's t."""
    return _T[free - 1] if free <= len(_T) else 1.96 + 2.5 / free
