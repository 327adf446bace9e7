"""Two cells side by side: each metric's ratio with its 95 % interval, and a verdict.

    better, worse   the whole interval is on one side of 1, and the effect is larger than the margin
    same            the whole interval lies within the margin
    unknown         neither, or the two do not measure the same thing

Documents are resampled in pairs where both cells scored the same corpus; rounds on their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from edgecap import score, stats
from edgecap.errors import UsageError, did_you_mean
from edgecap.record import Absent, Cell, Compression, Energy, Estimate, Latency, Measurement, Memory, Profile

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


def _latency(read: Callable[[Latency, int], Quantity]) -> Callable[[Measurement, int], Quantity | None]:
    return lambda m, seed: read(m.latency, seed) if isinstance(m.latency, Latency) else None


def _energy(read: Callable[[Energy, int], Quantity]) -> Callable[[Measurement, int], Quantity | None]:
    return lambda m, seed: read(m.energy, seed) if isinstance(m.energy, Energy) else None


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
    """One metric of two cells: values, `ratio` = candidate / baseline with its interval, and the verdict."""

    metric: str
    unit: str
    baseline: float | None
    candidate: float | None
    ratio: Estimate | Absent
    verdict: str


class Comparison(msgspec.Struct, frozen=True):
    """Two cells by name, what differs between their runs beside the variant, and every metric."""

    baseline: str
    candidate: str
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
    base = _pick(everything, baseline)
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
    found = [c for c in usable if all(getattr(c.cell, k) == v for k, v in wanted.items())]
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
    comparable = "corpus" not in " ".join(mismatches) and "window" not in " ".join(mismatches)
    return Comparison(
        baseline=a.name(everything),
        candidate=b.name(everything),
        mismatches=tuple(mismatches),
        differences=tuple([*_metrics(a, b, comparable), *_scores(a, b, comparable)]),
    )


def _mismatches(a: Choice, b: Choice) -> list[str]:
    """What differs between two runs beside the variant, in words."""
    pairs = {
        "model": (a.record.source.weights_sha256, b.record.source.weights_sha256),
        "tokenizer": (a.record.source.tokenizer_sha256, b.record.source.tokenizer_sha256),
        "corpus": (a.record.corpus.sha256, b.record.corpus.sha256),
        "window of the text": (_context(a), _context(b)),
        "provider": (a.cell.provider, b.cell.provider),
        "machine": (a.record.machine.name, b.record.machine.name),
        "processor": (a.record.machine.cpu, b.record.machine.cpu),
        "threads": (_threads(a), _threads(b)),
        "power source": (a.record.machine.power_source, b.record.machine.power_source),
        "library versions": (a.record.machine.versions, b.record.machine.versions),
    }
    return [f"{what} differs" for what, (x, y) in pairs.items() if x != y]


def _context(choice: Choice) -> int | None:
    outcome = choice.cell.outcome
    found = outcome.compression if isinstance(outcome, Measurement) else None
    return found.context if isinstance(found, Compression) else None


def _threads(choice: Choice) -> int | None:
    outcome = choice.cell.outcome
    found = outcome.latency if isinstance(outcome, Measurement) else None
    return found.threads if isinstance(found, Latency) else None


def _metrics(a: Choice, b: Choice, comparable: bool) -> list[Difference]:
    found = []
    for metric in METRICS:
        x, y = _read(a, metric, 101), _read(b, metric, 202)
        if x is None and y is None:
            continue
        if x is None or y is None or (not comparable and metric.unit.startswith("bit")):
            reason = Absent(reason="the corpus differs" if x and y else "measured on one side only")
            found.append(_unknown(metric.name, metric.unit, x, y, reason))
            continue
        found.append(_difference(metric, x, y))
    return found


def _read(choice: Choice, metric: Metric, seed: int) -> Quantity | None:
    outcome = choice.cell.outcome
    return metric.read(outcome, seed) if isinstance(outcome, Measurement) else None


def _unknown(name: str, unit: str, x: Quantity | None, y: Quantity | None, reason: Absent) -> Difference:
    return Difference(name, unit, x[0] if x else None, y[0] if y else None, reason, "unknown")


def _difference(metric: Metric, x: Quantity, y: Quantity) -> Difference:
    if x[0] <= 0 or y[0] <= 0:
        return _unknown(metric.name, metric.unit, x, y, Absent(reason="no ratio of numbers that are not positive"))
    ratio = _ratio(x, y)
    return Difference(metric.name, metric.unit, x[0], y[0], ratio, verdict(ratio, metric.less_is_better, metric.margin))


def _ratio(x: Quantity, y: Quantity) -> Estimate:
    if x[1] is None and y[1] is None:
        return Estimate(value=y[0] / x[0], low=None, high=None)
    above = y[0] if y[1] is None else y[1]
    below = x[0] if x[1] is None else x[1]
    return score.estimate(y[0] / x[0], np.broadcast_to(np.asarray(above) / np.asarray(below), (stats.DRAWS,)).tolist())


def verdict(ratio: Estimate, less_is_better: bool, margin: float) -> str:
    """better, same, worse or unknown; a ratio without an interval is taken as exact."""
    low = ratio.value if ratio.low is None else ratio.low
    high = ratio.value if ratio.high is None else ratio.high
    if 1 - margin <= low and high <= 1 + margin:
        return "same"
    if low > 1 and ratio.value > 1 + margin:
        return "worse" if less_is_better else "better"
    if high < 1 and ratio.value < 1 - margin:
        return "better" if less_is_better else "worse"
    return "unknown"


def _scores(a: Choice, b: Choice, comparable: bool) -> list[Difference]:
    """Scores share G, so that their draws are paired through the documents."""
    found = []
    for name in SCORES:
        x, y = _score_draws(a, name, 101), _score_draws(b, name, 202)
        if x is None and y is None:
            continue
        metric = Metric(name, "", False, SCORE_MARGIN, lambda m, seed: None)
        if x is None or y is None or not comparable:
            found.append(
                _unknown(name, "", x, y, Absent(reason="the corpus differs" if x and y else "on one side only"))
            )
        else:
            found.append(_difference(metric, x, y))
    return found


def _score_draws(choice: Choice, name: str, seed: int) -> Quantity | None:
    outcome = choice.cell.outcome
    if not isinstance(outcome, Measurement) or isinstance(choice.cell.score, Absent):
        return None
    found = score.quantities(outcome, choice.record.flops, choice.cell.score.bias_bits, seed)[name]
    return None if isinstance(found, Absent) else found
