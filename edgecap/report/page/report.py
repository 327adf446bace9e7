"""Records as one HTML page: the values that templates/report.html renders.

The page opens offline and makes no request. `figures` has the figures, `raw_tables` all numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.metrics import BY_NAME, OVERVIEW
from edgecap.analysis.outcomes import status
from edgecap.analysis.verdict import Differences
from edgecap.names import printable, shortened, shortened_list
from edgecap.record import Estimate, Flops, Gpu, Profile
from edgecap.report.cells import display_views
from edgecap.report.data import documents_text, fidelity_notes, graph_notes
from edgecap.report.machine_text import container_limits
from edgecap.report.metric_text import interval_text, metric_text
from edgecap.report.page import notes, raw_tables, reproduce
from edgecap.report.page.figures import sections
from edgecap.report.page.findings import differences_by_view
from edgecap.report.page.template import page
from edgecap.report.verdict import WORTH, Verdict, verdict_texts, verdicts
from edgecap.units import count, si, size

LONGEST_HEADING = 24  # characters
_DESCRIBED = 3  # records that are described one by one; more are a table
_CLOSE = 0.01  # relative difference below which two decimals say nothing
_MOST_TABLES = 3  # decisions whose tables are open


class TableCell(NamedTuple):
    """A cell of an HTML table, not of a record: its text, the value it sorts by, a second line.

    `verdict` is better, same, worse or unknown, beside the baseline; empty without a comparison.
    """

    text: str
    value: float | str = ""
    small: str = ""
    verdict: str = ""


def html(records: Sequence[Profile]) -> str:
    """Return the page. Raise UsageError without the extra `report`."""
    views = display_views(records)
    judged = verdicts(views)
    return page(
        "report.html",
        title=title(records),
        subtitle=_subtitle(records, views),
        verdicts=list(zip(verdict_texts(judged), [v.table for v in judged], strict=True)),
        most_tables=_MOST_TABLES,
        glance=_glance(views, judged),
        about=[describe(r) for r in records[:_DESCRIBED]],
        records=_records(records) if len(records) > _DESCRIBED else None,
        mismatch=notes.mismatches(records),
        sections=sections(views, [v.decision for v in judged if v.decision]),
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


# --- all cells at a glance ------------------------------------------------------------------------


def _glance(
    views: Sequence[CellView], judged: Sequence[Verdict]
) -> tuple[list[str], list[list[TableCell]]]:
    """Return names of columns, and a row a cell, of the metrics that any cell has.

    Those that every decision table has are left out.
    """
    known = [m for m in OVERVIEW if any(view.value(m) is not None for view in views)]
    shown = [m for m in known if m not in _decided(judged)]
    beside = differences_by_view([v.decision for v in judged if v.decision])
    rows = [
        [
            TableCell(view.label, "text", _outcome(view)),
            *[_entry(view, m, beside.get(id(view))) for m in shown],
        ]
        for view in views
    ]
    return ["cell", *[_heading(m) for m in shown]], rows


def _decided(judged: Sequence[Verdict]) -> set[str]:
    """Return the metrics that the decision tables show, if each verdict has one."""
    tables = [verdict.table for verdict in judged]
    metrics = [
        {c.metric for c in table.columns if not c.relative or c.metric == WORTH}
        for table in tables
        if table
    ]
    return set.intersection(*metrics) if len(metrics) == len(tables) and metrics else set()


def _heading(metric: str) -> str:
    """Return the words of a metric, or the short form of those that would widen the column."""
    words = BY_NAME[metric].words
    return words if len(words) <= LONGEST_HEADING else BY_NAME[metric].heading


def _outcome(view: CellView) -> str:
    return "" if view.measured else status(view.cell)


def _entry(view: CellView, metric: str, beside: Differences | None) -> TableCell:
    """Return a value with its own interval, or of a variant with that of the ratio."""
    value = view.metrics[metric]
    if not isinstance(value, Estimate):
        return TableCell("-")
    ratio = beside.ratio(metric) if beside else None
    if beside is None or ratio is None:
        small, verdict = ("" if beside else interval_text(metric, value)), ""
    else:
        small, verdict = _times(ratio), beside.verdict(metric)
    return TableCell(metric_text(metric, value.value), value.value, small, verdict)


def _times(ratio: Estimate) -> str:
    """Format a ratio with its interval; with more decimals close to 1, where bits are."""
    places = 4 if abs(ratio.value - 1) < _CLOSE else 2
    if ratio.low is None or ratio.high is None:
        return f"× {ratio.value:.{places}f}"
    return f"× {ratio.value:.{places}f} ({ratio.low:.{places}f} to {ratio.high:.{places}f})"


# --- description of a record ------------------------------------------------------------------


def _graphics(gpu: Gpu) -> str:
    limit = f", {gpu.power_limit_w:.0f} W at most" if gpu.power_limit_w else ""
    return f"{shortened(gpu.name)}, {size(gpu.memory_bytes)}{limit}, driver {shortened(gpu.driver)}"


def describe(record: Profile) -> list[tuple[str, str]]:
    """Return terms and values: the model, machine, runtime, text and time of a record."""
    machine, corpus = record.machine, record.corpus
    cores = machine.physical_cores or machine.logical_cores
    board = "; ".join(_graphics(gpu) for gpu in machine.usable_gpus)
    text = (
        f"{shortened(corpus.name)}: {documents_text(record)}, {size(corpus.bytes)}, bias "
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
        *[("Graphs", shortened(note, 400)) for note in graph_notes(record)],
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
