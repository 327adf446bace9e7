"""Two cells side by side: each metric's ratio with its 95 % interval, and a verdict.

    better, worse   the whole interval is on one side of 1, and the effect is larger than the margin
    same            the whole interval lies within the margin
    unknown         neither, or the two do not measure the same thing

Documents are resampled in pairs where both cells scored the same corpus; rounds in pairs where the cells took
turns, else on their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from edgecap import score, stats
from edgecap.errors import UsageError, did_you_mean
from edgecap.provider_options import base
from edgecap.record import (
    Absent,
    Cell,
    Compression,
    Decode,
    Energy,
    Estimate,
    Latency,
    Measurement,
    Memory,
    Prefill,
    Profile,
)

Quantity = score.Quantity


class Metric(NamedTuple):
    """A quantity of a cell: its SI unit, whether less is better, and the margin of `same`."""

    name: str
    unit: str
    less_is_better: bool
    margin: float
    read: Callable[[Measurement, int], Quantity | None]


def _compression(read: Callable[[Compression], Quantity]) -> Callable[[Measurement, int], Quantity | None]:
    return lambda m, seed: read(m.compression) if isinstance(m.compression, Compression) else None


def _latency(read: Callable[[Latency, int], Quantity | Absent]) -> Callable[[Measurement, int], Quantity | None]:
    return lambda m, seed: _had(read(m.latency, seed)) if isinstance(m.latency, Latency) else None


def _energy(read: Callable[[Energy, int], Quantity | Absent]) -> Callable[[Measurement, int], Quantity | None]:
    return lambda m, seed: _had(read(m.energy, seed)) if isinstance(m.energy, Energy) else None


def _had(found: Quantity | Absent) -> Quantity | None:
    return None if isinstance(found, Absent) else found


def _memory(read: Callable[[Memory], int]) -> Callable[[Measurement, int], Quantity | None]:
    return lambda m, seed: (float(read(m.memory)), None) if isinstance(m.memory, Memory) else None


METRICS = (
    Metric("bits_per_byte", "bit/B", True, 0.005, _compression(score.bits_per_byte_draws)),
    Metric("gain_bits_per_token", "bit", False, 0.005, _compression(score.gain_draws)),
    Metric("prefill_s", "s", True, 0.05, _latency(score.prefill_seconds)),
    Metric("decode_s", "s", True, 0.05, _latency(score.decode_seconds)),
    Metric(
        "load_s", "s", True, 0.25, lambda m, seed: (m.latency.load_s, None) if isinstance(m.latency, Latency) else None
    ),
    Metric("prefill_j", "J", True, 0.05, _energy(score.prefill_joules)),
    Metric("decode_j", "J", True, 0.05, _energy(score.decode_joules)),
    Metric("peak_bytes", "B", True, 0.05, _memory(lambda m: m.peak_bytes)),
    Metric("file_bytes", "B", True, 0.01, _memory(lambda m: m.file_bytes)),
)
SCORES = ("information_capacity", "time_capacity", "energy_capacity", "hardware_capacity")
SCORE_MARGIN = 0.005


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
    """

    baseline: str
    candidate: str
    one_after_another: bool
    mismatches: tuple[str, ...]
    differences: tuple[Difference, ...]


class Choice(NamedTuple):
    """A cell with its record and that record's place among those given."""

    record: Profile
    cell: Cell
    place: int

    def name(self, others: Sequence[Choice]) -> str:
        """`int8`, with the provider and the record's time where those are needed to tell cells apart."""
        words = [self.cell.precision]
        if len({c.cell.provider for c in others}) > 1:
            words.append(self.cell.provider)
        if len({c.place for c in others}) > 1:
            words.append(f"({self.record.source.name}, {self.record.created_utc})")
        return " ".join(words)


def compare(records: Sequence[Profile], baseline: str | None = None) -> list[Comparison]:
    """Compares the cells of one or more records.

    One record: the baseline (default fp32, else the first cell) against each other cell. Two records:
    like with like, or the baseline of the first against all cells. `baseline` reads
    `precision=fp16` or `precision=fp16,provider=cpu`. Raises UsageError where nothing matches.
    """
    everything = [Choice(r, c, place) for place, r in enumerate(records) for c in r.cells]
    pairs = _pairs(records, everything, baseline)
    if not pairs:
        raise UsageError("nothing to compare: the records hold no two cells that were measured")
    return [_compare(a, b, everything) for a, b in pairs]


def _pairs(records: Sequence[Profile], everything: list[Choice], baseline: str | None) -> list[tuple[Choice, Choice]]:
    if len(records) > 1 and baseline is None:
        first = [c for c in everything if c.place == 0]
        rest = [c for c in everything if c.place > 0]
        return [(a, b) for a in first for b in rest if _key(a) == _key(b) and _measured(a) and _measured(b)]
    base = _pick([c for c in everything if c.place == 0], baseline)
    return [(base, c) for c in everything if c is not base and _measured(c)]


def _key(choice: Choice) -> tuple[str, str]:
    return choice.cell.precision, choice.cell.provider


def _measured(choice: Choice) -> bool:
    return isinstance(choice.cell.outcome, Measurement)


def _pick(everything: list[Choice], baseline: str | None) -> Choice:
    usable = [c for c in everything if _measured(c)]
    if not usable:
        raise UsageError("nothing to compare: no cell was measured")
    if baseline is None:
        return next((c for c in usable if c.cell.precision == "fp32"), usable[0])
    wanted = _parse(baseline)
    found = [c for c in usable if all(v in (getattr(c.cell, k), base(getattr(c.cell, k))) for k, v in wanted.items())]
    if not found:
        have = ", ".join(f"precision={c.cell.precision},provider={c.cell.provider}" for c in usable)
        raise UsageError(f"no measured cell matches --baseline {baseline}; there are: {have}")
    return found[0]


def _parse(baseline: str) -> dict[str, str]:
    wanted = {}
    for part in baseline.split(","):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or key not in ("precision", "provider"):
            hint = did_you_mean(key, ("precision", "provider"))
            raise UsageError(f"--baseline takes precision=NAME or provider=NAME, not '{part}'{hint}")
        wanted[key] = value.strip()
    return wanted


def _compare(a: Choice, b: Choice, everything: list[Choice]) -> Comparison:
    mismatches = _mismatches(a, b)
    return Comparison(
        baseline=a.name(everything),
        candidate=b.name(everything),
        one_after_another=not _in_turns(a, b),
        mismatches=tuple(f"{what} differs" for what in mismatches),
        differences=tuple([*_metrics(a, b, mismatches), *_scores(a, b, mismatches)]),
    )


# What makes a metric or score incomparable when it differs between two runs.
_TEXT = {"corpus", "protocol", "window of the text", "stride of the windows"}
_NEEDS = {
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
}


def _why_not(name: str, mismatches: list[str]) -> str | None:
    found = [what for what in mismatches if what in _NEEDS.get(name, set())]
    return f"the {found[0]} differs" if found else None


def _mismatches(a: Choice, b: Choice) -> list[str]:
    """What differs between two runs beside the variant, in words."""
    x, y = _circumstances(a), _circumstances(b)
    return [what for what in x if x[what] != y[what]]


def _circumstances(choice: Choice) -> dict[str, object]:
    record, outcome = choice.record, choice.cell.outcome
    measured = outcome if isinstance(outcome, Measurement) else None
    text = measured.compression if measured and isinstance(measured.compression, Compression) else None
    latency = measured.latency if measured and isinstance(measured.latency, Latency) else None
    joules = measured.energy if measured and isinstance(measured.energy, Energy) else None
    return {
        "model": record.source.weights_sha256,
        "tokenizer": record.source.tokenizer_sha256,
        "corpus": record.corpus.sha256,
        "bias": record.corpus.bias_bits,
        "protocol": text and text.protocol,
        "window of the text": text and text.context,
        "stride of the windows": text and text.stride,
        "prompt length": latency and latency.prefill.tokens,
        "decode context": round(latency.decode.context) if latency and isinstance(latency.decode, Decode) else None,
        "provider": choice.cell.provider,
        "machine": record.machine.name,
        "processor": record.machine.cpu,
        "threads": latency and latency.threads,
        "way of counting joules": joules and (joules.provenance, joules.domains),
        "power source": record.machine.power_source,
        "set of library versions": record.machine.versions,
    }


def _metrics(a: Choice, b: Choice, mismatches: list[str]) -> list[Difference]:
    pairs = ((metric, _read(a, metric, 101), _read(b, metric, 202)) for metric in METRICS)
    return [
        _differ(_widened(metric, a, b), x, y, mismatches, _round_ratios(metric.name, a, b))
        for metric, x, y in pairs
        if x or y
    ]


def _in_turns(a: Choice, b: Choice) -> bool:
    """Whether the two were timed round by round together."""
    found = [c.cell.outcome.latency for c in (a, b) if isinstance(c.cell.outcome, Measurement)]
    return a.place == b.place and len(found) == 2 and all(isinstance(x, Latency) and x.in_turns for x in found)


def _round_ratios(name: str, a: Choice, b: Choice) -> Quantity | None:
    """The ratio of adjacent rounds, with its draws, where there are any."""
    if name not in _SECONDS or not _in_turns(a, b):
        return None
    below, above = (_medians_by_round(name, choice) for choice in (a, b))
    ratios = [above[n] / below[n] for n in below.keys() & above.keys()]
    return stats.median(ratios), stats.draws_of_median(ratios) if len(ratios) > 1 else None


def _medians_by_round(name: str, choice: Choice) -> dict[int, float]:
    outcome = choice.cell.outcome
    assert isinstance(outcome, Measurement) and isinstance(outcome.latency, Latency)
    part = _SECONDS[name](outcome.latency)
    assert not isinstance(part, Absent)
    return dict(zip(dict.fromkeys(part.rounds), stats.by_round(part.samples_s, part.rounds), strict=True))


def _widened(metric: Metric, a: Choice, b: Choice) -> Metric:
    """Rounds that drift within a run tell how far two runs may drift apart: the margin is at least that.

    Cells that took turns drift together.
    """
    if _in_turns(a, b):
        return metric
    return metric._replace(margin=max(metric.margin, _drift(metric.name, a), _drift(metric.name, b)))


def _drift(name: str, choice: Choice) -> float:
    outcome = choice.cell.outcome
    found = outcome.latency if isinstance(outcome, Measurement) else None
    if not isinstance(found, Latency) or name not in _SECONDS:
        return 0.0
    part = _SECONDS[name](found)
    return 0.0 if isinstance(part, Absent) else stats.spread(part.samples_s, part.rounds)


_SECONDS: dict[str, Callable[[Latency], Prefill | Decode | Absent]] = {
    "prefill_s": lambda x: x.prefill,
    "decode_s": lambda x: x.decode,
}


def _differ(
    metric: Metric, x: Quantity | None, y: Quantity | None, mismatches: list[str], paired: Quantity | None = None
) -> Difference:
    reason = _why_not(metric.name, mismatches) if x and y else "measured on one side only"
    if reason or x is None or y is None:
        return _unknown(metric, x, y, reason or "")
    return _difference(metric, x, y, paired)


def _read(choice: Choice, metric: Metric, seed: int) -> Quantity | None:
    outcome = choice.cell.outcome
    return metric.read(outcome, seed) if isinstance(outcome, Measurement) else None


def _unknown(metric: Metric, x: Quantity | None, y: Quantity | None, reason: str) -> Difference:
    values = x[0] if x else None, y[0] if y else None
    return Difference(metric.name, metric.unit, *values, Absent(reason=reason), metric.margin, "unknown")


def _difference(metric: Metric, x: Quantity, y: Quantity, paired: Quantity | None = None) -> Difference:
    if x[0] <= 0 or y[0] <= 0:
        return _unknown(metric, x, y, "no ratio of numbers that are not positive")
    ratio = score.estimate(*paired) if paired else _ratio(x, y)
    found = verdict(ratio, metric.less_is_better, metric.margin)
    return Difference(metric.name, metric.unit, x[0], y[0], ratio, metric.margin, found)


def _ratio(x: Quantity, y: Quantity) -> Estimate:
    if x[1] is None and y[1] is None:
        return Estimate(value=y[0] / x[0], low=None, high=None)
    above = y[0] if y[1] is None else y[1]
    below = x[0] if x[1] is None else x[1]
    return score.estimate(y[0] / x[0], np.broadcast_to(np.asarray(above) / np.asarray(below), (stats.DRAWS,)).tolist())


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


def _scores(a: Choice, b: Choice, mismatches: list[str]) -> list[Difference]:
    """Scores share G, so that their draws are paired through the documents."""
    x, y = _score_quantities(a, 101), _score_quantities(b, 202)
    metrics = [Metric(name, "", False, SCORE_MARGIN, lambda m, seed: None) for name in SCORES if name in {*x, *y}]
    return [_differ(metric, x.get(metric.name), y.get(metric.name), mismatches) for metric in metrics]


def _score_quantities(choice: Choice, seed: int) -> dict[str, Quantity]:
    """The scores that the cell has, by name."""
    outcome = choice.cell.outcome
    if not isinstance(outcome, Measurement) or isinstance(choice.cell.score, Absent):
        return {}
    found = score.quantities(outcome, choice.record.flops, choice.cell.score.bias_bits, seed)
    return {name: q for name, q in found.items() if not isinstance(q, Absent)}
