"""The report as Markdown. Values in, text out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.metrics import METRICS
from edgecap.names import printable
from edgecap.record import Estimate, Profile
from edgecap.report.cells import display_views
from edgecap.report.metric_text import interval_text, metric_text
from edgecap.report.page import notes, reproduce
from edgecap.report.page.figures import sections
from edgecap.report.page.report import describe, title
from edgecap.report.page.verdict import verdicts

MARK = "<!-- edgecap report -->"
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#&$])")


def markdown(records: Sequence[Profile]) -> str:
    """Return the report as GitHub renders it, with tables."""
    lines = display_views(records)
    parts = [
        f"{MARK}\n# {plain(title(records))}",
        *[f"**{plain(v.sentence)}**" for v in verdicts(lines)],
    ]
    parts += [plain(mismatch)] if (mismatch := notes.mismatches(records)) else []
    parts += ["## What was measured", *["\n".join(_facts(record)) for record in records]]
    parts += ["## Figures of each cell", "Medians with 95 % intervals.", _figures(lines)]
    parts += [
        "## Figures in words",
        "\n".join(
            f"- {plain(f.title)}: {plain(f.text)}" for s in sections(lines) for f in s.figures
        ),
    ]
    parts += _notes("Failures", notes.failures(lines, records)) + _notes(
        "Cautions", notes.cautions(lines)
    )
    parts += ["## Where joules come from", _table(notes.PROVENANCE, notes.provenances(lines))]
    parts += ["## Do it again", _code(reproduce.commands(records))]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Escape everything that Markdown, or HTML in it, would act upon."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _facts(record: Profile) -> list[str]:
    return [f"- {term}: {plain(value)}" for term, value in describe(record)]


def _figures(lines: Sequence[CellView]) -> str:
    """Return a row a metric and a column a cell; of many cells the other way round."""
    shown = [m for m in METRICS if any(line.value(m.name) is not None for line in lines)]
    cells = [[_figure(line, m.name) for m in shown] for line in lines]
    if len(lines) > 6:
        return _table(
            ["cell", *[m.words for m in shown]],
            [[x.label, *row] for x, row in zip(lines, cells, strict=True)],
        )
    rows = [[m.words, *column] for m, column in zip(shown, zip(*cells, strict=True), strict=True)]
    return _table(["", *[line.label for line in lines]], rows)


def _figure(line: CellView, metric: str) -> str:
    value = line.metrics[metric]
    if not isinstance(value, Estimate):
        return "-"
    interval = interval_text(metric, value)
    return (
        f"{metric_text(metric, value.value)} ({interval})"
        if interval
        else metric_text(metric, value.value)
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "None."
    rule = ["---", *["---:"] * (len(columns) - 1)]
    body = [[plain(text) for text in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [[plain(c) for c in columns], rule, *body])


def _notes(heading: str, entries: Sequence[notes.Note]) -> list[str]:
    if not entries:
        return []
    return [
        f"## {heading}",
        "\n".join(f"- {plain(note.text)}: {plain(note.advice)}" for note in entries),
    ]


def _code(commands: Sequence[str]) -> str:
    """Indent commands as a code block that no text can end."""
    return "\n".join(f"    {printable(words)}" for words in commands)
