"""Compare two cells: the ratio of each metric with its 95 % interval, and a verdict.

    better, worse   the whole interval is on one side of 1, and the effect exceeds the margin
    same            the whole interval lies within the margin
    unknown         neither, or the two do not measure the same thing

Documents are resampled in pairs if both cells scored the same corpus; rounds in pairs if the cells
were timed in turns, else independently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import msgspec

from edgecap import stats
from edgecap.analysis import score
from edgecap.analysis.cell_view import CellView, cell_views
from edgecap.analysis.compared_pair import (
    ComparedCell,
    ComparedPair,
    compared_cell,
    compared_pair,
)
from edgecap.analysis.draws import (
    BLOCK,
    Quantities,
    drawn_medians,
    keep_freed_memory,
    quantities,
    round_ratios,
)
from edgecap.analysis.law import doublings, factors
from edgecap.analysis.metrics import COMPARED, Metric, verdict
from edgecap.analysis.outcomes import failure_of
from edgecap.analysis.pairing import CellPair, MissingCell, pair_cells
from edgecap.analysis.warnings.quality import DECODED, NOT_SCORED
from edgecap.errors import UsageError
from edgecap.record import Absent, Estimate, Profile
from edgecap.stats import Quantity

_BASELINE_SEED, _CANDIDATE_SEED = 101, 202  # so that the draws of the two are independent


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
    return _compare_pairs(pairs)


def compare_views(
    baseline: CellView, others: Sequence[CellView], drawn: bool = True
) -> list[Comparison]:
    """Compare one measured cell with each of some others, of its record or of others.

    Ratios that are not `drawn` have no intervals.
    """
    return _compare_pairs([(baseline, other) for other in others], drawn)


def _compare_pairs(pairs: Sequence[CellPair], drawn: bool = True) -> list[Comparison]:
    """Compare pairs; draw those at once whose baselines are alike, and whose candidates are."""
    comparisons: dict[int, Comparison] = {}
    alike: dict[Hashable, list[tuple[int, ComparedPair]]] = {}
    below: ComparedCell | None = None
    for place, (baseline, candidate) in enumerate(pairs):
        failure = _failure(candidate)
        if isinstance(candidate, MissingCell) or failure:
            comparisons[place] = _failed(baseline, candidate.label, failure)
            continue
        if below is None or below.view is not baseline:  # pairs of one baseline are adjacent
            below = compared_cell(baseline)
        pair = compared_pair(below, compared_cell(candidate))
        alike.setdefault(pair.likeness, []).append((place, pair))
    keep_freed_memory()
    seed = _BASELINE_SEED if drawn else None
    baselines: list[CellView] = []
    for group in alike.values():
        for start in range(0, len(group), BLOCK):
            places, block = zip(*group[start : start + BLOCK], strict=True)
            if baselines != (needed := _baselines(block)):
                baselines, theirs = needed, quantities(needed, seed)
            comparisons |= dict(zip(places, _compare_block(theirs, block, drawn), strict=True))
    return [comparisons[place] for place in range(len(pairs))]


def _baselines(block: Sequence[ComparedPair]) -> list[CellView]:
    """Return the baseline of each pair, or the one that all of them share."""
    views = [pair.baseline for pair in block]
    return views[:1] if all(view is views[0] for view in views) else views


def _failure(candidate: CellView | MissingCell) -> str:
    """Return why a candidate was not measured; empty if it was."""
    if isinstance(candidate, MissingCell):
        return "the record does not hold it"
    return failure_of(candidate.cell)


def _compare_block(
    theirs: Quantities, block: Sequence[ComparedPair], drawn: bool
) -> list[Comparison]:
    """Compare at most BLOCK pairs that are alike; `theirs` are the quantities of baselines."""
    import numpy as np

    with np.errstate(all="ignore"):  # a candidate without a finite value is not compared
        candidates = [pair.candidate for pair in block]
        above = quantities(candidates, _CANDIDATE_SEED if drawn else None)
        columns = [
            _worth(m, theirs, above, block, drawn)
            if m.name.startswith("effective_flops")
            else _difference(m, theirs[m.name], above[m.name], block, drawn)
            for m in COMPARED
        ]
    return [
        Comparison(
            baseline=pair.baseline.label,
            candidate=pair.candidate.label,
            one_after_another=not pair.in_turns,
            mismatches=tuple(pair.mismatches.values()),
            differences=tuple(d for d in differences if d is not None),
            decoding=tuple(note for view in pair.views for note in _decoding_notes(view)),
        )
        for pair, differences in zip(block, zip(*columns, strict=True), strict=True)
    ]


def _decoding_notes(view: CellView) -> list[str]:
    """Return the caution on the quality of decoded tokens, with the name of the cell."""
    return [
        f"{view.name}: {caution.message}; {caution.advice}"
        for caution in view.cell.cautions
        if caution.code in (DECODED, NOT_SCORED)
    ]


def _failed(baseline: CellView, candidate: str, reason: str) -> Comparison:
    return Comparison(baseline.label, candidate, True, (), (), failed=reason)


# The values of one metric for each pair of a block; a column of differences, None where none.
_Column = list[Difference | None]


def _difference(
    metric: Metric,
    x: Quantity | Absent,
    y: Quantity | Absent,
    block: Sequence[ComparedPair],
    drawn: bool,
) -> _Column:
    """Compare one metric of alike pairs; nothing is compared if neither side has it."""
    values = list(zip(_values(x, len(block)), _values(y, len(block)), strict=True))
    if isinstance(x, Absent) or isinstance(y, Absent):
        return [_one_sided(metric, *both) for both in values]
    ratio = _rounds_ratio(metric.name, block, drawn) or _ratio(x, y)
    judged = _judged(metric, values, ratio, block)
    return [_checked(metric, *both, d) for both, d in zip(values, judged, strict=True)]


def _values(quantity: Quantity | Absent, number: int) -> list[float | None]:
    """Return the value of each of a number of cells, None where it has no finite one."""
    if isinstance(quantity, Absent):
        return [None] * number
    values = [value if math.isfinite(value) else None for value in quantity[0][:, 0].tolist()]
    return values if len(values) == number else values * number


def _one_sided(metric: Metric, before: float | None, after: float | None) -> Difference | None:
    if before is None and after is None:
        return None
    return _unknown(metric, before, after, "measured on one side only")


def _checked(
    metric: Metric, before: float | None, after: float | None, judged: Difference
) -> Difference | None:
    """Return the judgement if both values have a ratio."""
    if before is None or after is None:
        return _one_sided(metric, before, after)
    if before > 0 and after > 0:
        return judged
    return _unknown(metric, before, after, "no ratio of numbers that are not positive")


def _judged(
    metric: Metric,
    values: Sequence[tuple[float | None, float | None]],
    ratio: Quantity,
    block: Sequence[ComparedPair],
    of: Callable[[Any], Any] | None = None,
) -> list[Difference]:
    """Return the verdicts on ratios, unless the cells were measured in ways that forbid one.

    With `of`, the ratios are that of what `ratio` holds.
    """
    pair = block[0]
    reason = (
        _mismatch(metric, pair) or _too_few_rounds(metric, pair) or _assumed_joules(metric, pair)
    )
    if reason:
        return [_unknown(metric, *both, reason) for both in values]
    estimates = _estimates(ratio, of)
    margins = _margins(metric, block)
    return [
        Difference(
            metric.name,
            metric.unit,
            *both,
            estimate,
            margin,
            verdict(estimate, metric.less_is_better, margin),
        )
        for both, estimate, margin in zip(values, estimates, margins, strict=True)
    ]


def _estimates(ratio: Quantity, of: Callable[[Any], Any] | None) -> list[Estimate]:
    ratios = (of(ratio[0]) if of else ratio[0])[:, 0].tolist()
    return stats.intervals(ratios, ratio[1], of)


# --- worth ------------------------------------------------------------------------------------

# What effective FLOPs of decoded tokens are divided by.
_COSTS = {"effective_flops_per_s": "decode_s", "effective_flops_per_j": "decode_j"}


def _worth(
    metric: Metric,
    below: Quantities,
    above: Quantities,
    block: Sequence[ComparedPair],
    drawn: bool,
) -> _Column:
    """Compare effective FLOPs: the compute-equivalent gain, times that in speed or in energy.

    It is of bits of the same documents. The bias of the text cancels, so that a text without a card
    has ratios as well. Logarithms are drawn: the bounds of their intervals alone become ratios.
    """
    import numpy as np

    cost = _COSTS.get(metric.name)
    worth = _doublings("decoded_gain" if cost else "gain_bits_per_token", below, above, block)
    if worth is None:
        return [None] * len(block)
    if cost:
        if isinstance(below[cost], Absent) or isinstance(above[cost], Absent):
            return [None] * len(block)
        in_turns = _rounds_ratio(cost, block, drawn, np.log2)
        slower = in_turns or _minus(_log(cost, above), _log(cost, below))
        worth = _minus(worth, slower)
    values = [(p.below.effective[metric.name], p.above.effective[metric.name]) for p in block]
    return [*_judged(metric, values, worth, block, factors)]


def _doublings(
    gain: str, below: Quantities, above: Quantities, block: Sequence[ComparedPair]
) -> Quantity | None:
    """Return log2 of the compute-equivalent gain of alike pairs; None if either has no bits."""
    baseline, candidate = below[gain], above[gain]
    if isinstance(baseline, Absent) or isinstance(candidate, Absent):
        return None
    return doublings(baseline, candidate, block[0].slopes)


def decoded_gain(baseline: CellView, candidate: CellView) -> Estimate | None:
    """Return the compute-equivalent gain of the decoded tokens of a measured cell over another's.

    Times the gain in speed, it is the ratio of their effective FLOPs a second. It needs no seconds.
    None if either has no bits.
    """
    import numpy as np

    pair = compared_pair(compared_cell(baseline), compared_cell(candidate))
    below, above = quantities([baseline], _BASELINE_SEED), quantities([candidate], _CANDIDATE_SEED)
    worth = _doublings("decoded_gain", below, above, [pair])
    return worth and _estimates(worth, np.exp2)[0]


def _log(cost: str, values: Quantities) -> Quantity:
    """Return log2 of seconds or joules that are there, but for a constant."""
    known = values["log_decode_s"] if cost == "decode_s" else score.log_cost(values[cost])
    assert not isinstance(known, Absent)
    return known


def _unknown(metric: Metric, before: float | None, after: float | None, reason: str) -> Difference:
    return Difference(
        metric.name, metric.unit, before, after, Absent(reason=reason), metric.margin, "unknown"
    )


def _mismatch(metric: Metric, pair: ComparedPair) -> str | None:
    """Return the first condition that the metric needs and in which the two differ."""
    name = next((name for name in pair.mismatches if name in metric.needs), None)
    return name and f"the {name} differs"


def _too_few_rounds(metric: Metric, pair: ComparedPair) -> str | None:
    """Return a reason if either cell has fewer rounds of its seconds than a verdict needs."""
    if not metric.rounds:
        return None
    rounds = min(len(view.rounds[metric.rounds]) for view in pair.views)
    few = rounds < stats.FEW_ROUNDS
    return f"{rounds} rounds are too few for a verdict; raise --limit" if few else None


def _assumed_joules(metric: Metric, pair: ComparedPair) -> str | None:
    """Return a reason if the joules come from watts that the user gave: they are no measurement."""
    energies = [view.energy for view in pair.views] if metric.unit == "J" else []
    scored = (score.scored_energy(energy) for energy in energies if energy)
    return next((absent.reason for absent in scored if isinstance(absent, Absent)), None)


def _margins(metric: Metric, block: Sequence[ComparedPair]) -> list[float]:
    """Return margins: of seconds of cells not timed in turns, at least the drift within each."""
    if block[0].in_turns or not metric.rounds:
        return [metric.margin] * len(block)
    return [max(metric.margin, pair.drift[metric.rounds]) for pair in block]


# --- ratios -----------------------------------------------------------------------------------


def _ratio(x: Quantity, y: Quantity) -> Quantity:
    """Return y / x, with draws if both have some: a value measured once is not exact."""
    return y[0] / x[0], None if x[1] is None or y[1] is None else y[1] / x[1]


def _minus(x: Quantity, y: Quantity) -> Quantity:
    return x[0] - y[0], None if x[1] is None or y[1] is None else x[1] - y[1]


def _rounds_ratio(
    name: str,
    block: Sequence[ComparedPair],
    drawn: bool,
    of: Callable[[Any], Any] | None = None,
) -> Quantity | None:
    """Return the median ratio of adjacent rounds, or `of` it, if the cells were timed in turns."""
    if not block[0].in_turns or name not in _TIMED:
        return None
    ratios = round_ratios(_baselines(block), [pair.candidate for pair in block], name)
    return drawn_medians(ratios, stats.SEED if drawn else None, of) if ratios.size else None


_TIMED = ("prefill_s", "decode_s")
