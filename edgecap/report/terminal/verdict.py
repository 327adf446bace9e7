"""The verdict on a record in the terminal: the lines that it begins with."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import click

from edgecap.analysis.verdict import Decision
from edgecap.report.verdict import Verdict


def decision_of(found: Sequence[Verdict]) -> Decision | None:
    """Return the decision of a record, which has one model and one machine."""
    return found[0].decision if found else None


def verdict_lines(found: Sequence[Verdict], width: int) -> list[str]:
    """Return the decision and what may change it, and an empty line; nothing without a choice."""
    lines = []
    for verdict in found:
        if verdict.decision and verdict.decision.options:
            lines += _styled(verdict.sentence, width, "green", bold=True)
        if verdict.caution:
            lines += _styled(f"caution: {verdict.caution}", width, "yellow")
    return [*lines, ""] if lines else []


def _styled(text: str, width: int, colour: str, bold: bool = False) -> list[str]:
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    return [click.style(line, bold=bold, fg=colour) for line in lines]
