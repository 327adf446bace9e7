"""Scores of each cell with their 95 % intervals."""

from __future__ import annotations

from edgecap.record import Absent, Cell, Estimate, Profile
from edgecap.report.format import name_of, table
from edgecap.units import si

SCORES = (
    ("information_capacity", "information capacity"),
    ("time_capacity", "time capacity"),
    ("energy_capacity", "energy capacity"),
    ("hardware_capacity", "hardware capacity"),
    ("gain_bits_per_s", "bits gained a second"),
    ("gain_bits_per_j", "bits gained a joule"),
)


def scores(record: Profile, width: int) -> str:
    """Return one row a score and one column a cell; nothing where no cell has a score."""
    rows = []
    for field, words in SCORES:
        values = [_score(cell, field) for cell in record.cells]
        if any(isinstance(value, Estimate) for value in values):
            rows.append([words, *map(_with_interval, values)])
    header = ["", *[name_of(cell, record.cells) for cell in record.cells]]
    return table(header, rows, width) if rows else ""


def _score(cell: Cell, field: str) -> Estimate | Absent:
    score: Estimate | Absent = getattr(cell.score, field, Absent(reason="no score"))
    return score


def _with_interval(score: Estimate | Absent) -> str:
    if isinstance(score, Absent):
        return "-"
    write = "{:.3f}".format if abs(score.value) < 10 else si
    if score.low is None or score.high is None:
        return write(score.value)
    return f"{write(score.value)}\n{write(score.low)}..{write(score.high)}"
