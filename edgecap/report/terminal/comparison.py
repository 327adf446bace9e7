"""Comparisons as text, Markdown for pull requests, and JUnit for CI."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import click

from edgecap.analysis.metrics import METRICS
from edgecap.analysis.verdict import differences_of
from edgecap.names import one_line, printable
from edgecap.record import Absent, Estimate
from edgecap.report.decision import compared_table
from edgecap.report.format import table, wrapped
from edgecap.report.metric_text import interval_text, metric_text
from edgecap.report.terminal.verdict import coloured, decision_lines
from edgecap.report.verdict import compared, compared_all
from edgecap.units import significant

if TYPE_CHECKING:
    from edgecap.analysis.compare import Comparison, Difference
    from edgecap.analysis.thresholds import Violation

MANY = 6  # pairs up to which each has a table
_COLUMNS = ["", "baseline", "candidate", "ratio", "95 % interval", "verdict"]
_DRIFT = (
    "the two were timed one after another, so that drift of the machine is in the ratios of "
    "seconds; "
    "repeat the run before acting on one"
)


def comparisons(pairs: Sequence[Comparison], width: int = 100) -> str:
    """Return a table for each pair, or one table where there are many.

    Several pairs begin with one sentence and one table of what decides.
    """
    if len(pairs) == 1:
        return comparison(pairs[0], width)
    rest = (
        [_matrix(pairs, width)]
        if len(pairs) > MANY
        else [comparison(one, width, alone=False) for one in pairs]
    )
    return "\n\n".join([_opening(pairs, width), *rest])


def _opening(pairs: Sequence[Comparison], width: int) -> str:
    sentence = printable(compared_all(pairs))
    lines = textwrap.wrap(sentence, width, break_on_hyphens=False)
    decided = compared_table(pairs)
    return "\n".join([*lines, *(decision_lines(decided, width) if decided.columns else [])])


def comparison(pair: Comparison, width: int = 100, alone: bool = True) -> str:
    """Return each metric's ratio and verdict, and what differs between the runs.

    A pair that stands `alone` begins with the verdict in a sentence.
    """
    title = click.style(_title(pair), bold=True)
    if pair.failed is not None:
        return "\n".join([title, wrapped(f"failed: {printable(pair.failed)}", width, "red")])
    rows = [[*row[:-1], coloured(row[-1], row[-1])] for row in map(_cells, pair.differences)]
    notes = [wrapped(f"caution: {note}", width, "yellow") for note in _notes(pair)]
    sentence = compared(differences_of(pair), pair.candidate, pair.baseline) if alone else ""
    verdict = [wrapped(printable(sentence), width, None)] if sentence else []
    return "\n".join([title, *verdict, table(_COLUMNS, rows, width), *notes])


def _title(pair: Comparison) -> str:
    return printable(f"{pair.candidate} against {pair.baseline}")


def _notes(pair: Comparison) -> list[str]:
    """Return what to know before acting on the ratios."""
    seconds = any(d.unit == "s" and isinstance(d.ratio, Estimate) for d in pair.differences)
    reasons: dict[str, list[str]] = {}
    for d in pair.differences:
        if isinstance(d.ratio, Absent):
            reasons.setdefault(d.ratio.reason, []).append(d.metric)
    doubts = [f"no verdict on {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return [
        *(f"the {m}" for m in pair.mismatches),
        *map(printable, pair.decoding),
        *doubts,
        *([_DRIFT] if pair.one_after_another and seconds else []),
    ]


def _cells(d: Difference) -> list[str]:
    ratio, interval = "-", "-"
    if isinstance(d.ratio, Estimate):
        ratio = metric_text("worth", d.ratio.value)
        interval = interval_text("worth", d.ratio).replace(" to ", "..") or "-"
    return [
        d.metric,
        _value(d.metric, d.baseline),
        _value(d.metric, d.candidate),
        ratio,
        interval,
        d.verdict,
    ]


def _value(metric: str, value: float | None) -> str:
    return "-" if value is None else metric_text(metric, value, decimals=4)


# --- many -------------------------------------------------------------------------------------


def _matrix(pairs: Sequence[Comparison], width: int) -> str:
    """Return one row a candidate: the ratio of each metric, marked by its verdict."""
    present = {d.metric for one in pairs for d in one.differences}
    names = [metric.name for metric in METRICS if metric.name in present]
    rows = [[printable(one.candidate), *_ratios(one, names)] for one in pairs]
    bases = list(dict.fromkeys(one.baseline for one in pairs))
    against = ", ".join([*bases[:3], *(["others"] if bases[3:] else [])])
    title = click.style(f"against {printable(against)}", bold=True)
    signs = "ratios; + better, - worse, ? unknown, the others the same"
    notes = dict.fromkeys(note for one in pairs for note in _notes(one))
    failed = [
        wrapped(f"failed: {printable(f'{c.candidate}: {c.failed}')}", width, "red")
        for c in pairs
        if c.failed
    ]
    cautions = [wrapped(f"caution: of some pairs, {note}", width, "yellow") for note in notes]
    return "\n".join([title, table(["", *names], rows, width), signs, *failed, *cautions])


_SIGNS = {"better": "+", "worse": "-", "unknown": "?", "same": " "}


def _ratios(one: Comparison, names: Sequence[str]) -> list[str]:
    by_name = {d.metric: d for d in one.differences}
    return [
        _ratio(by_name[name]) if name in by_name else ("failed" if one.failed else "-")
        for name in names
    ]


def _ratio(d: Difference) -> str:
    text = (
        f"{significant(d.ratio.value)} {_SIGNS[d.verdict]}"
        if isinstance(d.ratio, Estimate)
        else "?"
    )
    return coloured(text, d.verdict)


# --- Markdown and JUnit -----------------------------------------------------------------------


def markdown(pairs: Sequence[Comparison], violations: Sequence[Violation] = ()) -> str:
    """Return one section a pair; violated thresholds come first."""
    lines = [
        f"- **{_escaped(v.candidate)} against {_escaped(v.baseline)}**: {_escaped(v.message)}"
        for v in violations
    ]
    sections = [_section(one, alone=len(pairs) == 1) for one in pairs]
    first = [_markdown_opening(pairs)] if len(pairs) > 1 else []
    return "\n\n".join(
        [*(["\n".join(["### Not accepted", "", *lines])] if lines else []), *first, *sections]
    )


def _markdown_opening(pairs: Sequence[Comparison]) -> str:
    decided = compared_table(pairs)
    rows = [[_escaped(text) for text in row] for row in decided.texts()]
    rule = [":--", ":--", *["--:"] * len(decided.columns)]
    lines = [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]
    note = ["", f"{_escaped(decided.note)}."] if decided.note else []
    return "\n".join([f"**{_escaped(compared_all(pairs))}**", "", *lines, *note])


def _section(one: Comparison, alone: bool) -> str:
    title = f"### {_escaped(_title(one))}"
    if one.failed is not None:
        return f"{title}\n\nfailed: {_escaped(one.failed)}"
    rows = [["metric", *_COLUMNS[1:]], [":--", *["--:"] * 4, ":--"], *map(_cells, one.differences)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    notes = [f"> caution: {_escaped(note)}" for note in _notes(one)]
    sentence = compared(differences_of(one), one.candidate, one.baseline) if alone else ""
    verdict = [_escaped(sentence), ""] if sentence else []
    return "\n".join([title, "", *verdict, *lines, *(["", *notes] if notes else [])])


def _escaped(text: str) -> str:
    """Escape text for Markdown: no markup, no HTML, no line breaks."""
    plain = one_line(printable(text.replace("\n", " ")))
    return "".join(f"\\{c}" if c in "\\`*[]<>|&~" else c for c in plain)


def junit(pairs: Sequence[Comparison], violations: Sequence[Violation] = ()) -> str:
    """Return JUnit XML: a suite a pair, a case a metric.

    A metric that violates a threshold fails; one without a verdict is skipped.
    """
    root = ElementTree.Element("testsuites", name="edgecap compare")
    by_pair: dict[tuple[str, str], dict[str | None, str]] = {}
    for v in violations:
        by_pair.setdefault((v.baseline, v.candidate), {})[v.metric] = v.message
    for one in pairs:
        _suite(root, one, by_pair.get((one.baseline, one.candidate), {}))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(
        root, encoding="unicode"
    )


def _suite(root: ElementTree.Element, one: Comparison, messages: dict[str | None, str]) -> None:
    suite = ElementTree.SubElement(root, "testsuite", name=_title(one))
    by_name = {d.metric: d for d in one.differences}
    names = dict.fromkeys([*by_name, *(name for name in messages if name is not None)])
    skipped = 0
    for name in names or {"measured": None}:
        case = ElementTree.SubElement(suite, "testcase", classname=_title(one), name=name)
        message = messages.get(name if names else None)
        if message is not None:
            ElementTree.SubElement(
                case, "failure", message=printable(message), type="edgecap.worse"
            )
        elif name not in by_name:
            skipped += 1
            ElementTree.SubElement(case, "skipped", message=printable(one.failed or "not measured"))
        elif by_name[name].verdict == "unknown":
            skipped += 1
            ElementTree.SubElement(case, "skipped", message=_no_verdict_reason(by_name[name]))
        if name in by_name:
            ElementTree.SubElement(case, "system-out").text = "  ".join(_cells(by_name[name])[1:])
    suite.attrib |= {
        "tests": f"{len(suite)}",
        "failures": f"{len(messages)}",
        "errors": "0",
        "skipped": f"{skipped}",
    }


def _no_verdict_reason(d: Difference) -> str:
    return d.ratio.reason if isinstance(d.ratio, Absent) else "the interval allows no verdict"
