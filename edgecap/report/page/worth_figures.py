"""Figures of capacity, of capacity against cost, and of the distance from fp32 against size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.metrics import BY_NAME, CAPACITIES
from edgecap.analysis.score import scored_energy
from edgecap.analysis.verdict import Decision
from edgecap.names import shortened
from edgecap.record import Absent, Estimate
from edgecap.report.metric_text import interval_text, metric_text, range_text
from edgecap.report.page.findings import capacity_title, compares, differences_by_view
from edgecap.report.page.plots import (
    BASELINE,
    Figure,
    Plot,
    axis,
    bars_of_error,
    dots,
    estimated,
    layout,
    log_axis,
    names,
    offsets,
    plain,
    sentence,
    series,
)


def capacity(views: Sequence[CellView], decisions: Sequence[Decision]) -> Figure:
    """Plot the four capacities, of variants as ratios to their baseline with paired intervals."""
    shown = [m for m in CAPACITIES if estimated(views, m)]
    if not shown:
        reason = next(
            (
                score.reason
                for x in views
                if not isinstance(score := x.metrics["time_capacity"], Estimate)
            ),
            "",
        )
        return Figure(
            "capacity",
            "No cell has a capacity",
            f"The reason: {shortened(reason, 300) or 'no cell was measured'}.",
            None,
        )
    if any(compares(decisions, m) for m in shown):
        return _capacity_ratios(views, decisions, shown)
    data = [
        series(views, m, n, offset)
        for n, (m, offset) in enumerate(zip(shown, offsets(len(shown)), strict=True))
    ]
    text = "; ".join(f"{BY_NAME[m].words} {range_text(m, views)}" for m in shown)
    plot = {
        "data": data,
        "layout": layout(
            len(views), axis("capacity"), names(views), 22 + 12 * len(shown), len(data)
        ),
    }
    caption = (
        f"More is better. {text[0].upper()}{text[1:]}. The bars are 95 % intervals over documents "
        "and rounds."
    )
    return Figure("capacity", _own_capacity(views, shown[-1]), caption, plot, wide=True)


def _own_capacity(views: Sequence[CellView], metric: str) -> str:
    """Say the capacity of one cell, or that cells were not compared."""
    if len(views) == 1:
        return sentence(views[0], metric).replace(":", " has the", 1)
    return f"No two cells compare in {BY_NAME[metric].words}"


def _capacity_ratios(
    views: Sequence[CellView], decisions: Sequence[Decision], shown: Sequence[str]
) -> Figure:
    ratios = differences_by_view(decisions)
    data = []
    for place, (metric, offset) in enumerate(zip(shown, offsets(len(shown)), strict=True)):
        cells = [
            (n, view, ratio)
            for n, view in enumerate(views)
            if (found := ratios.get(id(view))) and (ratio := found.ratio(metric))
        ]
        points = [
            (ratio.value, n + offset, f"{sentence(view, metric)}; {_times(ratio)}")
            for n, view, ratio in cells
        ]
        error = bars_of_error([ratio for _, _, ratio in cells])
        data.append(dots(BY_NAME[metric].words, place, points, error_x=error))
    plot = {
        "data": data,
        "layout": layout(
            len(views),
            axis("capacity, times the baseline's"),
            names(views),
            22 + 12 * len(shown),
            len(data),
            shapes=[BASELINE],
        ),
    }
    text = "; ".join(f"{BY_NAME[m].words} {range_text(m, views)}" for m in shown)
    caption = (
        "More is better; the line is the baseline. The bars are 95 % intervals of the ratios, of "
        f"documents and rounds in pairs. {text[0].upper()}{text[1:]}."
    )
    return Figure("capacity", capacity_title(decisions, shown), caption, plot, wide=True)


def _times(ratio: Estimate) -> str:
    interval = interval_text("worth", ratio)
    span = f" (95 % {interval})" if interval else ""
    return f"{metric_text('worth', ratio.value)} times the baseline's{span}"


# --- capacity against cost --------------------------------------------------------------------

_COSTS = (
    ("decode_s", "seconds a decoded token", "s"),
    ("decode_j", "joules a decoded token", "J"),
    ("file_bytes", "bytes on disk", "B"),
)


def fronts(views: Sequence[CellView]) -> list[Figure]:
    """Plot capacity against each known cost, and mark the cells that no other beats in both."""
    worth = next(
        (m for m in ("information_capacity", "gain_bits_per_token") if estimated(views, m)), ""
    )
    if not worth:
        return [
            Figure(
                "front",
                "No text was scored, so there is no capacity to plot",
                "Capacity against cost needs bits and seconds, joules or bytes of a cell.",
                None,
            )
        ]
    return [
        _front(views, worth, *cost)
        for cost in _COSTS
        if sum(1 for x in views if _both(x, worth, cost[0])) > 1
    ]


def divergence(views: Sequence[CellView]) -> list[Figure]:
    """Plot the distance from fp32 against bytes, if several variants of a model have one."""
    metric, size = "divergence_bits", "file_bytes"
    cells = [(v, (x, y)) for v in views if (x := v.value(size)) and (y := v.value(metric))]
    if len(cells) < 3 or len({v.place for v, _ in cells}) > 1:
        return []
    front = [
        (view, (x, -y)) for view, (x, y) in pareto([(view, (x, -y)) for view, (x, y) in cells])
    ]
    winners = {id(view) for view, _ in front}
    data = _front_line(front)
    for inside, name in ((True, "on the front"), (False, "beaten by another cell")):
        shown = [(v, at) for v, at in cells if (id(v) in winners) == inside]
        points = [(*at, _point(v, metric, size)) for v, at in shown]
        if points:
            data.append(_front_points(name, inside, points, [plain(v.name) for v, _ in shown]))
    caption = (
        "Down and to the left is better. On the front, where no other variant of its size or "
        f"smaller is closer to fp32: {', '.join(view.name for view, _ in front[:12])}."
    )
    across = log_axis("bytes on disk", "B", data, room=0.18)
    up = log_axis(BY_NAME[metric].words, "", data, along="y", room=0.12)
    plot = {"data": data, "layout": layout(8, across, up) | {"height": 380}}
    title = _on_front(len(front), len(cells), "KL from fp32", "bytes on disk")
    return [Figure("front-divergence", title, caption, plot)]


def _on_front(winners: int, cells: int, worth: str, cost: str) -> str:
    if winners == cells:
        return f"No cell beats another in both {worth} and {cost}"
    return f"Another cell beats {cells - winners} of the {cells} cells in both {worth} and {cost}"


def _both(view: CellView, worth: str, cost: str) -> tuple[float, float] | None:
    energy = view.energy
    if cost == "decode_j" and energy is not None and isinstance(scored_energy(energy), Absent):
        return None
    x, y = view.value(cost), view.value(worth)
    return None if x is None or y is None or x <= 0 else (x, y)


def _front(views: Sequence[CellView], worth: str, cost: str, words: str, unit: str) -> Figure:
    cells = [(view, at) for view in views if (at := _both(view, worth, cost))]
    groups: dict[tuple[Any, ...], list[tuple[CellView, tuple[float, float]]]] = {}
    for view, at in cells:
        groups.setdefault(scope(view), []).append((view, at))
    best = [pareto(group) for group in groups.values()]
    data = [trace for front in best for trace in _front_line(front)]
    winners = {id(view) for front in best for view, _ in front}
    for inside, name in ((True, "on the front"), (False, "beaten by another cell")):
        points = [
            (x, y, _point(view, worth, cost))
            for view, (x, y) in cells
            if (id(view) in winners) == inside
        ]
        labels = [plain(view.name) for view, _ in cells if (id(view) in winners) == inside]
        if points:
            data.append(_front_points(name, inside, points, labels))
    names_on_front = ", ".join(view.name for front in best for view, _ in front[:12])
    caption = (
        "Up and to the left is better. On the front, where no other cell has more capacity (by "
        f"0.01 %) for less: {names_on_front}."
    )
    height = {"height": 380}
    plot = {
        "data": data,
        "layout": layout(8, log_axis(words, unit, data, room=0.18), axis(BY_NAME[worth].words))
        | height,
    }
    winning = sum(len(front) for front in best)
    title = _on_front(winning, len(cells), BY_NAME[worth].words, words)
    return Figure(f"front-{cost}", title, caption, plot)


def _point(view: CellView, worth: str, cost: str) -> str:
    return f"{sentence(view, worth)}, {metric_text(cost, view.value(cost) or 0.0)}"


def _front_points(
    name: str, inside: bool, points: list[tuple[float, float, str]], labels: list[str]
) -> Plot:
    few = len(points) <= 10
    marker = {
        "color": "--s1" if inside else "--s8",
        "symbol": "circle" if inside else "circle-open",
        "size": 11,
    }
    labelled = (
        {"mode": "markers+text", "text": labels, "textposition": "top center", "cliponaxis": False}
        if few
        else {}
    )
    return dots(name, 0, points, marker=marker) | labelled


def _front_line(front: list[tuple[CellView, tuple[float, float]]]) -> list[Plot]:
    if len(front) < 2:
        return []
    at = [point for _, point in front]
    line = {"color": "--s1", "width": 1.5, "dash": "dot", "shape": "hv"}
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [x for x, _ in at],
            "y": [y for _, y in at],
            "line": line,
        }
        | {"hoverinfo": "skip", "showlegend": False}
    ]


ROUNDING = 1e-4  # relative difference of capacities that counts as equal


def pareto(
    points: list[tuple[CellView, tuple[float, float]]],
) -> list[tuple[CellView, tuple[float, float]]]:
    """Return the points that no cheaper point matches, from cheap to expensive."""
    front: list[tuple[CellView, tuple[float, float]]] = []
    for view, (cost, worth) in sorted(points, key=lambda p: (p[1][0], -p[1][1])):
        if not front or worth > front[-1][1][1] + ROUNDING * abs(front[-1][1][1]):
            front.append((view, (cost, worth)))
    return front


def scope(view: CellView) -> tuple[Any, ...]:
    """Return what must be equal for two capacities to share a front."""
    text, record = view.compression, view.record
    return (
        record.corpus.sha256,
        record.corpus.bias_bits,
        text and (text.protocol, text.context, text.stride),
    )
