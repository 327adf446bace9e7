"""Build figures as plain values in Plotly's JSON form, each with a text that says the same.

Colours are names of CSS variables ("--s1") that the page resolves in its theme. Cells stand at
whole numbers of an axis, so that two cells of one name stay apart. Names are escaped, because
Plotly reads tags in texts.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.metrics import BY_NAME
from edgecap.record import Estimate
from edgecap.report.metric_text import interval_text, metric_text
from edgecap.units import si

Plot = dict[str, Any]
TALL = 900  # CSS pixels from which a figure scrolls in its frame
FEW = 8  # cells that can have a colour each
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "triangle-down")


class Figure(NamedTuple):
    """A figure with its text; a `wide` one has its own row.

    `plot` is {"data", "layout"}, or None where `text` says why there is none.
    """

    id: str
    title: str
    text: str
    plot: Plot | None
    wide: bool = False

    @property
    def tall(self) -> bool:
        """Return true if the figure scrolls in its frame."""
        return self.plot is not None and self.plot["layout"]["height"] > TALL


# A line at the ratio 1 of the axis x, which the cells stand beside.
BASELINE = {
    "type": "line",
    "layer": "below",
    "x0": 1,
    "x1": 1,
    "y0": 0,
    "y1": 1,
    "yref": "paper",
    "line": {"color": "--quiet", "width": 1.5, "dash": "dot"},
}


def colour(place: int) -> str:
    """Return the colour of a series."""
    return f"--s{place % FEW + 1}"


def plain(text: str) -> str:
    """Escape tags and entities, which Plotly would interpret."""
    return html.escape(text, quote=False)


def layout(rows: int, x: Plot, y: Plot, per_row: int = 30, series: int = 2, **more: Any) -> Plot:
    """Return a layout as high as its rows need; with a legend from two series on."""
    height = 110 + per_row * rows
    if height > TALL:  # the end of the figure is out of sight, so the numbers stand above
        x = {**x, "side": "top"}
        more |= {"legend": {"y": 1 + 60 / height}} if series > 1 else {}
    return {"height": height, "xaxis": x, "yaxis": y, "hovermode": "closest", **more}


def axis(title: str, unit: str = "", **more: Any) -> Plot:
    """Return a linear axis, with SI prefixes if it has a unit."""
    prefixed = {"tickformat": "~s", "ticksuffix": unit} if unit else {}
    return {"title": {"text": title}, "nticks": 7, **prefixed, **more}


def log_axis(
    title: str, unit: str, data: Sequence[Plot], along: str = "x", room: float = 0.06
) -> Plot:
    """Return a logarithmic axis over the values of the traces, with a few round ticks.

    `room` is the share of its length that is free at either end.
    """
    values = [value for trace in data for value in trace[along] if value and value > 0] or [1.0]
    low, high = (math.log10(end) for end in (min(values), max(values)))
    spare = max(room * (high - low), 0.04)
    low, high = low - spare, high + spare
    ticks = next(
        (few for steps in _STEPS if len(few := _ticks(low, high, steps)) <= _TICKS),
        _ticks(low, high, (1,)),
    )
    texts = [si(tick, unit) if unit or tick >= 1 else f"{tick:g}" for tick in ticks]
    marks = {
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": texts,
        "tickangle": 0,
        "range": [low, high],
    }
    return {"title": {"text": title}, "type": "log", **marks}


_TICKS = 5  # ticks that fit on a phone
_STEPS = (
    (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
    (1, 1.5, 2, 3, 4, 5, 7),
    (1, 2, 3, 5),
    (1, 2, 5),
    (1, 3),
    (1,),
)


def _ticks(low: float, high: float, steps: Sequence[float]) -> list[float]:
    """Return the steps of each decade that lie between two powers of ten."""
    ticks = (
        float(f"{step}e{decade}")
        for decade in range(math.floor(low), math.ceil(high) + 1)
        for step in steps
    )
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def names(views: Sequence[CellView]) -> Plot:
    """Return an axis of cells, the first at the top."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(views))),
        "ticktext": [plain(view.name) for view in views],
        "range": [len(views) - 0.5, -0.5],
        "showgrid": False,
        "zeroline": False,
    }


def dots(name: str, place: int, points: Sequence[tuple[float, float, str]], **more: Any) -> Plot:
    """Return marks at (x, y), each with a text to show when it is pointed at."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [x for x, _, _ in points],
        "y": [y for _, y, _ in points],
        "hovertext": [plain(text) for _, _, text in points],
        "hoverinfo": "text",
        "marker": {"color": colour(place), "symbol": SYMBOLS[place % len(SYMBOLS)], "size": 10},
        **more,
    }


def bars_of_error(estimates: Sequence[Estimate]) -> Plot:
    """Return the 95 % intervals of points on the axis x."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if e.high is None else e.high - e.value for e in estimates],
        "arrayminus": [0.0 if e.low is None else e.value - e.low for e in estimates],
        "thickness": 1.5,
        "width": 4,
    }


def sentence(view: CellView, metric: str) -> str:
    """Return a cell's metric with its interval."""
    value = view.metrics[metric]
    assert isinstance(value, Estimate)
    interval = interval_text(metric, value)
    return f"{view.label}: {BY_NAME[metric].words} {metric_text(metric, value.value)}" + (
        f" ({interval})" if interval else ""
    )


def estimated(views: Sequence[CellView], metric: str) -> list[tuple[int, CellView, Estimate]]:
    """Return the cells that have the metric, each with its place."""
    return [
        (n, view, e)
        for n, view in enumerate(views)
        if isinstance(e := view.metrics[metric], Estimate)
    ]


def series(
    views: Sequence[CellView], metric: str, place: int, offset: float, name: str = ""
) -> Plot | None:
    """Return a metric of all cells with its intervals; None where no cell has it."""
    cells = estimated(views, metric)
    if not cells:
        return None
    points = [(e.value, n + offset, sentence(view, metric)) for n, view, e in cells]
    return dots(
        name or BY_NAME[metric].words,
        place,
        points,
        error_x=bars_of_error([e for _, _, e in cells]),
    )


def offsets(count: int) -> list[float]:
    """Return the places of `count` series within the row of a cell."""
    return [(n - (count - 1) / 2) * 0.6 / max(count, 1) for n in range(count)]
