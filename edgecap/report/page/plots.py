"""What figures are made of: plain values in Plotly's JSON form, and the text that says the same in words and numbers.

Colours are names of CSS variables ("--s1"), which the page resolves in its theme. Cells stand at whole numbers of an
axis, so that equal names stay two cells; names are escaped, because Plotly reads tags in texts.
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
TALL = 900  # CSS pixels from where a figure scrolls in its frame
FEW = 8  # cells that can have a colour each
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "triangle-down")


class Figure(NamedTuple):
    """A figure: `plot` is {"data", "layout"}, or None where `text` says why there is none; a `wide` one has its own row."""

    id: str
    title: str
    text: str
    plot: Plot | None
    wide: bool = False

    @property
    def tall(self) -> bool:
        """Whether it scrolls in its frame, rather than making the page endless."""
        return self.plot is not None and self.plot["layout"]["height"] > TALL


def colour(place: int) -> str:
    """The colour of a series."""
    return f"--s{place % FEW + 1}"


def plain(text: str) -> str:
    """A text as Plotly shows it as it is: its tags and entities mean nothing."""
    return html.escape(text, quote=False)


def layout(rows: int, x: Plot, y: Plot, per_row: int = 30, series: int = 2, **more: Any) -> Plot:
    """A layout as high as its rows need; of less than two series there is no legend."""
    height = 110 + per_row * rows
    if (
        height > TALL
    ):  # the numbers stand above, since whoever scrolls through it does not see its end
        x = {**x, "side": "top"}
        more |= {"legend": {"y": 1 + 60 / height}} if series > 1 else {}
    return {"height": height, "xaxis": x, "yaxis": y, "hovermode": "closest", **more}


def axis(title: str, unit: str = "", **more: Any) -> Plot:
    """An axis of numbers, with SI prefixes where they have a unit."""
    prefixed = {"tickformat": "~s", "ticksuffix": unit} if unit else {}
    return {"title": {"text": title}, "nticks": 7, **prefixed, **more}


def log_axis(
    title: str, unit: str, data: Sequence[Plot], along: str = "x", room: float = 0.06
) -> Plot:
    """A logarithmic axis over what the traces have, with `room` of its length at either end and a handful of round ticks."""
    values = [value for trace in data for value in trace[along] if value and value > 0] or [1.0]
    low, high = (math.log10(end) for end in (min(values), max(values)))
    spare = max(room * (high - low), 0.04)
    low, high = low - spare, high + spare
    ticks = next(
        (found for steps in _STEPS if len(found := _ticks(low, high, steps)) <= _TICKS),
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


_TICKS = 5  # that a phone has room for
_STEPS = (
    (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
    (1, 1.5, 2, 3, 4, 5, 7),
    (1, 2, 3, 5),
    (1, 2, 5),
    (1, 3),
    (1,),
)


def _ticks(low: float, high: float, steps: Sequence[float]) -> list[float]:
    """The steps of each decade that lie between two powers of ten."""
    found = (
        float(f"{step}e{decade}")
        for decade in range(math.floor(low), math.ceil(high) + 1)
        for step in steps
    )
    return [tick for tick in found if low <= math.log10(tick) <= high]


def names(lines: Sequence[CellView]) -> Plot:
    """An axis of cells, the first above."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(lines))),
        "ticktext": [plain(line.name) for line in lines],
        "range": [len(lines) - 0.5, -0.5],
        "showgrid": False,
        "zeroline": False,
    }


def dots(name: str, place: int, points: Sequence[tuple[float, float, str]], **more: Any) -> Plot:
    """Marks at (x, y), each with a text that is read when it is pointed at."""
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


def bars_of_error(found: Sequence[Estimate]) -> Plot:
    """The 95 % intervals of points on the axis x."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if e.high is None else e.high - e.value for e in found],
        "arrayminus": [0.0 if e.low is None else e.value - e.low for e in found],
        "thickness": 1.5,
        "width": 4,
    }


def sentence(line: CellView, metric: str) -> str:
    """A cell's figure with its interval."""
    found = line.metrics[metric]
    assert isinstance(found, Estimate)
    sure = interval_text(metric, found)
    return f"{line.label}: {BY_NAME[metric].words} {metric_text(metric, found.value)}" + (
        f" ({sure})" if sure else ""
    )


def estimated(lines: Sequence[CellView], metric: str) -> list[tuple[int, CellView, Estimate]]:
    """The cells that have the metric, each with its place."""
    return [
        (n, line, e)
        for n, line in enumerate(lines)
        if isinstance(e := line.metrics[metric], Estimate)
    ]


def series(
    lines: Sequence[CellView], metric: str, place: int, offset: float, name: str = ""
) -> Plot | None:
    """A metric of all cells with its intervals; None where no cell has it."""
    had = estimated(lines, metric)
    if not had:
        return None
    points = [(e.value, n + offset, sentence(line, metric)) for n, line, e in had]
    return dots(
        name or BY_NAME[metric].words, place, points, error_x=bars_of_error([e for _, _, e in had])
    )


def offsets(count: int) -> list[float]:
    """Where `count` series stand within the row of a cell."""
    return [(n - (count - 1) / 2) * 0.6 / max(count, 1) for n in range(count)]
