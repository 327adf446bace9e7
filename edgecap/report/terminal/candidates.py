"""Cells of a recommendation as a table: the deciding metric, the limits, and each verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import click

from edgecap.analysis.metrics import BY_NAME, MAIN
from edgecap.analysis.recommend import SHOWN, Candidate, Limit, Recommendation
from edgecap.analysis.recommend.candidates import FIGURES, Held
from edgecap.names import printable
from edgecap.report.format import table
from edgecap.report.metric_text import metric_text
from edgecap.units import si

NAME, LONGEST = 24, 60  # columns of a name's line, characters of it that are shown
_MARKS = {"!": "misses the limit", "~": "the limit is within its noise", "?": "not measured"}
_STATES = {"fits": "fits", "misses": "misses", "not measured": "unknown", "failed": "failed"}


def short(name: str) -> str:
    """Make a name printable and cut the middle of a very long one."""
    name = printable(name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}...{name[-LONGEST // 2 + 3 :]}"


def in_lines(name: str, width: int = NAME) -> str:
    """Wrap a short name for a column of `width`."""
    return "\n".join(textwrap.wrap(short(name), width, break_on_hyphens=False)) or "?"


def amount(limit: Limit) -> str:
    """Format a limit for people."""
    unit = BY_NAME[limit.metric].unit
    return si(limit.most, unit) if unit in ("s", "J", "B") else f"{limit.most:g}"


class _Column(NamedTuple):
    metric: str
    place: int | None  # of its limit
    needed: bool


def _columns(recommendation: Recommendation) -> list[_Column]:
    """Return the deciding metric, the limited ones, and the usual metrics that any cell has."""
    places = {limit.metric: n for n, limit in enumerate(recommendation.limits)}
    measured = {
        name
        for c in recommendation.candidates
        for name, value in c.figures.items()
        if isinstance(value, float)
    }
    names = dict.fromkeys(
        [recommendation.preference.metric, *[n for n in FIGURES if n in places or n in MAIN]]
    )
    return [
        _Column(n, places.get(n), n in places or n == recommendation.preference.metric)
        for n in names
        if n in measured or n in places
    ]


def contenders(recommendation: Recommendation, width: int) -> str:
    """Return one row a cell; drop metrics that do not decide where the terminal is too narrow."""
    columns = _columns(recommendation)
    while True:
        text = _table(recommendation, columns, width)
        spare = [c for c in columns if not c.needed]
        if "\n\n" not in text or not spare:
            return text + _rest(recommendation)
        columns.remove(spare[-1])


def _table(recommendation: Recommendation, columns: Sequence[_Column], width: int) -> str:
    shown = recommendation.candidates[:SHOWN]
    prompt = {c.prompt for c in recommendation.candidates if c.prompt}
    texts = [_column(recommendation, column, shown, prompt) for column in columns]
    limits = [["at most", *[t[2] for t in texts], ""]] if recommendation.limits else []
    rows = [
        [in_lines(c.name), *[t[3 + n] for t in texts], _verdict(recommendation, c)]
        for n, c in enumerate(shown)
    ]
    above, below = (["", *[t[n] for t in texts], ""] for n in (0, 1))
    return (
        table(above, [below, *limits, *rows], width)
        if any(map(str.strip, above))
        else table(below, [*limits, *rows], width)
    )


def _column(
    recommendation: Recommendation, column: _Column, shown: Sequence[Candidate], prompt: set[int]
) -> list[str]:
    """Return two lines of heading, the limit, and the values with their marks."""
    first, _, second = (
        BY_NAME[column.metric].heading.rpartition(" ")
        if column.needed
        else ("", "", BY_NAME[column.metric].heading)
    )
    if column.metric == "prefill_s" and len(prompt) == 1:
        first, second = "prefill", f"{min(prompt)} tokens"
    limit = "" if column.place is None else amount(recommendation.limits[column.place])
    marks = [
        _mark(c.held[column.place]) if column.place is not None and c.held else "" for c in shown
    ]
    room = max(map(len, marks), default=0)
    texts = [
        _figure(c, column.metric) + mark.ljust(room) for c, mark in zip(shown, marks, strict=True)
    ]
    return [first + " " * room, second + " " * room, limit + " " * room, *texts]


def _figure(candidate: Candidate, metric: str) -> str:
    value = candidate.figures.get(metric)
    return (
        metric_text(metric, value)
        if isinstance(value, float)
        else ""
        if candidate.state == "failed"
        else "-"
    )


def _mark(held: Held) -> str:
    if held.state == "not measured":
        return "?"
    return ("!" if held.state == "missed" else "") + ("~" if held.in_noise else "")


def _verdict(recommendation: Recommendation, candidate: Candidate) -> str:
    if candidate is recommendation.best:
        return click.style("best", fg="green")
    if candidate is recommendation.runner_up:
        return "runner-up"
    colour = {"failed": "red", "not measured": "yellow"}.get(candidate.state)
    return click.style(
        "nearest" if candidate is recommendation.nearest else _STATES[candidate.state], fg=colour
    )


def _rest(recommendation: Recommendation) -> str:
    rest = [c.state for c in recommendation.candidates[SHOWN:]]
    if not rest:
        return ""
    counts = [f"{rest.count(state)} {word}" for state, word in _STATES.items() if state in rest]
    return f"\nand {len(rest)} more: {', '.join(counts)} (all of them with --json)"


def legend(recommendation: Recommendation) -> str:
    """Explain the marks that occur in the table."""
    marks = "".join(_mark(h) for c in recommendation.candidates[:SHOWN] for h in c.held)
    return "   ".join(f"{mark} {words}" for mark, words in _MARKS.items() if mark in marks)
