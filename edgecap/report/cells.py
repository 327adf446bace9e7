"""The cells of one or more records as pages show them: what each is called there, and every figure of it, worked out once.

Names come from outside: they are cut, and hold nothing that could command a browser's text (bidi, control characters).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap.analysis.cell_labels import CellView, choices
from edgecap.analysis.metrics import BY_NAME, estimates
from edgecap.names import printable
from edgecap.record import Absent, Cell, Estimate, Measurement, Profile
from edgecap.units import si, significant

MetricValue = Estimate | Absent
SHORT, LONG = 18, 90  # characters of a name beside a bar, and in a sentence or table


class Line(NamedTuple):
    """A cell: `name` is short, for figures; `label` tells it from all others; `figures` has every metric."""

    choice: CellView
    name: str
    label: str
    figures: dict[str, MetricValue]

    @property
    def record(self) -> Profile:
        """The record that the cell stands in."""
        return self.choice.record

    @property
    def cell(self) -> Cell:
        """The cell."""
        return self.choice.cell

    @property
    def measured(self) -> Measurement | None:
        """What was measured of it, if it was."""
        return self.cell.outcome if isinstance(self.cell.outcome, Measurement) else None

    def value(self, metric: str) -> float | None:
        """The metric, where there is one."""
        found = self.figures[metric]
        return found.value if isinstance(found, Estimate) else None


def sheet(records: Sequence[Profile]) -> list[Line]:
    """Every cell of the records, in order."""
    found, tags = choices(records), _tags(records)
    several = len({c.cell.provider for c in found}) > 1
    return [
        Line(
            c,
            _short(c, several, tags[c.place]),
            shortened(c.label, LONG),
            estimates(c.record, c.cell),
        )
        for c in found
    ]


def _short(choice: CellView, several: bool, tag: str) -> str:
    words = [
        choice.cell.precision,
        *([choice.cell.provider] if several else []),
        *([tag] if tag else []),
    ]
    return shortened(" ".join(words), SHORT)


def _tags(records: Sequence[Profile]) -> list[str]:
    """What tells a record from the others in few characters: its model, its machine, else its number."""
    if len(records) < 2:
        return [""] * len(records)
    numbers = [f"#{place + 1}" for place in range(len(records))]
    for names in ([r.source.name for r in records], [r.machine.name for r in records]):
        if len(set(names)) == len(names) and max(map(len, names)) <= SHORT - 6:
            return names
    return numbers


def shortened(name: str, most: int = LONG) -> str:
    """A name from outside in one line of at most `most` characters."""
    line = printable(name[: most + 1])
    return line if len(line) <= most else f"{line[: most - 1]}…"


def written(metric: str, value: float) -> str:
    """A metric's value as people read it."""
    unit = BY_NAME[metric].unit
    if metric == "divergence_bits" and 0 < value < 5e-5:
        return "<0.0001"
    if unit in ("s", "J", "B"):
        return si(value, unit)
    if unit in ("bit/s", "bit/J"):
        return si(value)
    return (
        f"{value:.3f}"
        if unit == "" and abs(value) >= 0.01
        else f"{value:.4f}"
        if unit
        else significant(value)
    )


def span(metric: str, found: Estimate) -> str:
    """The interval as people read it, or nothing."""
    if found.low is None or found.high is None:
        return ""
    low, high = written(metric, found.low), written(metric, found.high)
    unit = high.partition(" ")[2]
    return f"{low.removesuffix(f' {unit}') if unit else low} to {high}"


def ranging(metric: str, lines: Sequence[Line]) -> str:
    """From which cell's value to which one's the metric goes; nothing where no cell has it."""
    had = sorted((value, line.name) for line in lines if (value := line.value(metric)) is not None)
    if not had:
        return ""
    low, high = (written(metric, value) for value, _ in (had[0], had[-1]))
    return low if low == high else f"{low} ({had[0][1]}) to {high} ({had[-1][1]})"
