"""The figures of a report in the order of the page: sections, each with its figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap.report import costs, pace, shares, tokens, worth
from edgecap.report.plots import Figure
from edgecap.report.sheet import Line


class Section(NamedTuple):
    """Figures that belong together, under a title."""

    id: str
    title: str
    figures: list[Figure]


def sections(lines: Sequence[Line]) -> list[Section]:
    """All figures that the cells have data for; what is absent stands there with its reason."""
    cost = [costs.time(lines), costs.memory(lines), costs.roofline(lines)]
    energy = [shares.energy(lines), shares.split(lines)]
    found = [
        Section("capacity", "Capacity", [worth.capacity(lines)]),
        Section("cost", "Cost of a token, beside the roofline", [f for f in cost if f]),
        Section("energy", "Energy", [f for f in energy if f]),
        Section("trade", "Capacity against cost", worth.fronts(lines)),
        Section("latency", "Latency", [pace.distribution(lines), *pace.growth(lines)]),
        Section("text", "Text", [f for f in (worth.domains(lines), tokens.of_records(lines)) if f]),
        Section("operators", "Operators", shares.operators(lines)),
    ]
    return [section for section in found if section.figures]
