"""Two cells side by side: each metric's ratio with its 95 % interval, and a verdict.

    better, worse   the whole interval is on one side of 1, and the effect is larger than the margin
    same            the whole interval lies within the margin
    unknown         neither, or the two do not measure the same thing

Documents are resampled in pairs where both cells scored the same corpus; rounds in pairs where the cells took
turns, else on their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import msgspec

from edgecap import stats
from edgecap.analysis import metrics, score
from edgecap.analysis.cell_labels import CellView, choices
from edgecap.analysis.metrics import (
    METRICS,
    Metric,
    compression_of,
    energy_of,
    latency_of,
    status,
    told,
)
from edgecap.analysis.score import Quantity
from edgecap.errors import UsageError
from edgecap.parsing import parse_pairs
from edgecap.provider_options import base
from edgecap.record import Absent, Decode, Estimate, Failure, Latency, Measurement, Prefill, Profile

CellPair = tuple[
    CellView, CellView | str
]  # baseline, and candidate or the name of one that is not there


class Difference(msgspec.Struct, frozen=True):
    """One metric of two cells: values, `ratio` = candidate / baseline with its interval, and the verdict.

    `margin` is what the verdict took as no difference worth naming.
    """

    metric: str
    unit: str
    baseline: float | None
    candidate: float | None
    ratio: Estimate | Absent
    margin: float
    verdict: str


class Comparison(msgspec.Struct, frozen=True):
    """Two cells by name, what differs between their runs beside the variant, and every metric.

    `one_after_another`: the two were not timed in turns, so that drift of the machine is in their ratio.
    `failed` says why the candidate was not measured; then there are no differences.
    """

    baseline: str
    candidate: str
    one_after_another: bool
    mismatches: tuple[str, ...]
    differences: tuple[Difference, ...]
    failed: str | None = None


def compare(records: Sequence[Profile], baseline: str | None = None) -> list[Comparison]:
    """Compares the cells of one or more records.

    One record: the baseline (default fp32, else the first cell) against each other cell. Several records:
    like with like, or the baseline of the first against all cells. `baseline` reads
    `precision=fp16` or `precision=fp16,provider=cpu`. A candidate that failed, or that
    a record does not hold, is a comparison without differences. Raises UsageError where nothing matches.
    """
    everything = choices(records)
    pairs = _pairs(records, everything, baseline)
    if not pairs:
        raise UsageError("nothing to compare: the records hold no two cells that were measured")
    below = {
        id(a): _Side(a, 101) for a in {id(a): a for a, _ in pairs}.values()
    }  # each once, however many pairs
    return [_compare(below[id(a)], b) for a, b in pairs]


class _Side:
    """A cell with what a comparison needs of it, worked out once however many it is compared with."""

    def __init__(self, choice: CellView, seed: int) -> None:
        self.choice = choice
        self.name = choice.label
        self.figures = metrics.quantities(choice.record, choice.cell, seed)
        self.circumstances = circumstances(choice)
        self.latency = latency_of(choice.cell)
        self.drift = {name: _drift(self.latency, name) for name in _SECONDS}

    @cached_property
    def rounds(self) -> dict[str, dict[int, float]]:
        """Medians of each round, by metric."""
        return {name: _medians_by_round(self.latency, name) for name in _SECONDS}


def _pairs(
    records: Sequence[Profile], everything: list[CellView], baseline: str | None
) -> list[CellPair]:
    if len(records) > 1 and baseline is None:
        return _likes(everything, records)
    base = _pick([c for c in everything if c.place == 0], baseline)
    return [(base, c) for c in everything if c is not base and status(c.cell) != "left out"]


def _likes(everything: list[CellView], records: Sequence[Profile]) -> list[CellPair]:
    """Each measured cell of the first record with those of the others that have its precision and provider.

    Where another record has none, its place is taken by a name: a loss is told, not dropped.
    """
    rest: dict[tuple[str, str, int], list[CellView]] = {}
    for choice in everything:
        rest.setdefault((choice.cell.precision, choice.cell.provider, choice.place), []).append(
            choice
        )
    first = [c for c in everything if c.place == 0 and _measured(c)]
    found: list[CellPair] = []
    for a in first:
        for place, record in list(enumerate(records))[1:]:
            others = rest.get((a.cell.precision, a.cell.provider, place), [])
            found += [(a, b) for b in others if status(b.cell) != "left out"]
            if not others:
                found.append(
                    (a, f"{a.cell.precision} ({record.source.name}, {record.created_utc})")
                )
    if first and all(isinstance(b, str) for _, b in found):
        raise UsageError(
            f"nothing to compare: no other record holds {_names(first)}; --baseline compares unlike cells"
        )
    return found


def _names(found: list[CellView]) -> str:
    return ", ".join(dict.fromkeys(f"{c.cell.precision} on {c.cell.provider}" for c in found))


def _measured(choice: CellView) -> bool:
    return isinstance(choice.cell.outcome, Measurement)


def parse_baseline(text: str) -> dict[str, str]:
    """Read `precision=NAME[,provider=NAME]`. Raise UsageError."""
    return parse_pairs(text, ("precision", "provider"))


def _pick(everything: list[CellView], baseline: str | None) -> CellView:
    usable = [c for c in everything if _measured(c)]
    if not usable:
        raise UsageError("nothing to compare: no cell was measured")
    if baseline is None:
        return next((c for c in usable if c.cell.precision == "fp32"), usable[0])
    wanted = parse_baseline(baseline)
    found = [
        c
        for c in usable
        if all(v in (getattr(c.cell, k), base(getattr(c.cell, k))) for k, v in wanted.items())
    ]
    if not found:
        have = ", ".join(f"precision={c.cell.precision},provider={c.cell.provider}" for c in usable)
        raise UsageError(f"no measured cell matches --baseline {baseline}; there are: {have}")
    return found[0]


def _compare(a: _Side, against: CellView | str) -> Comparison:
    if isinstance(against, str):
        return Comparison(a.name, against, True, (), (), failed="the record does not hold it")
    outcome = against.cell.outcome
    if isinstance(outcome, Failure):
        return Comparison(a.name, against.label, True, (), (), failed=told(outcome))
    b = _Side(against, 202)
    pairs = {what: (value, b.circumstances[what]) for what, value in a.circumstances.items()}
    mismatches = [
        what for what, (x, y) in pairs.items() if x != y and x is not None and y is not None
    ]
    in_turns = _in_turns(a, b)
    found = (_differ(metric, a, b, mismatches, in_turns) for metric in COMPARED)
    return Comparison(
        baseline=a.name,
        candidate=b.name,
        one_after_another=not in_turns,
        mismatches=tuple(
            _named(what, a.circumstances[what], b.circumstances[what]) for what in mismatches
        ),
        differences=tuple(d for d in found if d is not None),
    )


# Figures that are themselves beside something: fp32, or the roofline of the variant.
COMPARED = tuple(
    metric for metric in METRICS if metric.name not in ("divergence_bits", "roofline_ratio")
)

# What makes a metric or score incomparable when it differs between two runs.
_TEXT = {"corpus", "protocol", "window of the text", "stride of the windows"}
NEEDS = {
    "bits_per_byte": _TEXT,
    "gain_bits_per_token": {*_TEXT, "tokenizer"},
    "prefill_s": {"prompt length"},
    "decode_s": {"decode context"},
    "prefill_j": {"prompt length", "way of counting joules"},
    "decode_j": {"decode context", "way of counting joules"},
    "information_capacity": {*_TEXT, "bias"},
    "time_capacity": {*_TEXT, "bias", "decode context"},
    "energy_capacity": {*_TEXT, "bias", "decode context", "way of counting joules"},
    "hardware_capacity": {*_TEXT, "bias", "decode context", "way of counting joules"},
    "gain_bits_per_s": {*_TEXT, "tokenizer", "decode context"},
    "gain_bits_per_j": {*_TEXT, "tokenizer", "decode context", "way of counting joules"},
}


FEW_ROUNDS = 5  # with fewer, the interval of a median is the span of what was seen
_OF_SECONDS = {"prefill_s", "decode_s", "time_capacity", "hardware_capacity", "gain_bits_per_s"}


def _too_few(name: str, a: _Side, b: _Side) -> str | None:
    """Why seconds, and what is made of them, get no verdict: too few rounds before the time limit."""
    if name not in _OF_SECONDS:
        return None
    rounds = min(
        len(side.rounds["prefill_s" if name == "prefill_s" else "decode_s"]) for side in (a, b)
    )
    return (
        f"{rounds} rounds are too few for a verdict; raise --limit" if rounds < FEW_ROUNDS else None
    )


def _assumed(unit: str, a: _Side, b: _Side) -> str | None:
    """Why joules get no verdict: somebody gave the watts, nothing was measured."""
    energies = [energy_of(side.choice.cell) for side in (a, b)] if unit == "J" else []
    unscored = (score.scored_energy(energy) for energy in energies if energy)
    return next((why.reason for why in unscored if isinstance(why, Absent)), None)


def _why_not(name: str, mismatches: list[str]) -> str | None:
    found = [what for what in mismatches if what in NEEDS.get(name, set())]
    return f"the {found[0]} differs" if found else None


def circumstances(choice: CellView) -> dict[str, object]:
    """What a fair comparison holds equal, in words, beside the variant."""
    record = choice.record
    text, latency, joules = (
        compression_of(choice.cell),
        latency_of(choice.cell),
        energy_of(choice.cell),
    )
    return {
        "model": record.source.weights_sha256,
        "tokenizer": record.source.tokenizer_sha256,
        "corpus": record.corpus.sha256,
        "bias": record.corpus.bias_bits,
        "protocol": text and text.protocol,
        "window of the text": text and text.context,
        "stride of the windows": text and (text.stride or "none"),
        "prompt length": latency and latency.prefill.tokens,
        "decode context": round(latency.decode.context)
        if latency and isinstance(latency.decode, Decode)
        else None,
        "provider": choice.cell.provider,
        "machine": record.machine.name,
        "processor": record.machine.cpu,
        "number of threads": latency and latency.threads,
        "affinity": record.spec.affinity or "none",
        "graph optimisation level": record.spec.graph_level,
        "use of the memory arena": record.spec.arena,
        "way of counting joules": joules and (joules.provenance, joules.domains),
        "power source": record.machine.power_source,
        "set of library versions": record.machine.versions,
    }


def _named(what: str, x: object, y: object) -> str:
    """`threads differs: 2 against 4`; hashes are not shown, and of several versions those that differ."""
    if isinstance(x, dict) and isinstance(y, dict):
        names = [name for name in {**x, **y} if x.get(name) != y.get(name)]
        shown = [
            f"{name} {x.get(name, 'none')} against {y.get(name, 'none')}" for name in names[:4]
        ]
        return f"{what} differs: {', '.join(shown)}{f' and {len(names) - 4} more' if names[4:] else ''}"
    told = [_told(value) for value in (x, y)]
    return f"{what} differs" if None in told else f"{what} differs: {told[0]} against {told[1]}"


def _told(value: object) -> str | None:
    """A circumstance in words; None for a hash."""
    if value is None or isinstance(value, Absent):
        return "unknown"
    if isinstance(value, tuple):
        return " ".join(" ".join(part) if isinstance(part, tuple) else str(part) for part in value)
    return None if isinstance(value, str) and len(value) == 64 else str(value)


def _in_turns(a: _Side, b: _Side) -> bool:
    """Whether the two were timed round by round together."""
    return a.choice.place == b.choice.place and all(
        x is not None and x.in_turns for x in (a.latency, b.latency)
    )


def _round_ratios(name: str, a: _Side, b: _Side) -> Quantity | None:
    """The ratio of adjacent rounds, with its draws, where there are any."""
    below, above = a.rounds[name], b.rounds[name]
    ratios = [above[n] / below[n] for n in below if n in above]
    if not ratios:
        return None
    return stats.median(ratios), stats.draws_of_median(ratios) if len(ratios) > 1 else None


def _medians_by_round(latency: Latency | None, name: str) -> dict[int, float]:
    part = _SECONDS[name](latency) if latency else None
    if not isinstance(part, Prefill | Decode):
        return {}
    return dict(
        zip(dict.fromkeys(part.rounds), stats.by_round(part.samples_s, part.rounds), strict=True)
    )


def _drift(latency: Latency | None, name: str) -> float:
    """Rounds that drift within a run tell how far two runs may drift apart."""
    part = _SECONDS[name](latency) if latency else None
    return stats.spread(part.samples_s, part.rounds) if isinstance(part, Prefill | Decode) else 0.0


_SECONDS: dict[str, Callable[[Latency], Prefill | Decode | Absent]] = {
    "prefill_s": lambda x: x.prefill,
    "decode_s": lambda x: x.decode,
}


def _differ(
    metric: Metric, a: _Side, b: _Side, mismatches: list[str], in_turns: bool
) -> Difference | None:
    """One metric of the two; None where neither has it."""
    x, y = a.figures[metric.name], b.figures[metric.name]
    if isinstance(x, Absent) and isinstance(y, Absent):
        return None
    if isinstance(x, Absent) or isinstance(y, Absent):
        return _unknown(metric, x, y, "measured on one side only")
    reason = (
        _why_not(metric.name, mismatches)
        or _too_few(metric.name, a, b)
        or _assumed(metric.unit, a, b)
    )
    if reason or min(x[0], y[0]) <= 0:
        return _unknown(metric, x, y, reason or "no ratio of numbers that are not positive")
    paired = _round_ratios(metric.name, a, b) if in_turns and metric.name in _SECONDS else None
    ratio = score.estimate(*paired) if paired else _ratio(x, y)
    # Cells that took turns drift together; of others, the margin is at least the drift within each.
    margin = (
        metric.margin
        if in_turns
        else max(metric.margin, *(s.drift.get(metric.name, 0.0) for s in (a, b)))
    )
    found = verdict(ratio, metric.less_is_better, margin)
    return Difference(metric.name, metric.unit, x[0], y[0], ratio, margin, found)


def _unknown(metric: Metric, x: Quantity | Absent, y: Quantity | Absent, reason: str) -> Difference:
    before, after = (None if isinstance(q, Absent) else q[0] for q in (x, y))
    return Difference(
        metric.name, metric.unit, before, after, Absent(reason=reason), metric.margin, "unknown"
    )


def _ratio(x: Quantity, y: Quantity) -> Estimate:
    """With an interval where both sides have one: what was measured once is not exact."""
    drawn = None if x[1] is None or y[1] is None else y[1] / x[1]
    return score.estimate(y[0] / x[0], drawn)


def verdict(ratio: Estimate, less_is_better: bool, margin: float) -> str:
    """better, same, worse or unknown; a ratio without an interval must exceed the margin three times."""
    if ratio.low is None or ratio.high is None:
        return _verdict_of_one(ratio.value, less_is_better, margin)
    low, high = ratio.low, ratio.high
    if 1 - margin <= low and high <= 1 + margin:
        return "same"
    if low > 1 and ratio.value > 1 + margin:
        return "worse" if less_is_better else "better"
    if high < 1 and ratio.value < 1 - margin:
        return "better" if less_is_better else "worse"
    return "unknown"


def _verdict_of_one(ratio: float, less_is_better: bool, margin: float) -> str:
    if 1 / (1 + margin) <= ratio <= 1 + margin:
        return "same"
    if 1 / (1 + 3 * margin) <= ratio <= 1 + 3 * margin:
        return "unknown"
    return "better" if (ratio < 1) == less_is_better else "worse"
