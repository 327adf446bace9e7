"""Metrics as people read them: values with prefixed units, intervals, and ranges over cells."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.metrics import BY_NAME
from edgecap.record import Estimate
from edgecap.units import si, significant

_LEAST_DIVERGENCE = 5e-5  # bits, below which four decimals would read 0.0000


def metric_text(metric: str, value: float, decimals: int = 3) -> str:
    """Format a metric's value: `metric_text("decode_s", 0.0123) == "12.3 ms"`.

    Bits have four decimals; metrics without a unit (capacities, ratios) have `decimals`.
    """
    unit = BY_NAME[metric].unit
    if metric == "divergence_bits" and 0 < value < _LEAST_DIVERGENCE:
        return "<0.0001"
    if unit in ("s", "J", "B", "FLOP", "FLOP/s", "FLOP/J"):
        return si(value, unit)
    if unit in ("bit/s", "bit/J"):
        return si(value)
    if unit:
        return f"{value:.4f}"
    return f"{value:.{decimals}f}" if 0.01 <= abs(value) < 1e4 else significant(value)


def interval_text(metric: str, estimate: Estimate) -> str:
    """Format the 95 % interval, the unit once: `11.9 to 12.6 ms`; empty if there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    low, high = metric_text(metric, estimate.low), metric_text(metric, estimate.high)
    unit = high.partition(" ")[2]
    return f"{low.removesuffix(f' {unit}') if unit else low} to {high}"


def range_text(metric: str, views: Sequence[CellView]) -> str:
    """Format the least and the largest value with their cells; empty if no cell has the metric."""
    values = sorted((x, view.name) for view in views if (x := view.value(metric)) is not None)
    if not values:
        return ""
    low, high = (metric_text(metric, value) for value, _ in (values[0], values[-1]))
    return low if low == high else f"{low} ({values[0][1]}) to {high} ({values[-1][1]})"
