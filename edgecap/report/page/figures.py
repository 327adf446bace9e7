"""Sections of a report with their figures, in the order of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.verdict import Decision
from edgecap.report.page import (
    choice_figures,
    cost_figures,
    domain_figures,
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


def sections(views: Sequence[CellView], decisions: Sequence[Decision]) -> list[Section]:
    """Return all figures that the cells have data for; the others say why they are empty.

    `decisions` are those on the views: a variant is shown beside the baseline of its decision.
    """
    worth = choice_figures.worth_against_cost(decisions)
    cost = [
        cost_figures.time(views, decisions),
        cost_figures.memory(views, decisions),
        cost_figures.roofline(views),
    ]
    energy = [share_figures.energy(views, decisions), share_figures.split(views)]
    fronts = [] if worth and len(decisions) == 1 else worth_figures.fronts(views)
    all_sections = [
        Section("worth", "Worth against cost", worth),
        Section("capacity", "Capacity", [worth_figures.capacity(views, decisions)]),
        Section("cost", "Cost of a token and roofline", [f for f in cost if f]),
        Section("energy", "Energy", [f for f in energy if f]),
        Section("trade", "Capacity against cost", fronts),
        Section("distance", "Distance from fp32", worth_figures.divergence(views)),
        Section(
            "latency",
            "Latency",
            [latency_figures.distribution(views), *latency_figures.growth(views)],
        ),
        Section(
            "text",
            "Text",
            [f for f in (domain_figures.domains(views), token_figures.of_records(views)) if f],
        ),
        Section("operators", "Operators", share_figures.operators(views)),
    ]
    return [section for section in all_sections if section.figures]
