"""Decide which variant of a model to ship on a machine: the one whole rule.

Each variant is compared with the baseline, fp32 or else the first cell, in the first of these that
any has: effective FLOPs a second (what a second of decoding is worth), seconds a decoded token,
seconds of the prompt. The best of those that are better beyond doubt is shipped; otherwise the
baseline stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.compare import Comparison, Difference, compare_views
from edgecap.analysis.law import Slopes, extrapolation, law_of, slopes_for
from edgecap.analysis.metrics import BY_NAME
from edgecap.record import Absent, Estimate, Flops, Law, Profile

DECIDING = ("effective_flops_per_s", "decode_s", "prefill_s")


class Differences(NamedTuple):
    """The differences of a variant from a baseline, by metric."""

    by_metric: dict[str, Difference]

    def ratio(self, metric: str) -> Estimate | None:
        """Return variant / baseline in a metric, or None where there is none."""
        found = self.by_metric.get(metric)
        return found.ratio if found and isinstance(found.ratio, Estimate) else None

    def verdict(self, metric: str) -> str:
        """Return better, same, worse or unknown."""
        found = self.by_metric.get(metric)
        return found.verdict if found else "unknown"


class JudgedCell(NamedTuple):
    """A variant beside the baseline, and its verdict beside the cell to ship.

    That is better, same, worse or unknown, and `best` for the cell itself.
    """

    view: CellView
    against: Differences
    beside: str


class Decision(NamedTuple):
    """Say what to ship of one model on one machine.

    `best` is the option to ship, or None: then the baseline stays. `level` are options that are
    better than the baseline too, and not surely worse than `best`. `metric` decides; empty if no
    cell has any. `doubt` says why no option has a verdict. `slopes` are those that the verdict
    holds for; several where the model lies outside the series of its law, `beyond` times.
    `failed` were not measured.
    """

    baseline: CellView
    options: tuple[JudgedCell, ...]
    metric: str
    best: JudgedCell | None
    level: tuple[CellView, ...]
    doubt: str
    slopes: Slopes
    beyond: float
    failed: tuple[CellView, ...]

    @property
    def shipped(self) -> CellView:
        """Return the cell to ship."""
        return self.best.view if self.best else self.baseline

    @property
    def nearest(self) -> JudgedCell | None:
        """Return the option of most worth, shipped or not."""
        judged = [o for o in self.options if o.against.ratio(self.metric)]
        return max(judged, key=lambda o: worth_of(o, self.metric), default=None)


def decide(views: Sequence[CellView]) -> list[Decision]:
    """Return one decision for each model on each machine of which a cell was measured, in order."""
    groups: dict[tuple[str, ...], list[CellView]] = {}
    for view in views:
        source = view.record.source
        groups.setdefault((source.name, source.weights_sha256, view.device), []).append(view)
    return [_decide(group) for group in groups.values() if any(view.measured for view in group)]


def _decide(group: Sequence[CellView]) -> Decision:
    views = [view for view in group if view.measured]
    baseline = baseline_of(views)
    found = differences_from(baseline, views)
    metric = _deciding([differences for _, differences in found], views)
    judged = [JudgedCell(v, d, d.verdict(metric)) for v, d in found]
    better = [o for o in judged if o.beside == "better"]
    best = max(better, key=lambda o: worth_of(o, metric), default=None)
    options = _beside(best, judged, metric) if best else tuple(judged)
    best = next((o for o in options if o.beside == "best"), None)
    slopes, beyond = _slopes(baseline.record)
    return Decision(
        baseline=baseline,
        options=options,
        metric=metric,
        best=best,
        level=_level(options, metric) if best else (),
        doubt=_doubt(options, metric),
        slopes=slopes,
        beyond=beyond,
        failed=tuple(view for view in group if not view.measured),
    )


def baseline_of(views: Sequence[CellView]) -> CellView:
    """Return the baseline of some measured cells: fp32, or else the first."""
    return next((v for v in views if v.cell.precision == "fp32"), views[0])


def _deciding(found: Sequence[Differences], views: Sequence[CellView]) -> str:
    """Return the first deciding metric that an option has a difference in, or any cell a value."""
    for metric in DECIDING:
        if any(metric in differences.by_metric for differences in found):
            return metric
    return next((m for m in DECIDING if any(v.value(m) is not None for v in views)), "")


def worth_of(option: JudgedCell, metric: str) -> float:
    """Return how many times as good as the baseline an option is in a metric; 0 if unknown."""
    ratio = option.against.ratio(metric)
    if ratio is None:
        return 0.0
    less = metric in BY_NAME and BY_NAME[metric].less_is_better
    return 1 / ratio.value if less and ratio.value else ratio.value


def _beside(best: JudgedCell, judged: Sequence[JudgedCell], metric: str) -> tuple[JudgedCell, ...]:
    """Judge each other option beside the best, in pairs of their own."""
    rest = differences_from(best.view, [option.view for option in judged])
    verdicts = {id(view): differences.verdict(metric) for view, differences in rest}
    return tuple(option._replace(beside=verdicts.get(id(option.view), "best")) for option in judged)


def _level(options: Sequence[JudgedCell], metric: str) -> tuple[CellView, ...]:
    """Return the options that are better than the baseline, and not surely worse than the best."""
    return tuple(
        option.view
        for option in options
        if option.against.verdict(metric) == "better" and option.beside in ("same", "unknown")
    )


def _doubt(options: Sequence[JudgedCell], metric: str) -> str:
    """Return the reason if no option can be judged."""
    found = [d.ratio for o in options if (d := o.against.by_metric.get(metric))]
    reasons = [ratio.reason for ratio in found if isinstance(ratio, Absent)]
    return reasons[0] if reasons and len(reasons) == len(found) else ""


def _slopes(record: Profile) -> tuple[Slopes, float]:
    law, flops = law_of(record), record.flops
    if not isinstance(law, Law) or not isinstance(flops, Flops):
        return slopes_for(law, []), 1.0
    return slopes_for(law, [flops.per_token]), extrapolation(law, flops.per_token)


def differences_from(
    baseline: CellView, others: Sequence[CellView], drawn: bool = True
) -> list[tuple[CellView, Differences]]:
    """Compare each other measured cell with one: ratios are other / baseline.

    Those that are not `drawn` have no intervals.
    """
    rest = [view for view in others if view is not baseline and view.measured]
    if not rest:
        return []
    compared = compare_views(baseline, rest, drawn)
    return [(v, differences_of(c)) for v, c in zip(rest, compared, strict=True)]


def differences_of(comparison: Comparison) -> Differences:
    """Return the differences of two cells by metric."""
    return Differences({d.metric: d for d in comparison.differences})
