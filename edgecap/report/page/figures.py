"""Sections of a report with their figures, in the order of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap.analysis.cell_view import CellView
from edgecap.report.page import (
    cost_figures,
    latency_figures,
    share_figures,
    token_figures,
    worth_figures,
)
from edgecap.report.page.plots import Figure


class Section(NamedTuple):
    """Figures that belong together, under a title."""

    id: str
    title: str
    figures: list[Figure]


def sections(views: Sequence[CellView]) -> list[Section]:
    """Return all figures that the cells have data for; the others say why they are empty."""
    cost = [cost_figures.time(views), cost_figures.memory(views), cost_figures.roofline(views)]
    energy = [share_figures.energy(views), share_figures.split(views)]
    all_sections = [
        Section("capacity", "Capacity", [worth_figures.capacity(views)]),
        Section("cost", "Cost of a token and roofline", [f for f in cost if f]),
        Section("energy", "Energy", [f for f in energy if f]),
        Section("trade", "Capacity against cost", worth_figures.fronts(views)),
        Section(
            "latency",
            "Latency",
            [latency_figures.distribution(views), *latency_figures.growth(views)],
        ),
        Section(
            "text",
            "Text",
            [f for f in (worth_figures.domains(views), token_figures.of_records(views)) if f],
        ),
        Section("operators", "Operators", share_figures.operators(views)),
    ]
    return [section for section in all_sections if section.figures]
