"""The decision as a table: one row a variant, with what it is worth, gives and costs.

Terminal, page, Markdown and `compare` render these rows. Worth, speed and quality are times those
of the baseline, with paired 95 % intervals; joules and bytes are the variant's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.compare import Comparison
from edgecap.analysis.metrics import BY_NAME
from edgecap.analysis.outcomes import status
from edgecap.analysis.verdict import DECIDING, Decision, Differences, differences_of, worth_of
from edgecap.record import Estimate
from edgecap.report.data import inverse
from edgecap.report.metric_text import metric_text
from edgecap.units import significant

KEEP, SHIP, LEVEL, WORSE, BETTER, UNKNOWN = "keep", "ship", "level", "worse", "better", "unknown"
FAILED, LEFT_OUT, BASELINE = "failed", "left out", "baseline"
_STANDING = {"best": SHIP, "same": LEVEL, "worse": WORSE}  # beside the cell to ship
_JUDGED = {"better": BETTER, "same": LEVEL, "worse": WORSE}  # beside the baseline


class DecisionColumn(NamedTuple):
    """A column: its metric, and its heading; `relative` is a ratio to the baseline."""

    metric: str
    heading: str
    relative: bool


class DecisionCell(NamedTuple):
    """A value as text, the number that it sorts by, its 95 % interval, and its verdict.

    An absent value is `-`. The verdict is better, same, worse or unknown, beside the baseline.
    """

    text: str
    value: float | None = None
    low: str = ""
    high: str = ""
    verdict: str = ""

    def interval(self, between: str) -> str:
        """Return the interval with `between` its ends; empty if there is none."""
        return f"{self.low}{between}{self.high}" if self.low else ""


class DecisionRow(NamedTuple):
    """A variant: its name, its mark (ship, level, worse, ...), and a cell for each column."""

    name: str
    mark: str
    cells: tuple[DecisionCell, ...]


class DecisionTable(NamedTuple):
    """Rows in the order to read them, and the baseline that the ratios are of."""

    baseline: str
    columns: tuple[DecisionColumn, ...]
    rows: tuple[DecisionRow, ...]

    @property
    def note(self) -> str:
        """Say what the ratios are of."""
        names = [column.heading for column in self.columns if column.relative]
        listed = ", ".join("quality as compute" if n == "quality" else n for n in names)
        return f"{listed}: times {self.baseline}'s, with 95 % intervals" if names else ""

    def texts(self) -> list[list[str]]:
        """Return the heading and the rows as texts, for Markdown."""
        heading = ["variant", "verdict", *[column.heading for column in self.columns]]
        rows = [[r.name, r.mark, *[_with_interval(c) for c in r.cells]] for r in self.rows]
        return [heading, *rows]


def _with_interval(cell: DecisionCell) -> str:
    interval = cell.interval(" to ")
    return f"{cell.text} ({interval})" if interval else cell.text


class _Variant(NamedTuple):
    """A row to be made; `found` is None of the baseline itself and of a failed cell.

    `joules` says how its joules were had where that is not a counter.
    """

    name: str
    mark: str
    found: Differences | None
    joules: str = ""


def _variant(view: CellView, mark: str, found: Differences | None) -> _Variant:
    energy = view.energy
    sampled = energy.provenance if energy and energy.provenance != "counter" else ""
    return _Variant(view.name, mark, found, sampled)


_COLUMNS = (
    DecisionColumn("effective_flops_per_s", "worth", True),
    DecisionColumn("decode_s", "speed", True),
    DecisionColumn("prefill_s", "prefill speed", True),
    DecisionColumn("effective_flops", "quality", True),
    DecisionColumn("decode_j", "J/token", False),
    DecisionColumn("prefill_j", "J/token", False),
    DecisionColumn("peak_bytes", "peak RAM", False),
    DecisionColumn("device_peak_bytes", "peak device", False),
    DecisionColumn("file_bytes", "file", False),
)
_INSTEAD = {"prefill_s": "decode_s", "prefill_j": "decode_j"}  # shown where the other is not known


def decision_table(decision: Decision) -> DecisionTable | None:
    """Return the table of a decision: the cell to ship, then the others by worth.

    None if there is nothing to choose from, or nothing to choose by.
    """
    metric = decision.metric
    if not decision.options or decision.doubt or not metric:
        return None
    standing = WORSE if decision.best else KEEP
    base = _variant(decision.baseline, standing, None)
    judged = [(1.0, base)] + [
        (worth_of(o, metric), _variant(o.view, _STANDING.get(o.beside, UNKNOWN), o.against))
        for o in decision.options
    ]
    first = (SHIP, KEEP)
    ordered = [v for _, v in sorted(judged, key=lambda x: (x[1].mark not in first, -x[0]))]
    failed = [_variant(view, status(view.cell), None) for view in decision.failed]
    return _table([*ordered, *failed], decision.baseline.name)


def compared_table(pairs: Sequence[Comparison]) -> DecisionTable:
    """Return the table of pairs, in their order: with the baseline first where they share one."""
    baselines = list(dict.fromkeys(pair.baseline for pair in pairs))
    shared = baselines[0] if len(baselines) == 1 else ""
    rows = [_Variant(p.candidate, mark_of(p), differences_of(p)) for p in pairs]
    first = [_Variant(shared, BASELINE, None)] if shared else []
    return _table([*first, *rows], shared or "the baseline")


def mark_of(pair: Comparison) -> str:
    """Return better, level, worse or unknown, in the first metric that decides; or failed."""
    found = differences_of(pair)
    metric = next((m for m in DECIDING if m in found.by_metric), "")
    return FAILED if pair.failed else _JUDGED.get(found.verdict(metric), UNKNOWN)


def _table(variants: Sequence[_Variant], baseline: str) -> DecisionTable:
    found = [variant.found for variant in variants if variant.found]
    cells = {column: [_cell(v, column, found) for v in variants] for column in _shown(found)}
    kept = {column: own for column, own in cells.items() if any(c.text != "-" for c in own)}
    rows = tuple(
        DecisionRow(v.name, v.mark, tuple(own[n] for own in kept.values()))
        for n, v in enumerate(variants)
    )
    return DecisionTable(baseline, tuple(kept), rows)


def _shown(found: Sequence[Differences]) -> Iterable[DecisionColumn]:
    """Return the columns that any variant has a value in."""
    known = [column for column in _COLUMNS if any(_has(d, column) for d in found)]
    metrics = {column.metric for column in known}
    return (column for column in known if _INSTEAD.get(column.metric) not in metrics)


def _has(found: Differences, column: DecisionColumn) -> bool:
    if column.relative:
        return found.ratio(column.metric) is not None
    return column.metric in found.by_metric and not _assumed(found, column.metric)


def _assumed(found: Differences, metric: str) -> bool:
    """Return True of joules that the user assumed: they decide nothing."""
    ratio = found.by_metric[metric].ratio
    return not isinstance(ratio, Estimate) and "(--assume-watts)" in ratio.reason


def _cell(variant: _Variant, column: DecisionColumn, found: Sequence[Differences]) -> DecisionCell:
    if variant.mark in (FAILED, LEFT_OUT):
        return DecisionCell("-")
    if column.relative:
        return _ratio(variant.found, column.metric)
    return _absolute(variant, column, found)


def _ratio(found: Differences | None, metric: str) -> DecisionCell:
    if found is None:
        return DecisionCell("1", 1.0)
    ratio = found.ratio(metric)
    if ratio is None:
        return DecisionCell("-")
    times = inverse(ratio) if BY_NAME[metric].less_is_better else ratio
    low, high = ("" if end is None else times_text(end) for end in (times.low, times.high))
    return DecisionCell(times_text(times.value), times.value, low, high, found.verdict(metric))


def _absolute(
    variant: _Variant, column: DecisionColumn, found: Sequence[Differences]
) -> DecisionCell:
    """Return the variant's own value; the baseline's is in the differences from it."""
    metric, own = column.metric, variant.found
    if variant.joules == "assumed" and metric.endswith("_j"):
        return DecisionCell("-")
    if own is None:
        values = [d.by_metric[metric].baseline for d in found if _has(d, column)]
    else:
        values = [own.by_metric[metric].candidate] if _has(own, column) else []
    value = next((v for v in values if v is not None), None)
    if value is None:
        return DecisionCell("-")
    source = f" {variant.joules}" if variant.joules and metric.endswith("_j") else ""
    verdict = own.verdict(metric) if own else ""
    return DecisionCell(f"{metric_text(metric, value)}{source}", value, verdict=verdict)


def times_text(value: float) -> str:
    """Format a ratio for a column: two decimals where they say enough."""
    return f"{value:.2f}" if 0.1 <= value < 100 else significant(value, 2)
