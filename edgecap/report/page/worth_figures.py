"""Figures of capacity, capacity against cost, and bits per byte by domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecap import stats
from edgecap.analysis.cell_view import CellView
from edgecap.analysis.metrics import BY_NAME, CAPACITIES
from edgecap.analysis.score import scored_energy
from edgecap.names import shortened
from edgecap.record import Absent, Estimate, Profile
from edgecap.report.metric_text import metric_text, range_text
from edgecap.report.page.plots import (
    FEW,
    Figure,
    Plot,
    axis,
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


def capacity(views: Sequence[CellView]) -> Figure:
    """Plot the four capacities of each cell with their intervals."""
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
            "Capacity",
            f"No cell has a capacity: {shortened(reason, 300) or 'no cell was measured'}.",
            None,
        )
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
    return Figure("capacity", "Capacity, with 95 % intervals", caption, plot, wide=True)


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
                "Capacity against cost",
                "No text was scored, so there is no capacity to plot.",
                None,
            )
        ]
    figures = [
        _front(views, worth, *cost)
        for cost in _COSTS
        if any(_both(x, worth, cost[0]) for x in views)
    ]
    return [*figures, *_divergence(views)]


def _divergence(views: Sequence[CellView]) -> list[Figure]:
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
    return [Figure("front-divergence", "KL from fp32 against bytes on disk", caption, plot)]


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
    return Figure(
        f"front-{cost}", f"{BY_NAME[worth].words.capitalize()} against {words}", caption, plot
    )


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


# --- text by domain ---------------------------------------------------------------------------


def domains(views: Sequence[CellView]) -> Figure:
    """Plot bits per byte of each domain: marks of a few cells, a map of many."""
    cells = [(view, c.by_domain) for view in views if (c := view.compression)]
    known = list(dict.fromkeys(name for _, by_domain in cells for name in by_domain))
    title = "Bits per byte by domain"
    if not cells or not known:
        return Figure("domains", title, "No text was scored.", None)
    data, x, y, rows = _marks(cells, known) if len(cells) <= FEW else _map(cells, known)
    means = {
        d: stats.median([by_domain[d].bits_per_byte for _, by_domain in cells if d in by_domain])
        for d in known
    }
    ordered = sorted(means, key=lambda d: means[d])
    easy, hard = (f"{shortened(d, 40)} ({means[d]:.3f})" for d in (ordered[0], ordered[-1]))
    middle = "" if len(cells) == 1 else ", in the median of the cells"
    caption = (
        f"Less is better. Easiest is {easy}, hardest "
        f"{hard}{middle}.{_compressors(cells[0][0].record)}"
    )
    plot = {
        "data": data,
        "layout": layout(rows, x, y, 30 if len(cells) > FEW else 22 + 10 * len(cells), len(data)),
    }
    return Figure("domains", title, caption, plot, wide=True)


def _compressors(record: Profile) -> str:
    """Return bits per byte of general compressors on the whole corpus."""
    rates = ", ".join(
        f"{shortened(n, 20)} {b.bits_per_byte:.3f}" for n, b in record.corpus.baselines.items()
    )
    return f" The whole text in one piece: {rates} bits per byte." if rates else ""


def _marks(
    cells: Sequence[tuple[CellView, Any]], known: list[str]
) -> tuple[list[Plot], Plot, Plot, int]:
    data = []
    for n, ((view, by_domain), offset) in enumerate(zip(cells, offsets(len(cells)), strict=True)):
        at = [(d, known.index(d), by_domain[d].bits_per_byte) for d in known if d in by_domain]
        points = [
            (x, y + offset, f"{view.label}, {shortened(d, 60)}: {x:.4f} bits per byte")
            for d, y, x in at
        ]
        data.append(dots(plain(view.name), n, points))
    y = {
        "tickmode": "array",
        "tickvals": list(range(len(known))),
        "ticktext": [plain(shortened(d, 22)) for d in known],
    }
    grid = {"range": [len(known) - 0.5, -0.5], "showgrid": False, "zeroline": False}
    return data, axis("bits per byte", rangemode="tozero"), y | grid, len(known)


def _map(
    cells: Sequence[tuple[CellView, Any]], known: list[str]
) -> tuple[list[Plot], Plot, Plot, int]:
    values = [
        [by_domain[d].bits_per_byte if d in by_domain else None for d in known]
        for _, by_domain in cells
    ]
    hover = [
        [
            f"{plain(view.label)}, {plain(shortened(d, 60))}: {v:.4f}" if v is not None else ""
            for d, v in zip(known, row, strict=True)
        ]
        for (view, _), row in zip(cells, values, strict=True)
    ]
    trace = {
        "type": "heatmap",
        "z": values,
        "hovertext": hover,
        "hoverinfo": "text",
        "colorscale": [[0, "--heat-low"], [1, "--heat-high"]],
        "colorbar": {
            "title": {"text": "bits/byte"},
            "thickness": 12,
            "len": 300,
            "lenmode": "pixels",
            "y": 1,
            "yanchor": "top",
        },
        "texttemplate": "%{z:.2f}",
    }
    x = {
        "tickmode": "array",
        "tickvals": list(range(len(known))),
        "ticktext": [plain(shortened(d, 22)) for d in known],
        "side": "top",
    }
    return [trace], x, names([view for view, _ in cells]), len(cells)
