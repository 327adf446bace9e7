"""The result in one sentence for each model on each machine.

The best cell has the highest hardware capacity where every measured cell has one, else time
capacity; of an encoder, the shortest prefill. Cells without a significant difference from it are
named. Nothing is claimed that `compare` calls unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.compare import Difference, compare
from edgecap.analysis.metrics import BY_NAME
from edgecap.analysis.outcomes import failure_of
from edgecap.names import shortened
from edgecap.record import Estimate, Profile
from edgecap.report.metric_text import interval_text, metric_text

_DECIDING = ("hardware_capacity", "time_capacity", "prefill_s")
_NAMED = 3  # cells that a sentence names


class Verdict(NamedTuple):
    """One sentence, and the cell that is best by `metric`, if any was measured."""

    sentence: str
    best: CellView | None
    metric: str


def verdicts(views: Sequence[CellView]) -> list[Verdict]:
    """Return one verdict for each model on each machine, in order."""
    groups: dict[tuple[str, str, str], list[CellView]] = {}
    for view in views:
        source, machine = view.record.source, view.record.machine
        groups.setdefault((source.name, source.weights_sha256, machine.name), []).append(view)
    return [_verdict(group) for group in groups.values()]


def _verdict(views: list[CellView]) -> Verdict:
    model = shortened(views[0].record.source.name)
    measured = [view for view in views if view.measured]
    if not measured:
        return Verdict(
            f"Nothing of {model} was measured here: {shortened(failure_of(views[0].cell), 300)}.",
            None,
            "",
        )
    metric = _deciding(measured)
    if not metric:
        return Verdict(
            f"{model} was measured, but no cell has a capacity or a time to judge it by.", None, ""
        )
    judged = [view for view in measured if view.value(metric) is not None]
    best = sorted(
        judged,
        key=lambda view: view.value(metric) or 0.0,
        reverse=not BY_NAME[metric].less_is_better,
    )[0]
    sentence = (
        f"{_best_in_words(best, metric)}{_equals_in_words(best, judged, metric)}"
        f"{_cost_against_baseline(best, measured)}."
    )
    return Verdict(sentence, best, metric)


def _deciding(measured: list[CellView]) -> str:
    """Return the first deciding metric that all cells have, else that any has."""
    for enough in (all, any):
        for metric in _DECIDING:
            if enough(view.value(metric) is not None for view in measured):
                return metric
    return ""


def _best_in_words(best: CellView, metric: str) -> str:
    value = best.metrics[metric]
    assert isinstance(value, Estimate)
    words = (
        f"the {'shortest' if BY_NAME[metric].less_is_better else 'highest'} {BY_NAME[metric].words}"
    )
    interval = (
        f"; 95 % interval {interval_text(metric, value)}" if interval_text(metric, value) else ""
    )
    machine = shortened(best.record.machine.processor)
    model = shortened(best.record.source.name)
    return (
        f"On {machine}, {best.label} has {words} of {model} "
        f"({metric_text(metric, value.value)}{interval})"
    )


def against(
    best: CellView, others: Sequence[CellView]
) -> list[tuple[CellView, dict[str, Difference]]]:
    """Compare each other measured cell with the best: ratios are other / best."""
    rest = [view for view in others if view is not best and view.measured]
    if not rest:
        return []
    same_record = [x.cell for x in rest if x.place == best.place]
    # compare finds the cell by this name, whatever the record calls it.
    named = msgspec.structs.replace(best.cell, precision="best")
    first = msgspec.structs.replace(best.record, cells=(named, *same_record))
    places = sorted({x.place for x in rest} - {best.place})
    comparisons = compare([first, *[_record_of(place, rest) for place in places]], "precision=best")
    ordered = [x for place in (best.place, *places) for x in rest if x.place == place]
    return [
        (view, {d.metric: d for d in c.differences})
        for view, c in zip(ordered, comparisons, strict=True)
    ]


def _record_of(place: int, views: Sequence[CellView]) -> Profile:
    """Return a record with the cells of `views` only."""
    kept = [view for view in views if view.place == place]
    return msgspec.structs.replace(kept[0].record, cells=tuple(view.cell for view in kept))


def _equals_in_words(best: CellView, judged: list[CellView], metric: str) -> str:
    """Return the cells that are level with the best or not significantly different."""
    names_by_verdict: dict[str, list[str]] = {"same": [], "unknown": []}
    for view, differences in against(best, judged):
        verdict = differences[metric].verdict if metric in differences else "unknown"
        if verdict in names_by_verdict:
            names_by_verdict[verdict].append(view.name)
    parts = [
        f"level with {_join(names_by_verdict['same'])}" if names_by_verdict["same"] else "",
        f"not significantly different from {_join(names_by_verdict['unknown'])}"
        if names_by_verdict["unknown"]
        else "",
    ]
    text = " and ".join(filter(None, parts))
    return f", {text}" if text else ""


def _join(names: list[str]) -> str:
    shown = (
        names[:_NAMED]
        if len(names) <= _NAMED + 1
        else [*names[:_NAMED], f"{len(names) - _NAMED} others"]
    )
    if len(names) == _NAMED + 1:
        shown = names
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


# --- cost against fp32 -------- -----------------------------------------------------------------

_PRICES = (
    ("bits_per_byte", "bits per byte of text"),
    ("decode_s", "time a decoded token"),
    ("prefill_s", "time to read the prompt"),
    ("decode_j", "energy a decoded token"),
    ("file_bytes", "room on disk"),
)


def _cost_against_baseline(best: CellView, measured: list[CellView]) -> str:
    """Return what the best costs against fp32, or against the first cell without fp32."""
    baseline = next((x for x in measured if x.cell.precision == "fp32"), measured[0])
    if baseline is best:
        return "; it is the baseline itself" if len(measured) > 1 else ""
    ((_, differences),) = against(baseline, [best])
    decodes = "decode_s" in differences
    clauses = [
        _clause(metric, words, differences[metric])
        for metric, words in _PRICES
        if metric in differences and not (metric == "prefill_s" and decodes)
    ]
    return f"; against {baseline.name} it needs {_join_all(clauses)}" if clauses else ""


def _join_all(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _clause(metric: str, words: str, d: Difference) -> str:
    if not isinstance(d.ratio, Estimate) or d.baseline is None or d.candidate is None:
        return f"an unknown difference in {words}"
    numbers = f"{metric_text(metric, d.candidate)} against {metric_text(metric, d.baseline)}"
    if d.verdict == "same":
        return f"the same {words} ({numbers})"
    if d.verdict == "unknown":
        return f"{words} without a significant difference ({numbers})"
    return f"{changed(d.ratio.value)} {words} ({numbers})"


def changed(ratio: float) -> str:
    """Format a ratio in words: `16 % less`, `0.5 % more`, `2.4 times the`."""
    if ratio >= 2:
        return f"{ratio:.1f} times the"
    return f"{100 * abs(ratio - 1):.2g} % {'less' if ratio < 1 else 'more'}"
