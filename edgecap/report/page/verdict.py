"""What the numbers come to, in one sentence for each model on each machine, made from data alone.

The best cell is that of the highest hardware capacity where every measured cell has one, else time capacity; of an
encoder, the shortest prefill. What cannot be told apart from it is named; nothing is claimed that `compare` calls unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.compare import Difference, compare
from edgecap.analysis.metrics import BY_NAME
from edgecap.analysis.outcomes import failure_of
from edgecap.record import Estimate, Profile
from edgecap.report.cells import shortened
from edgecap.report.metric_text import interval_text, metric_text

_DECIDING = ("hardware_capacity", "time_capacity", "prefill_s")
_NAMED = 3  # cells that a sentence names


class Verdict(NamedTuple):
    """One sentence; the cell that is best by `metric`, if any was measured."""

    sentence: str
    best: CellView | None
    metric: str


def verdicts(lines: Sequence[CellView]) -> list[Verdict]:
    """One for each model on each machine, in order."""
    groups: dict[tuple[str, str, str], list[CellView]] = {}
    for line in lines:
        source, machine = line.record.source, line.record.machine
        groups.setdefault((source.name, source.weights_sha256, machine.name), []).append(line)
    return [_verdict(group) for group in groups.values()]


def _verdict(lines: list[CellView]) -> Verdict:
    model = shortened(lines[0].record.source.name)
    measured = [line for line in lines if line.measured]
    if not measured:
        return Verdict(
            f"Nothing of {model} was measured here: {shortened(failure_of(lines[0].cell), 300)}.",
            None,
            "",
        )
    metric = _deciding(measured)
    if not metric:
        return Verdict(
            f"{model} was measured, but no cell has a capacity or a time to judge it by.", None, ""
        )
    had = [line for line in measured if line.value(metric) is not None]
    best = sorted(
        had, key=lambda line: line.value(metric) or 0.0, reverse=not BY_NAME[metric].less_is_better
    )[0]
    return Verdict(
        f"{_lead(best, metric)}{_rivals(best, had, metric)}{_price(best, measured)}.", best, metric
    )


def _deciding(measured: list[CellView]) -> str:
    """The first figure that all have, else the first that any has."""
    for enough in (all, any):
        for metric in _DECIDING:
            if enough(line.value(metric) is not None for line in measured):
                return metric
    return ""


def _lead(best: CellView, metric: str) -> str:
    found = best.metrics[metric]
    assert isinstance(found, Estimate)
    words = (
        f"the {'shortest' if BY_NAME[metric].less_is_better else 'highest'} {BY_NAME[metric].words}"
    )
    sure = f"; 95 % interval {interval_text(metric, found)}" if interval_text(metric, found) else ""
    machine = shortened(best.record.machine.cpu)
    model = shortened(best.record.source.name)
    return f"On {machine}, {best.label} has {words} of {model} ({metric_text(metric, found.value)}{sure})"


def against(
    best: CellView, others: Sequence[CellView]
) -> list[tuple[CellView, dict[str, Difference]]]:
    """Each of the other measured cells as `compare` sees it against the best: ratios are other / best."""
    rest = [line for line in others if line is not best and line.measured]
    if not rest:
        return []
    mine = [x.cell for x in rest if x.place == best.place]
    named = msgspec.structs.replace(
        best.cell, precision="best"
    )  # whatever a record calls it, compare finds it
    first = msgspec.structs.replace(best.record, cells=(named, *mine))
    places = sorted({x.place for x in rest} - {best.place})
    found = compare([first, *[_only(place, rest) for place in places]], "precision=best")
    ordered = [x for place in (best.place, *places) for x in rest if x.place == place]
    return [
        (line, {d.metric: d for d in c.differences}) for line, c in zip(ordered, found, strict=True)
    ]


def _only(place: int, lines: Sequence[CellView]) -> Profile:
    """A record with those of its cells that are asked for."""
    mine = [line for line in lines if line.place == place]
    return msgspec.structs.replace(mine[0].record, cells=tuple(line.cell for line in mine))


def _rivals(best: CellView, had: list[CellView], metric: str) -> str:
    """Those that are level with the best, and those that the intervals cannot tell from it."""
    found: dict[str, list[str]] = {"same": [], "unknown": []}
    for line, differences in against(best, had):
        verdict = differences[metric].verdict if metric in differences else "unknown"
        if verdict in found:
            found[verdict].append(line.name)
    parts = [
        f"level with {_and(found['same'])}" if found["same"] else "",
        f"not told apart from {_and(found['unknown'])}" if found["unknown"] else "",
    ]
    told = " and ".join(filter(None, parts))
    return f", {told}" if told else ""


def _and(names: list[str]) -> str:
    shown = (
        names[:_NAMED]
        if len(names) <= _NAMED + 1
        else [*names[:_NAMED], f"{len(names) - _NAMED} others"]
    )
    if len(names) == _NAMED + 1:
        shown = names
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


# --- what it costs against fp32 -----------------------------------------------------------------

_PRICES = (
    ("bits_per_byte", "bits per byte of text"),
    ("decode_s", "time a decoded token"),
    ("prefill_s", "time to read the prompt"),
    ("decode_j", "energy a decoded token"),
    ("file_bytes", "room on disk"),
)


def _price(best: CellView, measured: list[CellView]) -> str:
    """What the best needs against fp32, or against the first cell; if it is that itself, nothing to hold it against."""
    base = next((x for x in measured if x.cell.precision == "fp32"), measured[0])
    if base is best:
        return "; it is the baseline itself" if len(measured) > 1 else ""
    ((_, found),) = against(base, [best])
    decodes = "decode_s" in found
    told = [
        _clause(metric, words, found[metric])
        for metric, words in _PRICES
        if metric in found and not (metric == "prefill_s" and decodes)
    ]
    return f"; against {base.name} it needs {_and_all(told)}" if told else ""


def _and_all(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _clause(metric: str, words: str, d: Difference) -> str:
    if not isinstance(d.ratio, Estimate) or d.baseline is None or d.candidate is None:
        return f"{words} that nothing can be said about"
    numbers = f"{metric_text(metric, d.candidate)} against {metric_text(metric, d.baseline)}"
    if d.verdict == "same":
        return f"the same {words} ({numbers})"
    if d.verdict == "unknown":
        return f"{words} that cannot be told apart ({numbers})"
    return f"{changed(d.ratio.value)} {words} ({numbers})"


def changed(ratio: float) -> str:
    """A ratio in words: `16 % less`, `0.5 % more`, `2.4 times the`."""
    if ratio >= 2:
        return f"{ratio:.1f} times the"
    return f"{100 * abs(ratio - 1):.2g} % {'less' if ratio < 1 else 'more'}"
