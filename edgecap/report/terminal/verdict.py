"""The verdict on a record in the terminal: the sentence and the table that it begins with."""

from __future__ import annotations

import textwrap
from collections.abc import Container, Sequence
from functools import lru_cache
from typing import NamedTuple

import click

from edgecap.analysis.cell_view import cell_views
from edgecap.names import printable
from edgecap.record import Profile
from edgecap.report.decision import BETTER, KEEP, LEVEL, SHIP, DecisionCell, DecisionTable
from edgecap.report.format import column_widths, table, total_width
from edgecap.report.verdict import Verdict, verdicts

COLOURS = {"better": "green", "worse": "red", "unknown": "yellow", "failed": "red"}
_MARKS = COLOURS | dict.fromkeys((SHIP, KEEP, BETTER, LEVEL), "green")
# Columns that are left out in this order where the table is too wide.
_LEAST_NEEDED = (
    *("device_peak_bytes", "peak_bytes", "prefill_j", "decode_j", "file_bytes"),
    "effective_flops",
)


PROSE = 100  # columns that sentences are wrapped at on a wider terminal


class Opening(NamedTuple):
    """The lines that a record begins with, and the metrics that their table has as they are."""

    lines: list[str]
    shown: frozenset[str]


def opening(record: Profile, width: int) -> Opening:
    """Return the sentence, what may change it, and the table; nothing without a choice."""
    found = verdicts(cell_views([record]))
    lines = [line for verdict in found for line in _sentence(verdict, min(width, PROSE))]
    decision = found[0].table if found else None
    if decision is None:
        return Opening([*lines, ""] if lines else [], frozenset())
    fitting = _fitted(decision, width)
    return Opening([*lines, *decision_lines(fitting, width), ""], _own_metrics(fitting))


def _sentence(verdict: Verdict, width: int) -> list[str]:
    lines = []
    if verdict.decision and verdict.decision.options:
        lines += _styled(verdict.sentence, width, "green", bold=True)
    if verdict.caution:
        lines += _styled(f"caution: {verdict.caution}", width, "yellow")
    return lines


def _own_metrics(decision: DecisionTable) -> frozenset[str]:
    metrics = {column.metric for column in decision.columns if not column.relative}
    return frozenset(metrics | ({"decode_j"} if "prefill_j" in metrics else set()))


def _fitted(decision: DecisionTable, width: int) -> DecisionTable:
    """Leave out the least needed columns until the table is at most `width` wide."""
    name, mark, *widths = column_widths(*_texts(decision))
    kept = {c.metric: width for c, width in zip(decision.columns, widths, strict=True)}
    for least in _LEAST_NEEDED:
        if total_width([name, mark, *kept.values()]) <= width:
            break
        kept.pop(least, None)
    return _with_columns(decision, kept)


def decision_lines(decision: DecisionTable, width: int) -> list[str]:
    """Return the table, as many columns as fit, and a line that says what the ratios are of."""
    lines = table(*_texts(_fitted(decision, width)), width).splitlines()
    note = f"({printable(decision.note)})" if decision.note else ""
    return [*lines, *textwrap.wrap(note, width, break_on_hyphens=False)]


def _with_columns(decision: DecisionTable, metrics: Container[str]) -> DecisionTable:
    kept = [n for n, column in enumerate(decision.columns) if column.metric in metrics]
    rows = tuple(row._replace(cells=tuple(row.cells[n] for n in kept)) for row in decision.rows)
    return decision._replace(columns=tuple(decision.columns[n] for n in kept), rows=rows)


def _texts(decision: DecisionTable) -> tuple[list[str], list[list[str]]]:
    longest = max(len(row.mark) for row in decision.rows)
    columns = [
        _column(column.heading, [row.cells[n] for row in decision.rows])
        for n, column in enumerate(decision.columns)
    ]
    rows = [
        [
            printable(row.name),
            click.style(row.mark.ljust(longest), fg=_MARKS.get(row.mark)),
            *[column[n + 1] for column in columns],
        ]
        for n, row in enumerate(decision.rows)
    ]
    return ["", "", *[column[0] for column in columns]], rows


def _column(heading: str, cells: Sequence[DecisionCell]) -> list[str]:
    """Return heading and values; values with intervals align within the column."""
    span = max(len(cell.interval("-")) for cell in cells)
    if not span:
        return [heading, *[_coloured(cell, 0) for cell in cells]]
    size = max(len(cell.text) for cell in cells)
    texts = [f"{_coloured(cell, size)} {cell.interval('-').ljust(span)}" for cell in cells]
    return [heading.ljust(size + 1 + span), *texts]


def _coloured(cell: DecisionCell, size: int) -> str:
    return coloured(cell.text.rjust(size), cell.verdict)


def coloured(text: str, verdict: str) -> str:
    """Return text in the colour of a verdict."""
    start, end = _codes(COLOURS.get(verdict))
    return f"{start}{text}{end}"


@lru_cache
def _codes(colour: str | None) -> list[str]:
    """Return what begins and ends a colour: tables of many cells take it ready made."""
    return click.style("|", fg=colour).split("|")


def _styled(text: str, width: int, colour: str, bold: bool = False) -> list[str]:
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    return [click.style(line, bold=bold, fg=colour) for line in lines]
