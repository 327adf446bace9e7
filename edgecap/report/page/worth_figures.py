"""Figures of what cells are worth: their capacities, capacity against cost, and bits per byte by domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecap import stats
from edgecap.analysis.cell_view import CellView
from edgecap.analysis.metrics import BY_NAME, CAPACITIES
from edgecap.analysis.outcomes import compression_of, energy_of
from edgecap.analysis.score import scored_energy
from edgecap.record import Absent, Estimate, Profile
from edgecap.report.cells import shortened
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


def capacity(lines: Sequence[CellView]) -> Figure:
    """The four capacities of each cell, with their intervals."""
    shown = [m for m in CAPACITIES if estimated(lines, m)]
    if not shown:
        reason = next(
            (
                found.reason
                for x in lines
                if not isinstance(found := x.metrics["time_capacity"], Estimate)
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
        series(lines, m, n, offset)
        for n, (m, offset) in enumerate(zip(shown, offsets(len(shown)), strict=True))
    ]
    text = "; ".join(f"{BY_NAME[m].words} {range_text(m, lines)}" for m in shown)
    plot = {
        "data": data,
        "layout": layout(
            len(lines), axis("capacity"), names(lines), 22 + 12 * len(shown), len(data)
        ),
    }
    told = f"More is better. {text[0].upper()}{text[1:]}. The bars are 95 % intervals over documents and rounds."
    return Figure("capacity", "Capacity, with 95 % intervals", told, plot, wide=True)


# --- capacity against cost --------------------------------------------------------------------

_COSTS = (
    ("decode_s", "seconds a decoded token", "s"),
    ("decode_j", "joules a decoded token", "J"),
    ("file_bytes", "bytes on disk", "B"),
)


def fronts(lines: Sequence[CellView]) -> list[Figure]:
    """Capacity against each cost that is known, with the cells that no other beats in both."""
    worth = next(
        (m for m in ("information_capacity", "gain_bits_per_token") if estimated(lines, m)), ""
    )
    if not worth:
        return [
            Figure(
                "front",
                "Capacity against cost",
                "No text was scored, so that nothing stands against cost.",
                None,
            )
        ]
    return [
        _front(lines, worth, *cost)
        for cost in _COSTS
        if any(_both(x, worth, cost[0]) for x in lines)
    ]


def _both(line: CellView, worth: str, cost: str) -> tuple[float, float] | None:
    energy = energy_of(line.cell)
    if cost == "decode_j" and energy is not None and isinstance(scored_energy(energy), Absent):
        return None
    x, y = line.value(cost), line.value(worth)
    return None if x is None or y is None or x <= 0 else (x, y)


def _front(lines: Sequence[CellView], worth: str, cost: str, words: str, unit: str) -> Figure:
    had = [(line, at) for line in lines if (at := _both(line, worth, cost))]
    groups: dict[tuple[Any, ...], list[tuple[CellView, tuple[float, float]]]] = {}
    for line, at in had:
        groups.setdefault(scope(line), []).append((line, at))
    best = [pareto(group) for group in groups.values()]
    data = [trace for front in best for trace in _front_line(front)]
    winners = {id(line) for front in best for line, _ in front}
    for inside, name in ((True, "on the front"), (False, "beaten by another cell")):
        points = [
            (x, y, _point(line, worth, cost))
            for line, (x, y) in had
            if (id(line) in winners) == inside
        ]
        labels = [plain(line.name) for line, _ in had if (id(line) in winners) == inside]
        if points:
            data.append(_front_points(name, inside, points, labels))
    on = ", ".join(line.name for front in best for line, _ in front[:12])
    told = f"Up and to the left is better. On the front, where no other cell has more capacity (by 0.01 %) for less: {on}."
    height = {"height": 380}
    plot = {
        "data": data,
        "layout": layout(8, log_axis(words, unit, data, room=0.18), axis(BY_NAME[worth].words))
        | height,
    }
    return Figure(
        f"front-{cost}", f"{BY_NAME[worth].words.capitalize()} against {words}", told, plot
    )


def _point(line: CellView, worth: str, cost: str) -> str:
    return f"{sentence(line, worth)}, {metric_text(cost, line.value(cost) or 0.0)}"


def _front_points(
    name: str, inside: bool, points: list[tuple[float, float, str]], labels: list[str]
) -> Plot:
    few = len(points) <= 10
    marker = {
        "color": "--s1" if inside else "--s8",
        "symbol": "circle" if inside else "circle-open",
        "size": 11,
    }
    said = (
        {"mode": "markers+text", "text": labels, "textposition": "top center", "cliponaxis": False}
        if few
        else {}
    )
    return dots(name, 0, points, marker=marker) | said


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


ROUNDING = 1e-4  # of a capacity: what variants that predict alike may differ by


def pareto(
    points: list[tuple[CellView, tuple[float, float]]],
) -> list[tuple[CellView, tuple[float, float]]]:
    """Those that none costs less than and is worth as much, from cheap to dear."""
    found: list[tuple[CellView, tuple[float, float]]] = []
    for line, (cost, worth) in sorted(points, key=lambda p: (p[1][0], -p[1][1])):
        if not found or worth > found[-1][1][1] + ROUNDING * abs(found[-1][1][1]):
            found.append((line, (cost, worth)))
    return found


def scope(line: CellView) -> tuple[Any, ...]:
    """What must be alike for two capacities to stand in one front."""
    text, record = compression_of(line.cell), line.record
    return (
        record.corpus.sha256,
        record.corpus.bias_bits,
        text and (text.protocol, text.context, text.stride),
    )


# --- text by domain ---------------------------------------------------------------------------


def domains(lines: Sequence[CellView]) -> Figure:
    """Bits per byte of each domain of the corpus: marks of a few cells, a map of many."""
    had = [(line, c.by_domain) for line in lines if (c := compression_of(line.cell))]
    known = list(dict.fromkeys(name for _, found in had for name in found))
    title = "Bits per byte by domain"
    if not had or not known:
        return Figure("domains", title, "No text was scored.", None)
    data, x, y, rows = _marks(had, known) if len(had) <= FEW else _map(had, known)
    means = {
        d: stats.median([found[d].bits_per_byte for _, found in had if d in found]) for d in known
    }
    ordered = sorted(means, key=lambda d: means[d])
    easy, hard = (f"{shortened(d, 40)} ({means[d]:.3f})" for d in (ordered[0], ordered[-1]))
    middle = "" if len(had) == 1 else ", in the median of the cells"
    told = f"Less is better. Easiest is {easy}, hardest {hard}{middle}.{_compressors(had[0][0].record)}"
    plot = {
        "data": data,
        "layout": layout(rows, x, y, 30 if len(had) > FEW else 22 + 10 * len(had), len(data)),
    }
    return Figure("domains", title, told, plot, wide=True)


def _compressors(record: Profile) -> str:
    """What general compressors make of the whole corpus."""
    found = ", ".join(
        f"{shortened(n, 20)} {b.bits_per_byte:.3f}" for n, b in record.corpus.baselines.items()
    )
    return f" The whole text in one piece: {found} bits per byte." if found else ""


def _marks(
    had: Sequence[tuple[CellView, Any]], known: list[str]
) -> tuple[list[Plot], Plot, Plot, int]:
    data = []
    for n, ((line, found), offset) in enumerate(zip(had, offsets(len(had)), strict=True)):
        at = [(d, known.index(d), found[d].bits_per_byte) for d in known if d in found]
        points = [
            (x, y + offset, f"{line.label}, {shortened(d, 60)}: {x:.4f} bits per byte")
            for d, y, x in at
        ]
        data.append(dots(plain(line.name), n, points))
    y = {
        "tickmode": "array",
        "tickvals": list(range(len(known))),
        "ticktext": [plain(shortened(d, 22)) for d in known],
    }
    grid = {"range": [len(known) - 0.5, -0.5], "showgrid": False, "zeroline": False}
    return data, axis("bits per byte", rangemode="tozero"), y | grid, len(known)


def _map(
    had: Sequence[tuple[CellView, Any]], known: list[str]
) -> tuple[list[Plot], Plot, Plot, int]:
    values = [[found[d].bits_per_byte if d in found else None for d in known] for _, found in had]
    said = [
        [
            f"{plain(line.label)}, {plain(shortened(d, 60))}: {v:.4f}" if v is not None else ""
            for d, v in zip(known, row, strict=True)
        ]
        for (line, _), row in zip(had, values, strict=True)
    ]
    trace = {
        "type": "heatmap",
        "z": values,
        "hovertext": said,
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
    return [trace], x, names([line for line, _ in had]), len(had)
