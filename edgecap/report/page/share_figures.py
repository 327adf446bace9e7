"""Figures of energy a token, its split by domain, and time by operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.verdict import Decision
from edgecap.names import shortened
from edgecap.record import Absent, Energy, Placement
from edgecap.report.metric_text import range_text
from edgecap.report.page.findings import cost_title
from edgecap.report.page.plots import (
    Figure,
    Plot,
    axis,
    colour,
    estimated,
    layout,
    names,
    offsets,
    plain,
    series,
)
from edgecap.units import si, significant

OPERATORS = 7  # operators with a colour; the others share one


def energy(views: Sequence[CellView], decisions: Sequence[Decision]) -> Figure:
    """Plot gross joules a token, or say why there are none.

    Of variants the title has the interval, that of the ratio; a single cell has its own.
    """
    shown = [m for m in ("decode_j", "prefill_j") if estimated(views, m)]
    if not shown:
        return Figure("energy", "No energy was measured", f"The reason: {missing(views)}.", None)
    data = [
        trace
        for n, (m, offset) in enumerate(zip(shown, offsets(len(shown)), strict=True))
        if (trace := series(views, m, n, offset))
    ]
    sources = dict.fromkeys(f"{e.counter} ({e.provenance})" for view in views if (e := view.energy))
    ranges = "; ".join(f"{m.removesuffix('_j')} {range_text(m, views)}" for m in shown)
    text = (
        f"Gross joules a token: {ranges}. Joules from "
        f"{', '.join(shortened(s, 60) for s in sources)}.{_without(views)}"
    )
    plot = {
        "data": data,
        "layout": layout(
            len(views),
            axis("joules a token, gross", "J", rangemode="tozero"),
            names(views),
            40,
            len(data),
        ),
    }
    if len(views) > 1:
        for trace in data:
            trace.pop("error_x")
    return Figure("energy", _energy_title(views, decisions), text, plot)


def _energy_title(views: Sequence[CellView], decisions: Sequence[Decision]) -> str:
    metric = "decode_j" if estimated(views, "decode_j") else "prefill_j"
    says, nobody = (
        "{name} takes {share} of {base}'s joules a token{interval}",
        "No variant surely takes fewer joules a token than {base}",
    )
    title = cost_title(decisions, metric, says, nobody)
    return title or f"A token takes {range_text(metric, views)}"


def missing(views: Sequence[CellView]) -> str:
    """Return each reason for missing joules once."""
    reasons = dict.fromkeys(
        x.measured.energy.reason
        for x in views
        if x.measured and isinstance(x.measured.energy, Absent)
    )
    return "; ".join(shortened(r, 300) for r in reasons) or "no cell was measured"


def _without(views: Sequence[CellView]) -> str:
    """Return a sentence on measured cells without joules."""
    lacking = [x for x in views if x.measured and isinstance(x.measured.energy, Absent)]
    return f" None of {len(lacking)} cells: {missing(lacking)}." if lacking else ""


def split(views: Sequence[CellView]) -> Figure | None:
    """Plot joules of a decoded token by domain of the counter; of an encoder, of a prompt token."""
    cells = [
        (n, view, shares)
        for n, view in enumerate(views)
        if (e := view.energy) and (shares := by_domain(e))
    ]
    if not cells:
        return None
    known = list(dict.fromkeys(d for _, _, shares in cells for d in shares))
    data = []
    for place, domain in enumerate(known):
        points = [(shares.get(domain, 0.0), n, view) for n, view, shares in cells]
        marks = [
            (x, y, f"{view.label}: {shortened(domain, 40)} {si(x, 'J')}") for x, y, view in points
        ]
        data.append(bars(plain(shortened(domain, 30)), place, marks))
    whole = {d: sum(s.get(d, 0.0) for _, _, s in cells) for d in known}
    total = sum(whole.values()) or 1.0
    shares_in_words = ", ".join(
        f"{shortened(d, 30)} {significant(100 * joules / total, 2)} %"
        for d, joules in whole.items()
    )
    x = axis("joules a token, gross", "J", rangemode="tozero")
    plot = {
        "data": data,
        "layout": layout(len(views), x, names(views), series=len(data), barmode="stack"),
    }
    most = max(whole, key=lambda domain: whole[domain])
    title = f"{shortened(most, 30)} takes {significant(100 * whole[most] / total, 2)} % of joules"
    return Figure("split", title, f"Over all cells: {shares_in_words}.", plot)


def by_domain(energy: Energy) -> dict[str, float]:
    """Return the mean joules a token of each domain, of decode where there is any."""
    windows = energy.decode or energy.prefill
    tokens = sum(w.tokens for w in windows) or 1
    known = dict.fromkeys(d for w in windows for d in w.by_domain)
    return {d: sum(w.by_domain.get(d, 0.0) for w in windows) / tokens for d in known}


def bars(name: str, place: int, points: Sequence[tuple[float, float, str]]) -> Plot:
    """Return bars of the length x in the row y."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "x": [x for x, _, _ in points],
        "y": [y for _, y, _ in points],
        "hovertext": [plain(text) for _, _, text in points],
        "hoverinfo": "text",
        "marker": {"color": colour(place), "line": {"color": "--ground", "width": 1}},
    }


# --- operators --------------------------------------------------------------------------------


def operators(views: Sequence[CellView]) -> list[Figure]:
    """Plot the share of time by operator, for decode and prefill."""
    cells = [
        (view, p.operators)
        for view in views
        if view.measured and isinstance(p := view.measured.placement, Placement)
    ]
    figures = [
        f
        for step in ("decode", "prefill")
        if (f := _operators([(x, o[step]) for x, o in cells if o.get(step)], step))
    ]
    hint = "Run edgecap profile --operators for the share of time of each operator."
    title = "The time of operators was not measured"
    return figures or [Figure("operators", title, hint, None)]


def _operators(cells: Sequence[tuple[CellView, dict[str, float]]], step: str) -> Figure | None:
    if not cells:
        return None
    weights: dict[str, float] = {}
    for _, shares in cells:
        for name, share in shares.items():
            weights[name] = weights.get(name, 0.0) + share / len(cells)
    ordered = sorted(weights, key=lambda name: -weights[name])
    shown, rest = ordered[:OPERATORS], ordered[OPERATORS:]
    groups: dict[str, list[str]] = {name: [name] for name in shown} | (
        {f"{len(rest)} others": rest} if rest else {}
    )
    data = [
        _operator(cells, label, members, n) for n, (label, members) in enumerate(groups.items())
    ]
    largest = ", ".join(f"{shortened(name, 40)} {100 * weights[name]:.1f} %" for name in shown[:4])
    x: dict[str, Any] = {
        "title": {"text": "share of operator time"},
        "tickformat": ".0%",
        "range": [0, 1.001],
    }
    plot = {
        "data": data,
        "layout": layout(
            len(cells), x, names([view for view, _ in cells]), series=len(data), barmode="stack"
        ),
    }
    of = "decoding" if step == "decode" else "prefill"
    most = shown[0]
    title = f"{shortened(most, 40)} takes {100 * weights[most]:.0f} % of the operator time of {of}"
    return Figure(f"operators-{step}", title, f"In the mean of the cells: {largest}.", plot)


def _operator(
    cells: Sequence[tuple[CellView, dict[str, float]]], label: str, members: list[str], place: int
) -> Plot:
    sums = [
        (sum(shares.get(m, 0.0) for m in members), n, view)
        for n, (view, shares) in enumerate(cells)
    ]
    name = shortened(label, 30)
    return bars(
        plain(name), place, [(x, n, f"{view.label}: {name} {100 * x:.1f} %") for x, n, view in sums]
    )
