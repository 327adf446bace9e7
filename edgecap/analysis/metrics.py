"""The list of metrics: unit, direction, wording and comparability of each, and its value in a cell.

compare, recommend, the report, the board and the CSV columns all walk this one table. A new
measured quantity is one line in METRICS and one in `_measured`. Bootstrap draws are made only with
a seed.
"""

from __future__ import annotations

from typing import NamedTuple

from edgecap import stats
from edgecap.analysis import score
from edgecap.analysis.decoding import decoding_shift
from edgecap.analysis.law import law_of
from edgecap.analysis.outcomes import failure_text
from edgecap.analysis.score import quantity_of
from edgecap.record import (
    OLD_FORMULA,
    Absent,
    Cell,
    Compression,
    Estimate,
    Failure,
    Graph,
    Measurement,
    Memory,
    Profile,
    Score,
)
from edgecap.stats import Quantity


class Metric(NamedTuple):
    """A metric of a cell.

    `name` is its field in JSON and CSV, `unit` its SI unit: "B" for bytes, empty for a score.
    `words` name it for people, `short` in a narrow column. `margin` is the relative difference that
    counts as none. `needs` are the run conditions (see `run_conditions`) that two cells must share
    to be compared in it. `rounds` names the timed step that its seconds come from. `overview` puts
    it into the report's overview; `relative` marks a metric that is itself a comparison, with fp32
    or with the roofline, so that `compare` leaves it out.
    """

    name: str
    unit: str
    words: str
    less_is_better: bool
    margin: float
    short: str = ""
    needs: frozenset[str] = frozenset()
    rounds: str = ""
    overview: bool = False
    relative: bool = False

    @property
    def heading(self) -> str:
        """Return the heading of a narrow column."""
        return self.short or self.words


_TEXT = frozenset(["corpus", "protocol", "window of the text", "stride of the windows"])
_GAIN = _TEXT | {"tokenizer"}
_CAPACITY = _TEXT | {"bias"}
_EFFECTIVE = _GAIN | {"law", "bias of the law"}
_PROMPT = frozenset(["prompt length"])
_DECODE = frozenset(["decode context"])
_ENERGY = frozenset(["way of counting joules"])

# fmt: off
METRICS = (
    Metric("bits_per_byte", "bit/B", "bits per byte", True, 0.005,
           short="bits/byte", needs=_TEXT, overview=True),
    Metric("gain_bits_per_token", "bit", "bits gained a token", False, 0.005, needs=_GAIN),
    Metric("divergence_bits", "bit", "KL from fp32, bits a token", True, 0.25,
           short="KL bits", overview=True, relative=True),
    Metric("decoded_divergence_bits", "bit", "KL from fp32 of decoded tokens", True, 0.25,
           relative=True),
    Metric("prefill_s", "s", "prefill (TTFT)", True, 0.05,
           short="prefill", needs=_PROMPT, rounds="prefill_s", overview=True),
    Metric("decode_s", "s", "decode, a token", True, 0.05,
           short="decode", needs=_DECODE, rounds="decode_s", overview=True),
    Metric("load_s", "s", "load", True, 0.25),
    Metric("prefill_j", "J", "prefill energy, a token", True, 0.05,
           short="prefill J/token", needs=_PROMPT | _ENERGY),
    Metric("decode_j", "J", "decode energy, a token", True, 0.05,
           short="J/token", needs=_DECODE | _ENERGY, overview=True),
    Metric("peak_bytes", "B", "peak RAM", True, 0.05, overview=True),
    Metric("device_peak_bytes", "B", "peak device memory", True, 0.05, overview=True),
    Metric("file_bytes", "B", "file", True, 0.01, overview=True),
    Metric("effective_flops", "FLOP", "effective FLOPs a token", False, 0.05, needs=_EFFECTIVE),
    Metric("effective_flops_per_s", "FLOP/s", "effective FLOP/s", False, 0.05,
           needs=_EFFECTIVE | _DECODE, rounds="decode_s", overview=True),
    Metric("effective_flops_per_j", "FLOP/J", "effective FLOP/J", False, 0.05,
           needs=_EFFECTIVE | _DECODE | _ENERGY),
    Metric("worth", "", "worth", False, 0.05,
           needs=_EFFECTIVE | _DECODE, rounds="decode_s", relative=True),
    Metric("information_capacity", "", "information capacity", False, 0.005, needs=_CAPACITY),
    Metric("time_capacity", "", "time capacity", False, 0.005,
           needs=_CAPACITY | _DECODE, rounds="decode_s"),
    Metric("energy_capacity", "", "energy capacity", False, 0.005,
           needs=_CAPACITY | _DECODE | _ENERGY),
    Metric("hardware_capacity", "", "hardware capacity", False, 0.005,
           needs=_CAPACITY | _DECODE | _ENERGY, rounds="decode_s"),
    Metric("gain_bits_per_s", "bit/s", "bits gained a second", False, 0.05,
           needs=_GAIN | _DECODE, rounds="decode_s"),
    Metric("gain_bits_per_j", "bit/J", "bits gained a joule", False, 0.05,
           needs=_GAIN | _DECODE | _ENERGY),
    Metric("roofline_ratio", "", "share of the roofline", False, 0.05,
           overview=True, relative=True),
)
# fmt: on
_WORTH = Absent(reason="worth is that beside another cell")
BY_NAME = {metric.name: metric for metric in METRICS}
SCORES = tuple(m.name for m in METRICS if m.name in Score.__struct_fields__)
CAPACITIES = tuple(name for name in SCORES if name.endswith("_capacity"))
DIVERGENCES = tuple(m.name for m in METRICS if m.name.endswith("divergence_bits"))
COMPARED = tuple(metric for metric in METRICS if not metric.relative)
OVERVIEW = tuple(metric.name for metric in METRICS if metric.overview)
# The metrics that a summary of one cell always shows, the most important first.
MAIN = ("bits_per_byte", "decode_s", "prefill_s", "decode_j", "peak_bytes", "file_bytes")


def quantities(
    record: Profile, cell: Cell, seed: int | None = None
) -> dict[str, Quantity | Absent]:
    """Return the value of each metric by name, or the reason of its absence.

    With a `seed`, values that were sampled come with bootstrap draws.
    """
    outcome = cell.outcome
    if isinstance(outcome, Failure):
        absent = Absent(reason=failure_text(outcome))
        return {metric.name: absent for metric in METRICS}
    values = _measured(outcome, seed)
    values |= _scores(record, cell, outcome, values, seed)
    values |= {name: _divergence(cell.graph, name) for name in DIVERGENCES}
    values["worth"] = _WORTH
    return {metric.name: values[metric.name] for metric in METRICS}


def estimates(
    record: Profile, cell: Cell, seed: int | None = stats.SEED
) -> dict[str, Estimate | Absent]:
    """Return each metric by name with its 95 % interval, or the reason of its absence.

    Scores have the intervals that the record stores; without a seed, no other metric has one.
    """
    values = {name: score.to_estimate(q) for name, q in quantities(record, cell, seed).items()}
    if isinstance(cell.score, Absent):
        return values
    return values | {name: getattr(cell.score, name) for name in _stored_scores(cell.score)}


def _measured(m: Measurement, seed: int | None) -> dict[str, Quantity | Absent]:
    bits, gain = _text(m.compression, seed)
    return {
        "bits_per_byte": bits,
        "gain_bits_per_token": gain,
        "prefill_s": quantity_of(m.latency, lambda x: score.prefill_seconds(x, seed)),
        "decode_s": quantity_of(m.latency, lambda x: score.decode_seconds(x, seed)),
        "load_s": quantity_of(m.latency, lambda x: (x.load_s, None)),
        "prefill_j": quantity_of(m.energy, lambda e: score.prefill_joules(e, seed)),
        "decode_j": quantity_of(m.energy, lambda e: score.decode_joules(e, seed)),
        "peak_bytes": quantity_of(m.memory, lambda x: (float(x.peak_bytes), None)),
        "device_peak_bytes": quantity_of(m.memory, _device_peak),
        "file_bytes": quantity_of(m.memory, lambda x: (float(x.file_bytes), None)),
    }


def _text(
    text: Compression | Absent, seed: int | None
) -> tuple[Quantity | Absent, Quantity | Absent]:
    if isinstance(text, Absent):
        return text, text
    if seed is None:
        return (text.bits_per_byte, None), (text.gain_bits_per_token, None)
    return score.text_draws(text)


def _device_peak(memory: Memory) -> Quantity | Absent:
    peak = memory.device_peak_bytes
    return peak if isinstance(peak, Absent) else (float(peak), None)


def _divergence(graph: Graph | Absent, name: str) -> Quantity | Absent:
    bits = graph if isinstance(graph, Absent) else getattr(graph, name)
    return bits if isinstance(bits, Absent) else (bits, None)


def _scores(
    record: Profile,
    cell: Cell,
    m: Measurement,
    values: dict[str, Quantity | Absent],
    seed: int | None,
) -> dict[str, Quantity | Absent]:
    """Return the stored scores; with a seed, compute those that have draws anew."""
    stored = cell.score
    if isinstance(stored, Absent):
        return dict.fromkeys(SCORES, stored)
    names = _stored_scores(stored)
    scores = {name: _stored(stored, name) for name in names}
    if seed is None and len(names) == len(SCORES):
        return scores
    energy, shift = score.scored_energy(m.energy), decoding_shift(record, cell)
    joules = energy if isinstance(energy, Absent) else values["decode_j"]
    gain, seconds = values["gain_bits_per_token"], values["decode_s"]
    flops, law = record.flops, law_of(record)
    if seed is None:
        decoded = score.decoded_gain(gain, shift)
        return score.effective_scores(gain, decoded, seconds, joules, flops, law) | scores
    return scores | score.join_scores(gain, seconds, joules, flops, stored.bias_bits, shift, law)


def _stored_scores(scores: Score) -> list[str]:
    """Return the names of the scores that a record holds; old formulas have fewer."""
    return [name for name in SCORES if getattr(scores, name) != OLD_FORMULA]


def _stored(scores: Score, name: str) -> Quantity | Absent:
    estimate: Estimate | Absent = getattr(scores, name)
    return estimate if isinstance(estimate, Absent) else (estimate.value, None)


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
