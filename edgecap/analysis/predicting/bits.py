"""Predict the bits that another size of a series gains, from their common capacity. Pure numbers.

G = c log2 N - b with the capacity c and the bias b of the series: what arXiv 2511.08066 uses
capacity for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgecap.analysis.fitting.bias import best_bias, capacities
from edgecap.analysis.predicting.leave_one_out import half_width

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class CapacityLaw(NamedTuple):
    """Bias in bits per token and mean capacity of a series; arrays for many resamplings."""

    bias: Floats
    capacity: Floats

    def gain(self, work: float) -> Floats:
        """Return the bits gained per token by a model of 2^`work` FLOPs."""
        return self.capacity * work - self.bias


def fit_law(work: Floats, gains: Floats, bias_bits: float | None = None) -> CapacityLaw:
    """Fit the law of a series, or of each resampling of it; fit the bias if none is given."""
    import numpy as np

    bias = best_bias(work, gains) if bias_bits is None else np.full(gains.shape[:-1], bias_bits)
    return CapacityLaw(bias, capacities(work, gains, bias).mean(-1))


def predict_left_out(work: Floats, gains: Floats, bias_bits: float | None = None) -> Floats | None:
    """Predict the gain of each size from the others; None if those are too few for a law."""
    import numpy as np

    if len(work) - 1 < _parameters(bias_bits):
        return None
    others = [(np.delete(work, i), np.delete(gains, i)) for i in range(len(work))]
    return np.array(
        [fit_law(w, g, bias_bits).gain(float(at)) for (w, g), at in zip(others, work, strict=True)]
    )


def law_half_width(
    work: Floats, gains: Floats, at: float, bias_bits: float | None = None
) -> float | None:
    """Return half the 95 % interval of the gain of a new size, by leaving out each size.

    None if there are too few sizes.
    """
    predicted = predict_left_out(work, gains, bias_bits)
    if predicted is None:
        return None
    # The sizes scatter alike in units of capacity.
    half = half_width((gains - predicted) / work, 1 / work, 1 / at, _parameters(bias_bits))
    return None if half is None else half * at


def _parameters(bias_bits: float | None) -> int:
    """Return the number of fitted parameters: capacity and bias, or the capacity alone."""
    return 2 if bias_bits is None else 1
