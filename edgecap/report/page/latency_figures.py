"""Figures of latency: its distribution, and its growth with the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgecap import stats
from edgecap.analysis.cell_view import CellView
from edgecap.record import Decode, Latency, Prefill
from edgecap.report.page.findings import decode_growth, prefill_growth
from edgecap.report.page.plots import (
    FEW,
    Figure,
    Plot,
    axis,
    colour,
    dots,
    layout,
    log_axis,
    names,
    plain,
)
from edgecap.units import si, significant


def distribution(views: Sequence[CellView]) -> Figure:
    """Plot the distribution of single decoded tokens; of encoders, of prompts."""
    cells = [(view, part) for view in views if (part := timed(view))]
    if not cells:
        return Figure("distribution", "No cell was timed", "There are no samples to show.", None)
    decodes = any(isinstance(part, Decode) for _, part in cells)
    words = "a decoded token" if decodes else "a prompt"
    data, y = _curves(cells) if len(cells) <= FEW else _boxes(cells)
    height = {"height": 380} if len(cells) <= FEW else {}
    quantiles = "; ".join(f"{view.name} {_quantiles(part.samples_s)}" for view, part in cells[:FEW])
    more = f"; {len(cells) - FEW} more in the table of latencies" if len(cells) > FEW else ""
    kind = (
        "Each curve is the share of the samples that took at most that long"
        if len(cells) <= FEW
        else _BOXES
    )
    shown = [
        {"x": [q for _, p in cells for q in (min(p.samples_s), stats.quantile(p.samples_s, 0.99))]}
    ]
    plot = {
        "data": data,
        "layout": layout(
            len(cells), log_axis(f"seconds of {words}", "s", shown), y, series=len(data)
        )
        | height,
    }
    return Figure(
        "distribution",
        _tail(cells, "tokens" if decodes else "prompts"),
        f"{kind}. The axis ends a little beyond the 99th percentile. Median, 99th percentile and "
        f"longest: {quantiles}{more}.",
        plot,
        wide=True,
    )


_BOXES = (
    "Each box holds the middle half of the samples, its line the median, the whiskers 1 % to 99 %"
)


def timed(view: CellView) -> Decode | Prefill | None:
    """Return the samples of decode, or of prefill where nothing is decoded."""
    latency = view.latency
    if not isinstance(latency, Latency):
        return None
    return latency.decode if isinstance(latency.decode, Decode) else latency.prefill


_EVEN = 1.05  # times the median that a slow token may take and be called even


def _tail(cells: Sequence[tuple[CellView, Decode | Prefill]], words: str) -> str:
    """Say how far the slowest hundredth of the samples is from the median."""
    times = [
        stats.quantile(part.samples_s, 0.99) / stats.quantile(part.samples_s, 0.5)
        for _, part in cells
    ]
    if max(times) <= _EVEN:
        return f"The slowest hundredth of {words} takes hardly longer than the median"
    span = " to ".join(dict.fromkeys(significant(value, 2) for value in (min(times), max(times))))
    return f"The slowest hundredth of {words} takes at least {span} times the median"


def _quantiles(samples: tuple[float, ...]) -> str:
    return ", ".join(si(stats.quantile(samples, share), "s") for share in (0.5, 0.99, 1.0))


def _curves(cells: Sequence[tuple[CellView, Decode | Prefill]]) -> tuple[list[Plot], Plot]:
    shares = [n / 100 for n in range(101)]
    data = []
    for n, (view, part) in enumerate(cells):
        at = [stats.quantile(part.samples_s, share) for share in shares]
        hover = [
            plain(f"{view.label}: {share:.0%} within {si(x, 's')}")
            for share, x in zip(shares, at, strict=True)
        ]
        dash = ("solid", "dash", "dot", "dashdot")[n % 4]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": plain(view.name),
                "x": at,
                "y": shares,
                "hovertext": hover,
            }
            | {"hoverinfo": "text", "line": {"color": colour(n), "width": 2.5, "dash": dash}}
        )
    return data, {"title": {"text": "share of samples"}, "tickformat": ".0%", "range": [0, 1.01]}


def _boxes(cells: Sequence[tuple[CellView, Decode | Prefill]]) -> tuple[list[Plot], Plot]:
    at = {
        share: [stats.quantile(p.samples_s, share) for _, p in cells]
        for share in (0.01, 0.25, 0.5, 0.75, 0.99)
    }
    box = {
        "type": "box",
        "orientation": "h",
        "y": list(range(len(cells))),
        "lowerfence": at[0.01],
        "q1": at[0.25],
        "median": at[0.5],
        "q3": at[0.75],
        "upperfence": at[0.99],
        "line": {"color": "--s1", "width": 1.5},
        "showlegend": False,
    }
    return [box], names([view for view, _ in cells])


# --- growth -----------------------------------------------------------------------------------


def growth(views: Sequence[CellView]) -> list[Figure]:
    """Plot seconds at each context for a few cells; refer to the table for many."""
    cells = [(view, x.sweep) for view in views if (x := view.latency) and x.sweep]
    if not cells:
        return []
    if len(cells) > FEW:
        title = f"{len(cells)} cells were timed at several contexts"
        return [Figure("growth", title, "The table of growth under Raw numbers has them.", None)]
    steps: list[tuple[str, str, Callable[[Any], tuple[float, ...]]]] = [
        ("prefill", "a prompt", lambda p: p.prefill_s),
        ("decode", "a decoded token", lambda p: p.decode_s),
    ]
    return [figure for step in steps if (figure := _growth(cells, *step))]


def _growth(
    cells: Sequence[tuple[CellView, Any]],
    name: str,
    words: str,
    read: Callable[[Any], tuple[float, ...]],
) -> Figure | None:
    data, ranges = [], []
    for n, (view, sweep) in enumerate(cells):
        points = [(float(p.context), stats.median(read(p))) for p in sweep if read(p)]
        if not points:
            continue
        marks = [(x, y, f"{view.label}, context {x:.0f}: {si(y, 's')}") for x, y in points]
        data.append(
            dots(
                plain(view.name),
                n,
                marks,
                mode="lines+markers",
                line={"color": colour(n), "width": 2},
            )
        )
        ends = dict.fromkeys(f"{si(y, 's')} at {x:.0f}" for x, y in (points[0], points[-1]))
        ranges.append(f"{view.name} {' to '.join(ends)} tokens")
    if not data:
        return None
    contexts = sorted({p.context for _, sweep in cells for p in sweep})
    x = {
        "title": {"text": "context, tokens"},
        "type": "log",
        "tickmode": "array",
        "tickvals": contexts,
    }
    y = axis("seconds", "s", rangemode="tozero")
    plot = {"data": data, "layout": layout(8, x, y) | {"height": 360}}
    text = f"Medians of {words}: {'; '.join(ranges)}."
    return Figure(f"growth-{name}", _grows(name, cells, read), text, plot)


def _grows(
    name: str, cells: Sequence[tuple[CellView, Any]], read: Callable[[Any], tuple[float, ...]]
) -> str:
    timed = [points for _, sweep in cells if (points := [p for p in sweep if read(p)])]
    return prefill_growth(timed) if name == "prefill" else decode_growth(timed)
