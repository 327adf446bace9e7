"""Figures of the choice: what each variant is worth against what it costs, beside its baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecap.analysis.verdict import Decision, JudgedCell
from edgecap.record import Estimate
from edgecap.report.decision import times_text
from edgecap.report.page.findings import baselines, between, of_least, surely_best, worth_title
from edgecap.report.page.plots import (
    SYMBOLS,
    Figure,
    Plot,
    bars_of_error,
    colour,
    dots,
    layout,
    log_axis,
    plain,
)
from edgecap.report.verdict import WORTH

_LABELLED = 10  # points that a figure has room to name
_COSTS = (
    ("decode_s", "time a decoded token"),
    ("decode_j", "energy a decoded token"),
    ("file_bytes", "file"),
)


def worth_against_cost(decisions: Sequence[Decision]) -> list[Figure]:
    """Plot worth against each cost that was compared, with paired intervals; none without worth."""
    costs = [(*cost, points) for cost in _COSTS if (points := list(_points(decisions, cost[0])))]
    return [
        _figure(decisions, metric, words, points, wide=n == 0 or len(costs) == 2)
        for n, (metric, words, points) in enumerate(costs)
    ]


Point = tuple[int, JudgedCell, Estimate, Estimate]  # place of the decision, option, cost, worth


def _points(decisions: Sequence[Decision], metric: str) -> Iterator[Point]:
    for place, decision in enumerate(decisions):
        for option in decision.options:
            cost, worth = option.against.ratio(metric), option.against.ratio(WORTH)
            if cost and worth:
                yield place, option, cost, worth


def _figure(
    decisions: Sequence[Decision], metric: str, words: str, points: Sequence[Point], wide: bool
) -> Figure:
    named = len(points) <= _LABELLED
    data = [
        _variants(decision, place, [p for p in points if p[0] == place], named, len(decisions) > 1)
        for place, decision in enumerate(decisions)
        if any(p[0] == place for p in points)
    ]
    ends = [_ends(points, 2), _ends(points, 3)]
    x = log_axis(f"{words}, times the baseline's", "", [{"x": ends[0]}], room=0.12)
    y = log_axis("worth, times the baseline's", "", [{"y": ends[1]}], along="y", room=0.12)
    height = {"height": 340 if wide else 380, "shapes": [_level_line()]}
    plot = {"data": [*data, _baseline(named, decisions)], "layout": layout(8, x, y) | height}
    text = (
        "Up and to the left is better; the line is the baseline. The bars are 95 % intervals of the"
        " ratios, of rounds and documents in pairs"
    )
    return Figure(f"worth-{metric}", _title(decisions, metric), f"{text}.", plot, wide)


def _title(decisions: Sequence[Decision], metric: str) -> str:
    if metric == "decode_s":
        return worth_title(decisions, WORTH)
    energy = metric == "decode_j"
    least = (surely_best if energy else of_least)(decisions, metric)
    if least is None:
        takes = "surely takes fewer joules" if energy else "has a smaller file"
        return f"No variant {takes} than {baselines(decisions)}"
    worth = least.found.ratio(WORTH)
    times = f"is worth {times_text(worth.value)} times as much{between(worth)}" if worth else ""
    share = f"{least.share} of {least.baseline}'s"
    head = f"takes {share} joules a token" if energy else f"shrinks the file most, to {share}"
    return f"{least.name} {head}, and {times or 'its worth is unknown'}"


def _ends(points: Sequence[Point], part: int) -> list[float]:
    """Return all values and ends of intervals that an axis must hold, and that of the baseline."""
    estimates = [p[2] if part == 2 else p[3] for p in points]
    values = [end for e in estimates for end in (e.low, e.value, e.high) if end]
    return [1.0, *values]


def _variants(
    decision: Decision, place: int, points: Sequence[Point], named: bool, several: bool
) -> Plot:
    marks = [(cost.value, worth.value, _hover(o, cost, worth)) for _, o, cost, worth in points]
    text = [plain(option.view.name) for _, option, _, _ in points]
    label = {"mode": "markers+text", "text": text, "textposition": _sides(points)} if named else {}
    errors = {
        "error_x": bars_of_error([cost for _, _, cost, _ in points]),
        "error_y": bars_of_error([worth for _, _, _, worth in points]),
    }
    name = plain(f"beside {decision.baseline.name}" if several else "variants")
    marker = {"color": colour(place), "symbol": SYMBOLS[place % len(SYMBOLS)], "size": 10}
    return dots(name, place, marks, marker=marker, cliponaxis=False) | errors | label


def _sides(points: Sequence[Point]) -> list[str]:
    """Name a point above it or below it, in turns from left to right, so that names stay apart."""
    ordered = sorted(range(len(points)), key=lambda n: points[n][2].value)
    sides = {n: ("top right", "bottom right")[place % 2] for place, n in enumerate(ordered)}
    return [sides[n] for n in range(len(points))]


def _hover(option: JudgedCell, cost: Estimate, worth: Estimate) -> str:
    return (
        f"{option.view.label}: worth {times_text(worth.value)}{between(worth)}, "
        f"cost {times_text(cost.value)}{between(cost)}"
    )


def _baseline(named: bool, decisions: Sequence[Decision]) -> Plot:
    names = list(dict.fromkeys(d.baseline.name for d in decisions if d.options))
    name = names[0] if len(names) == 1 else "baselines"
    hollow = {"color": "--ink", "symbol": "circle-open", "size": 11, "line": {"width": 2}}
    label = {"mode": "markers+text", "text": [plain(name)], "textposition": "top right"}
    return dots(plain(name), 0, [(1.0, 1.0, name)], marker=hollow) | (label if named else {})


def _level_line() -> Plot:
    line = {"color": "--quiet", "width": 1.5, "dash": "dot"}
    place = {"x0": 0, "x1": 1, "y0": 1, "y1": 1, "xref": "paper", "yref": "y"}
    return {"type": "line", "line": line, "layer": "below", **place}
