"""The report as Markdown. Values in, text out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.metrics import METRICS
from edgecap.names import one_line, printable
from edgecap.record import Estimate, Profile
from edgecap.report.cells import display_views
from edgecap.report.decision import DecisionTable
from edgecap.report.metric_text import interval_text, metric_text
from edgecap.report.page import notes, reproduce
from edgecap.report.page.figures import sections
from edgecap.report.page.report import describe, title
from edgecap.report.verdict import verdict_texts, verdicts

MARK = "<!-- edgecap report -->"
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#&$])")


def markdown(records: Sequence[Profile]) -> str:
    """Return the report as GitHub renders it, with tables."""
    views = display_views(records)
    judged = verdicts(views)
    parts = [f"{MARK}\n# {plain(title(records))}"]
    for text, verdict in zip(verdict_texts(judged), judged, strict=True):
        parts += [f"**{plain(text)}**", *_decision(verdict.table)]
    parts += [plain(mismatch)] if (mismatch := notes.mismatches(records)) else []
    parts += ["## What was measured", *["\n".join(_facts(record)) for record in records]]
    parts += ["## Figures of each cell", "Medians with 95 % intervals.", _figures(views)]
    parts += [
        "## Figures in words",
        "\n".join(
            f"- {plain(f.title)}. {plain(f.text)}"
            for s in sections(views, [v.decision for v in judged if v.decision])
            for f in s.figures
        ),
    ]
    parts += _notes("Failures", notes.failures(views, records)) + _notes(
        "Cautions", notes.cautions(views)
    )
    parts += ["## Where joules come from", _table(notes.PROVENANCE, notes.provenances(views))]
    parts += ["## Do it again", _code(reproduce.commands(records))]
    return "\n\n".join(parts) + "\n"


def _decision(table: DecisionTable | None) -> list[str]:
    if table is None:
        return []
    heading, *rows = table.texts()
    return [_table(heading, rows), *([f"{plain(table.note)}."] if table.note else [])]


def plain(text: str) -> str:
    """Escape everything that Markdown, or HTML in it, would interpret."""
    return _SPECIAL.sub(r"\\\1", one_line(text))


def _facts(record: Profile) -> list[str]:
    return [f"- {term}: {plain(value)}" for term, value in describe(record)]


def _figures(views: Sequence[CellView]) -> str:
    """Return a row a metric and a column a cell; of many cells the other way round."""
    shown = [m for m in METRICS if any(view.value(m.name) is not None for view in views)]
    cells = [[_figure(view, m.name) for m in shown] for view in views]
    if len(views) > 6:
        return _table(
            ["cell", *[m.words for m in shown]],
            [[x.label, *row] for x, row in zip(views, cells, strict=True)],
        )
    rows = [[m.words, *column] for m, column in zip(shown, zip(*cells, strict=True), strict=True)]
    return _table(["", *[view.label for view in views]], rows)


def _figure(view: CellView, metric: str) -> str:
    value = view.metrics[metric]
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
