"""Scores of each cell, with the 95 % interval of the first.

Intervals of two cells side by side would hide what their documents and rounds have in common:
`compare` has those of the ratios.
"""

from __future__ import annotations

from edgecap.analysis.metrics import BY_NAME, SCORES
from edgecap.record import Absent, Cell, Estimate, Profile
from edgecap.report.format import name_of, table
from edgecap.report.metric_text import metric_text


def scores(record: Profile, width: int) -> str:
    """Return one row a score and one column a cell; nothing where no cell has a score."""
    rows = []
    for metric in (BY_NAME[name] for name in SCORES):
        values = [_score(cell, metric.name) for cell in record.cells]
        if not metric.relative and any(isinstance(value, Estimate) for value in values):
            texts = [_with_interval(metric.name, value) for value in values[:1]]
            texts += [_value(metric.name, value) for value in values[1:]]
            rows.append([metric.words, *texts])
    header = ["", *[name_of(cell, record.cells) for cell in record.cells]]
    return table(header, rows, width) if rows else ""


def _score(cell: Cell, field: str) -> Estimate | Absent:
    score: Estimate | Absent = getattr(cell.score, field, Absent(reason="no score"))
    return score


def _with_interval(metric: str, score: Estimate | Absent) -> str:
    value = _value(metric, score)
    if isinstance(score, Absent) or score.low is None or score.high is None:
        return value
    return f"{value}\n{metric_text(metric, score.low)}..{metric_text(metric, score.high)}"


def _value(metric: str, score: Estimate | Absent) -> str:
    return "-" if isinstance(score, Absent) else metric_text(metric, score.value)
