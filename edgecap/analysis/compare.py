"""Compare two cells: the ratio of each metric with its 95 % interval, and a verdict.

    better, worse   the whole interval is on one side of 1, and the effect exceeds the margin
    same            the whole interval lies within the margin
    unknown         neither, or the two do not measure the same thing

Documents are resampled in pairs if both cells scored the same corpus; rounds in pairs if the cells
were timed in turns, else independently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import msgspec

from edgecap import stats
from edgecap.analysis import metrics, score
from edgecap.analysis.cell_view import CellView, cell_views
from edgecap.analysis.decoding import decoding_shift
from edgecap.analysis.law import Slopes, equivalent_gain, law_of, slopes_for
from edgecap.analysis.metrics import BY_NAME, COMPARED, Metric
from edgecap.analysis.outcomes import failure_text
from edgecap.analysis.pairing import MissingCell, pair_cells
from edgecap.analysis.run_conditions import mismatches
from edgecap.analysis.warnings.quality import DECODED, NOT_SCORED
from edgecap.errors import UsageError
from edgecap.record import (
    Absent,
    Decode,
    Estimate,
    Failure,
    Flops,
    Latency,
    Prefill,
    Profile,
)
from edgecap.stats import Quantity

FEW_ROUNDS = 5  # with fewer, the interval of a median is the range of the samples
_BASELINE_SEED, _CANDIDATE_SEED = 101, 202  # so that the draws of the two are independent

Quantities = dict[str, Quantity | Absent]


class Difference(msgspec.Struct, frozen=True):
    """One metric of two cells: values, `ratio` = candidate / baseline, and the verdict.

    `margin` is the relative difference that the verdict took as none.
    """

    metric: str
    unit: str
    baseline: float | None
    candidate: float | None
    ratio: Estimate | Absent
    margin: float
    verdict: str


class Comparison(msgspec.Struct, frozen=True):
    """Two cells by label, the conditions in which they differ, and the difference in each metric.

    `one_after_another` is true if the two were not timed in turns: drift of the machine is then in
    the ratios. `failed` says why the candidate was not measured; then there are no differences.
    `decoding` tells of either cell whose decoded tokens are not as close to fp32 as its text.
    """

    baseline: str
    candidate: str
    one_after_another: bool
    mismatches: tuple[str, ...]
    differences: tuple[Difference, ...]
    failed: str | None = None
    decoding: tuple[str, ...] = ()


def compare(records: Sequence[Profile], baseline: str | None = None) -> list[Comparison]:
    """Compare the cells of one or more records.

    One record: the baseline (default fp32, else the first cell) against each other cell. Several
    records: each cell of the first with its like in the others, or the baseline of the first
    against all cells. `baseline` reads `precision=fp16` or `precision=fp16,provider=cpu`. A
    candidate that failed, or that a record lacks, gives a comparison without differences. Raise
    UsageError if nothing matches.
    """
    pairs = pair_cells(records, cell_views(records), baseline)
    if not pairs:
        raise UsageError("nothing to compare: the records hold no two cells that were measured")
    comparisons: list[Comparison] = []
    for _, group in groupby(pairs, key=lambda pair: id(pair[0])):
        comparisons += _compare_with_each(list(group))
    return comparisons


def _compare_with_each(
    pairs: Sequence[tuple[CellView, CellView | MissingCell]],
) -> list[Comparison]:
    """Compare one baseline with its candidates; draw the baseline once."""
    baseline = pairs[0][0]
    drawn = metrics.quantities(baseline.record, baseline.cell, _BASELINE_SEED)
    return [_compare(baseline, drawn, candidate) for _, candidate in pairs]


def _compare(
    baseline: CellView, drawn: Quantities, candidate: CellView | MissingCell
) -> Comparison:
    if isinstance(candidate, MissingCell):
        return _failed(baseline, candidate.label, "the record does not hold it")
    if isinstance(candidate.cell.outcome, Failure):
        return _failed(baseline, candidate.label, failure_text(candidate.cell.outcome))
    different = mismatches(baseline.conditions, candidate.conditions)
    pair = _Pair(baseline, candidate, different, _in_turns(baseline, candidate))
    other = metrics.quantities(candidate.record, candidate.cell, _CANDIDATE_SEED)
    differences = (
        _worth(m, drawn, other, pair)
        if m.name.startswith("effective_flops")
        else _difference(m, drawn[m.name], other[m.name], pair)
        for m in COMPARED
    )
    return Comparison(
        baseline=baseline.label,
        candidate=candidate.label,
        one_after_another=not pair.in_turns,
        mismatches=tuple(pair.mismatches.values()),
        differences=tuple(d for d in differences if d is not None),
        decoding=tuple(note for view in pair.views for note in _decoding_notes(view)),
    )


def _in_turns(baseline: CellView, candidate: CellView) -> bool:
    return baseline.place == candidate.place and all(
        view.latency is not None and view.latency.in_turns for view in (baseline, candidate)
    )


def _decoding_notes(view: CellView) -> list[str]:
    """Return the caution on the quality of decoded tokens, with the name of the cell."""
    return [
        f"{view.name}: {caution.message}; {caution.advice}"
        for caution in view.cell.cautions
        if caution.code in (DECODED, NOT_SCORED)
    ]


def _failed(baseline: CellView, candidate: str, reason: str) -> Comparison:
    return Comparison(baseline.label, candidate, True, (), (), failed=reason)


class _Pair(NamedTuple):
    """Two measured cells, and the sentence for each condition in which they differ.

    `in_turns` is true if the two were timed round by round together.
    """

    baseline: CellView
    candidate: CellView
    mismatches: dict[str, str]
    in_turns: bool

    @property
    def views(self) -> tuple[CellView, CellView]:
        """Return both cells."""
        return self.baseline, self.candidate


def _difference(
    metric: Metric, x: Quantity | Absent, y: Quantity | Absent, pair: _Pair
) -> Difference | None:
    """Compare one metric of two cells; return None if neither has it."""
    if isinstance(x, Absent) and isinstance(y, Absent):
        return None
    if isinstance(x, Absent) or isinstance(y, Absent):
        return _unknown(metric, x, y, "measured on one side only")
    if min(x[0], y[0]) <= 0:
        return _unknown(metric, x, y, "no ratio of numbers that are not positive")
    return _judged(metric, x, y, _rounds_ratio(metric, pair) or _ratio(x, y), pair)


def _judged(
    metric: Metric, x: Quantity | Absent, y: Quantity | Absent, ratio: Quantity, pair: _Pair
) -> Difference:
    """Return the verdict on a ratio, unless the two were measured in ways that forbid one."""
    reason = (
        _mismatch(metric, pair) or _too_few_rounds(metric, pair) or _assumed_joules(metric, pair)
    )
    if reason:
        return _unknown(metric, x, y, reason)
    before, after = (None if isinstance(q, Absent) else q[0] for q in (x, y))
    margin, estimate = _margin(metric, pair), stats.interval(*ratio)
    judged = verdict(estimate, metric.less_is_better, margin)
    return Difference(metric.name, metric.unit, before, after, estimate, margin, judged)


# --- worth ------------------------------------------------------------------------------------

# What effective FLOPs of decoded tokens are divided by.
_COSTS = {"effective_flops_per_s": "decode_s", "effective_flops_per_j": "decode_j"}


def _worth(metric: Metric, below: Quantities, above: Quantities, pair: _Pair) -> Difference | None:
    """Compare effective FLOPs: the compute-equivalent gain, times that in speed or in energy.

    It is of bits of the same documents. The bias of the text cancels, so that a text without a card
    has ratios as well.
    """
    cost, x, y = _COSTS.get(metric.name), below[metric.name], above[metric.name]
    gains = [_gain(v, of, decoded=cost is not None) for v, of in _sides(pair, below, above)]
    costs = [of[cost] for of in (below, above)] if cost else []
    baseline, candidate = gains
    if isinstance(baseline, Absent) or isinstance(candidate, Absent):
        return None
    placed = [of["effective_flops"] for of in (below, above)]
    ratio = equivalent_gain(baseline, candidate, _slopes(pair, placed))
    if not costs:
        return _judged(metric, x, y, ratio, pair)
    before, after = costs
    if isinstance(before, Absent) or isinstance(after, Absent):
        return None
    slower = _rounds_ratio(BY_NAME[cost or ""], pair) or _ratio(before, after)
    draws = None if ratio[1] is None or slower[1] is None else ratio[1] / slower[1]
    return _judged(metric, x, y, (ratio[0] / slower[0], draws), pair)


def _sides(
    pair: _Pair, below: Quantities, above: Quantities
) -> tuple[tuple[CellView, Quantities], tuple[CellView, Quantities]]:
    return (pair.baseline, below), (pair.candidate, above)


def _gain(view: CellView, values: Quantities, decoded: bool) -> Quantity | Absent:
    shift = decoding_shift(view.record, view.cell) if decoded else 0.0
    return score.decoded_gain(values["gain_bits_per_token"], shift)


def _slopes(pair: _Pair, effective: Sequence[Quantity | Absent]) -> Slopes:
    """Return the slopes of the law that may hold for both, here and where their bits place them.

    `effective` are their FLOPs a token by their bits.
    """
    flops = [v.record.flops.per_token for v in pair.views if isinstance(v.record.flops, Flops)]
    placed = [q[0] for q in effective if not isinstance(q, Absent)]
    return slopes_for(law_of(pair.baseline.record), [*flops, *placed])


def _unknown(metric: Metric, x: Quantity | Absent, y: Quantity | Absent, reason: str) -> Difference:
    before, after = (None if isinstance(q, Absent) else q[0] for q in (x, y))
    return Difference(
        metric.name, metric.unit, before, after, Absent(reason=reason), metric.margin, "unknown"
    )


def _mismatch(metric: Metric, pair: _Pair) -> str | None:
    """Return the first condition that the metric needs and in which the two differ."""
    name = next((name for name in pair.mismatches if name in metric.needs), None)
    return name and f"the {name} differs"


def _too_few_rounds(metric: Metric, pair: _Pair) -> str | None:
    """Return a reason if either cell has fewer rounds of its seconds than a verdict needs."""
    if not metric.rounds:
        return None
    rounds = min(len(_medians_by_round(view, metric.rounds)) for view in pair.views)
    return (
        f"{rounds} rounds are too few for a verdict; raise --limit" if rounds < FEW_ROUNDS else None
    )


def _assumed_joules(metric: Metric, pair: _Pair) -> str | None:
    """Return a reason if the joules come from watts that the user gave: they are no measurement."""
    energies = [view.energy for view in pair.views] if metric.unit == "J" else []
    scored = (score.scored_energy(energy) for energy in energies if energy)
    return next((absent.reason for absent in scored if isinstance(absent, Absent)), None)


def _margin(metric: Metric, pair: _Pair) -> float:
    """Return the margin: of cells not timed in turns, at least the drift within each."""
    if pair.in_turns:
        return metric.margin
    timed = metric.rounds or metric.name
    return max(metric.margin, *(_drift(view, timed) for view in pair.views))


# --- ratios -----------------------------------------------------------------------------------


def _ratio(x: Quantity, y: Quantity) -> Quantity:
    """Return y / x, with draws if both have some: a value measured once is not exact."""
    return y[0] / x[0], None if x[1] is None or y[1] is None else y[1] / x[1]


def _rounds_ratio(metric: Metric, pair: _Pair) -> Quantity | None:
    """Return the median ratio of adjacent rounds if the cells were timed in turns."""
    if not pair.in_turns or metric.name not in _TIMED:
        return None
    below, above = (_medians_by_round(view, metric.name) for view in pair.views)
    ratios = [above[n] / below[n] for n in below if n in above]
    if not ratios:
        return None
    return stats.median(ratios), stats.bootstrap_medians(ratios) if len(ratios) > 1 else None


_TIMED: dict[str, Callable[[Latency], Prefill | Decode | Absent]] = {
    "prefill_s": lambda latency: latency.prefill,
    "decode_s": lambda latency: latency.decode,
}


def _timed(latency: Latency | None, name: str) -> Prefill | Decode | None:
    part = _TIMED[name](latency) if latency and name in _TIMED else None
    return part if isinstance(part, Prefill | Decode) else None


@lru_cache(maxsize=64)  # several metrics of a pair use the rounds of its views
def _medians_by_round(view: CellView, name: str) -> dict[int, float]:
    part = _timed(view.latency, name)
    if part is None:
        return {}
    medians = stats.round_medians(part.samples_s, part.rounds)
    return dict(zip(dict.fromkeys(part.rounds), medians, strict=True))


def _drift(view: CellView, name: str) -> float:
    """Return the spread of rounds within a run, which bounds the drift between two runs."""
    medians = list(_medians_by_round(view, name).values())
    return stats.spread_of_medians(medians) if medians else 0.0


# --- the verdict ------------------------------------------------------------------------------


def verdict(ratio: Estimate, less_is_better: bool, margin: float) -> str:
    """Return better, same, worse or unknown.

    A ratio without an interval must exceed the margin three times.
    """
    if ratio.low is None or ratio.high is None:
        return _verdict_without_interval(ratio.value, less_is_better, margin)
    if 1 - margin <= ratio.low and ratio.high <= 1 + margin:
        return "same"
    if ratio.low > 1 and ratio.value > 1 + margin:
        return "worse" if less_is_better else "better"
    if ratio.high < 1 and ratio.value < 1 - margin:
        return "better" if less_is_better else "worse"
    return "unknown"


def _verdict_without_interval(ratio: float, less_is_better: bool, margin: float) -> str:
    if 1 / (1 + margin) <= ratio <= 1 + margin:
        return "same"
    if 1 / (1 + 3 * margin) <= ratio <= 1 + 3 * margin:
        return "unknown"
    return "better" if (ratio < 1) == less_is_better else "worse"
