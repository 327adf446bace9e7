"""Records as one HTML page: the values that templates/report.html renders.

The page opens offline and makes no request. `figures` has the figures, `raw_tables` all numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.metrics import BY_NAME, MAIN, OVERVIEW
from edgecap.analysis.outcomes import status
from edgecap.names import printable, shortened, shortened_list
from edgecap.record import Absent, Estimate, Flops, Latency, Profile
from edgecap.report.cells import display_views
from edgecap.report.data import fidelity_notes
from edgecap.report.machine_text import container_limits
from edgecap.report.metric_text import interval_text, metric_text
from edgecap.report.page import notes, raw_tables, reproduce
from edgecap.report.page.figures import sections
from edgecap.report.page.template import page
from edgecap.report.verdict import Verdict, verdict_texts, verdicts
from edgecap.units import count, si, significant, size

LONGEST_HEADING = 24  # characters
_DESCRIBED = 3  # records that are described one by one; more are a table


class TableCell(NamedTuple):
    """A cell of an HTML table, not of a record: its text, the value it sorts by, a second line."""

    text: str
    value: float | str = ""
    small: str = ""
    best: bool = False


def html(records: Sequence[Profile]) -> str:
    """Return the page. Raise UsageError without the extra `report`."""
    views = display_views(records)
    judged = verdicts(views)
    return page(
        "report.html",
        title=title(records),
        subtitle=_subtitle(records, views),
        verdicts=verdict_texts(judged),
        cards=_cards(judged[0]) if len(judged) == 1 else [],
        glance=_glance(views),
        about=[describe(r) for r in records[:_DESCRIBED]],
        records=_records(records) if len(records) > _DESCRIBED else None,
        mismatch=notes.mismatches(records),
        sections=sections(views),
        cautions=notes.cautions(views),
        failures=notes.failures(views, records),
        provenance=(notes.PROVENANCE, notes.provenances(views)),
        tables=raw_tables.tables(views, records),
        most=raw_tables.MOST,
        commands=[printable(words) for words in reproduce.commands(records)],
        version=", ".join(dict.fromkeys(r.edgecap for r in records)),
    )


def title(records: Sequence[Profile]) -> str:
    """Return the model and the processor in a line, or how many there are."""
    models = list(dict.fromkeys(r.source.name for r in records))
    machines = list(dict.fromkeys((r.machine.name, r.machine.processor) for r in records))
    what = shortened(models[0]) if len(models) == 1 else f"{len(models)} models"
    where = shortened(machines[0][1]) if len(machines) == 1 else f"{len(machines)} machines"
    return f"{what} on {where}"


def _subtitle(records: Sequence[Profile], views: Sequence[CellView]) -> str:
    days = sorted({shortened(r.created_utc[:10], 10) for r in records})
    measured = sum(1 for view in views if view.measured)
    many = f", {len(records)} records" if len(records) > 1 else ""
    cells = (
        f"{measured} of {len(views)} cells measured"
        if measured < len(views)
        else f"{measured} cells measured"
    )
    return f"{cells}{many}, {' to '.join(dict.fromkeys((days[0], days[-1])))}"


# --- the best cell, and all at a glance ---------------------------------------------------------


def _cards(verdict: Verdict) -> list[tuple[str, str, str]]:
    """Return term, value and interval of the best cell's main metrics."""
    decision = verdict.decision
    if decision is None:
        return []
    best = decision.shipped
    deciding = [decision.metric] if decision.metric else []
    shown = [m for m in dict.fromkeys([*deciding, *MAIN]) if _has_card(best, m)]
    return [(BY_NAME[m].words, *_card(best, m)) for m in shown]


def _has_card(view: CellView, metric: str) -> bool:
    return view.value(metric) is not None or metric == "decode_j"


def _card(view: CellView, metric: str) -> tuple[str, str]:
    value = view.metrics[metric]
    if isinstance(value, Absent):
        return "absent", "the reason is under Energy"
    small = interval_text(metric, value)
    if metric == "decode_s":
        small = (
            f"{significant(1 / value.value)} tokens/s; {small}"
            if small
            else f"{significant(1 / value.value)} tokens/s"
        )
    if metric == "prefill_s" and view.measured and isinstance(view.measured.latency, Latency):
        small = f"{view.measured.latency.prefill.tokens} tokens; {small}"
    return metric_text(metric, value.value), small


def _glance(views: Sequence[CellView]) -> tuple[list[str], list[list[TableCell]]]:
    """Return names of columns, and a row a cell, of the metrics that any cell has."""
    shown = [m for m in OVERVIEW if any(view.value(m) is not None for view in views)]
    best = {m: _best(views, m) for m in shown}
    rows = [
        [TableCell(view.label, "text", _outcome(view)), *[_entry(view, m, best[m]) for m in shown]]
        for view in views
    ]
    return ["cell", *[_heading(m) for m in shown]], rows


def _heading(metric: str) -> str:
    """Return the words of a metric, or the short form of those that would widen the column."""
    words = BY_NAME[metric].words
    return words if len(words) <= LONGEST_HEADING else BY_NAME[metric].heading


def _outcome(view: CellView) -> str:
    return "" if view.measured else status(view.cell)


def _best(views: Sequence[CellView], metric: str) -> str:
    """Return the best text of a column; nothing where all are alike, or less is not better."""
    values = [value for view in views if (value := view.value(metric)) is not None]
    if metric == "divergence_bits" or len({metric_text(metric, value) for value in values}) < 2:
        return ""
    return metric_text(metric, min(values) if BY_NAME[metric].less_is_better else max(values))


def _entry(view: CellView, metric: str, best: str) -> TableCell:
    value = view.metrics[metric]
    if not isinstance(value, Estimate):
        return TableCell("-")
    return TableCell(
        metric_text(metric, value.value),
        value.value,
        interval_text(metric, value),
        metric_text(metric, value.value) == best,
    )


# --- description of a record ------------------------------------------------------------------


def describe(record: Profile) -> list[tuple[str, str]]:
    """Return terms and values: the model, machine, runtime, text and time of a record."""
    machine, corpus = record.machine, record.corpus
    cores = machine.physical_cores or machine.logical_cores
    board = "; ".join(
        f"{shortened(g.name)}, {size(g.memory_bytes)}, driver {shortened(g.driver)}"
        for g in machine.gpus
    )
    text = (
        f"{shortened(corpus.name)}: {corpus.documents} documents, {size(corpus.bytes)}, bias "
        f"{corpus.bias_bits:g} bit a token"
    )
    return [
        ("Model", f"{shortened(record.source.name, 300)}, {_parameters(record)}{_work(record)}"),
        *([("Not measured", _others(record))] if record.source.other_graphs else []),
        (
            "Machine",
            f"{shortened(machine.name)}: {shortened(machine.processor)}, {cores} cores, "
            f"{size(machine.memory_bytes)}, {shortened(machine.system)}",
        ),
        *([("Container", limits)] if (limits := container_limits(machine)) else []),
        *([("Graphics", board)] if board else []),
        ("Runtime", _versions(record)),
        *[("fp32 graph", shortened(note, 400)) for note in fidelity_notes(record)],
        ("Text", f"{text}, {record.spec.protocol} protocol"),
        (
            "Measured",
            f"{shortened(record.created_utc, 40)}, edgecap {shortened(record.edgecap, 40)}",
        ),
    ]


def _others(record: Profile) -> str:
    """Name the graphs that lie beside the measured ones."""
    names = [shortened(name) for name in record.source.other_graphs]
    return f"in the same folder: {shortened_list(names)}"


def _parameters(record: Profile) -> str:
    parameters = record.source.parameters
    return (
        f"{count(parameters)} parameters" if isinstance(parameters, int) else "parameters unknown"
    )


def _work(record: Profile) -> str:
    return (
        f", {si(record.flops.per_token, 'FLOP')} a token" if isinstance(record.flops, Flops) else ""
    )


def _versions(record: Profile) -> str:
    return shortened(
        ", ".join(f"{name} {version}" for name, version in record.machine.versions.items()), 400
    )


_RECORD = ("", "model", "parameters", "machine", "processor", "text", "measured")


def _records(records: Sequence[Profile]) -> tuple[tuple[str, ...], list[list[str]]]:
    rows = [
        [
            f"#{n + 1}",
            shortened(r.source.name),
            _parameters(r),
            shortened(r.machine.name),
            shortened(r.machine.processor),
        ]
        + [shortened(r.corpus.name), shortened(r.created_utc, 40)]
        for n, r in enumerate(records)
    ]
    return _RECORD, rows
