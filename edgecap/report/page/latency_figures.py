"""Figures of how long cells take: how the latency of a token spreads, and how it grows with the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgecap import stats
from edgecap.analysis.cell_view import CellView
from edgecap.analysis.outcomes import latency_of
from edgecap.record import Decode, Latency, Prefill
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
from edgecap.units import si


def distribution(lines: Sequence[CellView]) -> Figure:
    """How the seconds of single decoded tokens spread; of encoders, those of prompts."""
    had = [(line, part) for line in lines if (part := timed(line))]
    if not had:
        return Figure("distribution", "Decode latency", "No cell was timed.", None)
    decodes = any(isinstance(part, Decode) for _, part in had)
    words = "a decoded token" if decodes else "a prompt"
    data, y = _curves(had) if len(had) <= FEW else _boxes(had)
    height = {"height": 380} if len(had) <= FEW else {}
    told = "; ".join(f"{line.name} {_quantiles(part.samples_s)}" for line, part in had[:FEW])
    more = f"; {len(had) - FEW} more in the table of latencies" if len(had) > FEW else ""
    kind = (
        "Each curve tells which share of the samples took at most so long"
        if len(had) <= FEW
        else _BOXES
    )
    shown = [
        {"x": [q for _, p in had for q in (min(p.samples_s), stats.quantile(p.samples_s, 0.99))]}
    ]
    plot = {
        "data": data,
        "layout": layout(len(had), log_axis(f"seconds of {words}", "s", shown), y, series=len(data))
        | height,
    }
    title = f"Latency of {words}: distribution"
    return Figure(
        "distribution",
        title,
        f"{kind}. The axis ends a little beyond the 99th percentile. Median, 99th percentile and longest: {told}{more}.",
        plot,
        wide=True,
    )


_BOXES = (
    "Each box holds the middle half of the samples, its line the median, the whiskers 1 % to 99 %"
)


def timed(line: CellView) -> Decode | Prefill | None:
    """The samples of decoding, or of prefill where nothing is decoded."""
    found = latency_of(line.cell)
    if not isinstance(found, Latency):
        return None
    return found.decode if isinstance(found.decode, Decode) else found.prefill


def _quantiles(samples: tuple[float, ...]) -> str:
    return ", ".join(si(stats.quantile(samples, share), "s") for share in (0.5, 0.99, 1.0))


def _curves(had: Sequence[tuple[CellView, Decode | Prefill]]) -> tuple[list[Plot], Plot]:
    shares = [n / 100 for n in range(101)]
    data = []
    for n, (line, part) in enumerate(had):
        at = [stats.quantile(part.samples_s, share) for share in shares]
        said = [
            plain(f"{line.label}: {share:.0%} within {si(x, 's')}")
            for share, x in zip(shares, at, strict=True)
        ]
        dash = ("solid", "dash", "dot", "dashdot")[n % 4]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": plain(line.name),
                "x": at,
                "y": shares,
                "hovertext": said,
            }
            | {"hoverinfo": "text", "line": {"color": colour(n), "width": 2.5, "dash": dash}}
        )
    return data, {"title": {"text": "share of samples"}, "tickformat": ".0%", "range": [0, 1.01]}


def _boxes(had: Sequence[tuple[CellView, Decode | Prefill]]) -> tuple[list[Plot], Plot]:
    at = {
        share: [stats.quantile(p.samples_s, share) for _, p in had]
        for share in (0.01, 0.25, 0.5, 0.75, 0.99)
    }
    box = {
        "type": "box",
        "orientation": "h",
        "y": list(range(len(had))),
        "lowerfence": at[0.01],
        "q1": at[0.25],
        "median": at[0.5],
        "q3": at[0.75],
        "upperfence": at[0.99],
        "line": {"color": "--s1", "width": 1.5},
        "showlegend": False,
    }
    return [box], names([line for line, _ in had])


# --- growth -----------------------------------------------------------------------------------


def growth(lines: Sequence[CellView]) -> list[Figure]:
    """Seconds at each context that was timed; of a few cells, since of many the table tells more."""
    had = [(line, x.sweep) for line in lines if (x := latency_of(line.cell)) and x.sweep]
    if not had:
        return []
    if len(had) > FEW:
        text = f"{len(had)} cells were timed at several contexts: the table of growth under Raw numbers has them."
        return [Figure("growth", "Growth with the context", text, None)]
    steps: list[tuple[str, str, Callable[[Any], tuple[float, ...]]]] = [
        ("prefill", "a prompt", lambda p: p.prefill_s),
        ("decode", "a decoded token", lambda p: p.decode_s),
    ]
    return [found for step in steps if (found := _growth(had, *step))]


def _growth(
    had: Sequence[tuple[CellView, Any]],
    name: str,
    words: str,
    read: Callable[[Any], tuple[float, ...]],
) -> Figure | None:
    data, told = [], []
    for n, (line, sweep) in enumerate(had):
        points = [(float(p.context), stats.median(read(p))) for p in sweep if read(p)]
        if not points:
            continue
        said = [(x, y, f"{line.label}, context {x:.0f}: {si(y, 's')}") for x, y in points]
        data.append(
            dots(
                plain(line.name),
                n,
                said,
                mode="lines+markers",
                line={"color": colour(n), "width": 2},
            )
        )
        told.append(f"{line.name} {si(points[0][1], 's')} to {si(points[-1][1], 's')}")
    if not data:
        return None
    contexts = sorted({p.context for _, sweep in had for p in sweep})
    x = {
        "title": {"text": "context, tokens"},
        "type": "log",
        "tickmode": "array",
        "tickvals": contexts,
    }
    y = axis("seconds", "s", rangemode="tozero")
    plot = {"data": data, "layout": layout(8, x, y) | {"height": 360}}
    text = f"Medians of {words}, from {contexts[0]} to {contexts[-1]}: {'; '.join(told)}."
    return Figure(f"growth-{name}", f"Seconds of {words} against the context", text, plot)
