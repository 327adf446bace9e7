"""Cells of a record that were not measured, as lines of text."""

from __future__ import annotations

from edgecap.analysis.outcomes import status
from edgecap.names import printable
from edgecap.record import LEFT_OUT, Failure, Profile

INCOMPLETE = "incomplete: the run was cut off"


def failures(record: Profile) -> list[str]:
    """Return a line for each reason why cells failed or were left out, with these cells."""
    cells: dict[str, list[str]] = {}
    for cell in record.cells:
        if isinstance(cell.outcome, Failure):
            names = cells.setdefault(f"{status(cell)}\n{_reason(cell.outcome)}", [])
            names.append(f"{cell.precision} on {cell.provider}")
    lines = [(*key.split("\n", 1), ", ".join(names)) for key, names in cells.items()]
    return [f"{state}: {names}, {reason}" for state, reason, names in lines]


def _reason(failure: Failure) -> str:
    message = printable(failure.message)
    if failure.stage == LEFT_OUT:
        return message.removeprefix("left out: ")
    return f"{failure.stage}: {failure.error}: {message}"
