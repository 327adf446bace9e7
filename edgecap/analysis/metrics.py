"""Every figure of a cell by name: its unit, which way is better, and how it is read from the record.

compare, recommend, report and board walk this one table; a new measured quantity is one line here.
Draws of the bootstrap are made only where a seed is given.
"""

from __future__ import annotations

from typing import NamedTuple

from edgecap import stats
from edgecap.analysis import score
from edgecap.analysis.score import Quantity, quantity_of
from edgecap.record import (
    LEFT_OUT,
    Absent,
    Cell,
    Compression,
    Energy,
    Estimate,
    Failure,
    Graph,
    Latency,
    Measurement,
    Memory,
    Profile,
    Score,
)


class Metric(NamedTuple):
    """A figure of a cell: its name, SI unit, words for people, whether less is better, and the margin of `same`.

    `unit` is empty for a score, "B" for bytes. `margin` is a share of the figure.
    """

    name: str
    unit: str
    words: str
    less_is_better: bool
    margin: float


METRICS = (
    Metric("bits_per_byte", "bit/B", "bits per byte", True, 0.005),
    Metric("gain_bits_per_token", "bit", "bits gained a token", False, 0.005),
    Metric("divergence_bits", "bit", "KL from fp32, bits a token", True, 0.25),
    Metric("prefill_s", "s", "prefill (TTFT)", True, 0.05),
    Metric("decode_s", "s", "decode, a token", True, 0.05),
    Metric("load_s", "s", "load", True, 0.25),
    Metric("prefill_j", "J", "prefill energy, a token", True, 0.05),
    Metric("decode_j", "J", "decode energy, a token", True, 0.05),
    Metric("peak_bytes", "B", "peak RAM", True, 0.05),
    Metric("device_peak_bytes", "B", "peak device memory", True, 0.05),
    Metric("file_bytes", "B", "file", True, 0.01),
    Metric("information_capacity", "", "information capacity", False, 0.005),
    Metric("time_capacity", "", "time capacity", False, 0.005),
    Metric("energy_capacity", "", "energy capacity", False, 0.005),
    Metric("hardware_capacity", "", "hardware capacity", False, 0.005),
    Metric("gain_bits_per_s", "bit/s", "bits gained a second", False, 0.05),
    Metric("gain_bits_per_j", "bit/J", "bits gained a joule", False, 0.05),
    Metric("roofline_ratio", "", "share of the roofline", False, 0.05),
)
BY_NAME = {metric.name: metric for metric in METRICS}
SCORES = ("information_capacity", "time_capacity", "energy_capacity", "hardware_capacity")

JOINED = (*SCORES, "gain_bits_per_s", "gain_bits_per_j", "roofline_ratio")  # what Score holds


def quantities(
    record: Profile, cell: Cell, seed: int | None = None
) -> dict[str, Quantity | Absent]:
    """Each metric by name, with draws where `seed` is given; Absent with its reason where there is no number."""
    outcome = cell.outcome
    if isinstance(outcome, Failure):
        reason = Absent(reason=told(outcome))
        return {metric.name: reason for metric in METRICS}
    found = _measured(outcome, seed)
    found |= _joined(record, cell.score, outcome, found, seed)
    found["divergence_bits"] = _divergence(cell.graph)
    return {metric.name: found[metric.name] for metric in METRICS}


def estimates(
    record: Profile, cell: Cell, seed: int | None = stats.SEED
) -> dict[str, Estimate | Absent]:
    """Each metric by name with its 95 % interval; where there is no seed, only what the record stores has one."""
    found = {name: score.estimated(q) for name, q in quantities(record, cell, seed).items()}
    if isinstance(cell.score, Absent):
        return found
    return found | {
        name: getattr(cell.score, name) for name in JOINED
    }  # the record's own intervals


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
    found: Compression | Absent, seed: int | None
) -> tuple[Quantity | Absent, Quantity | Absent]:
    if isinstance(found, Absent):
        return found, found
    return (
        score.text_draws(found)
        if seed is not None
        else ((found.bits_per_byte, None), (found.gain_bits_per_token, None))
    )


def _device_peak(memory: Memory) -> Quantity | Absent:
    peak = memory.device_peak_bytes
    return peak if isinstance(peak, Absent) else (float(peak), None)


def _divergence(graph: Graph | Absent) -> Quantity | Absent:
    found = graph if isinstance(graph, Absent) else graph.divergence_bits
    return found if isinstance(found, Absent) else (found, None)


def _joined(
    record: Profile,
    stored: Score | Absent,
    m: Measurement,
    found: dict[str, Quantity | Absent],
    seed: int | None,
) -> dict[str, Quantity | Absent]:
    """The scores: joined anew where there are draws, else as they are stored."""
    if isinstance(stored, Absent):
        return dict.fromkeys(JOINED, stored)
    kept = {name: _stored(stored, name) for name in JOINED}
    if seed is None:
        return kept
    energy = score.scored_energy(m.energy)
    joules = energy if isinstance(energy, Absent) else found["decode_j"]
    drawn = score.joined(
        found["gain_bits_per_token"], found["decode_s"], joules, record.flops, stored.bias_bits
    )
    return kept | drawn


def _stored(found: Score, name: str) -> Quantity | Absent:
    estimate: Estimate | Absent = getattr(found, name)
    return estimate if isinstance(estimate, Absent) else (estimate.value, None)


def told(found: Failure) -> str:
    """What went wrong, in a line."""
    return f"{found.stage}: {found.error}: {found.message}"


def why(cell: Cell) -> str:
    """What went wrong, in a line; nothing of a cell that was measured."""
    return told(cell.outcome) if isinstance(cell.outcome, Failure) else ""


# Cautions that concern seconds; those on joules begin with "energy-".
OF_SECONDS = frozenset(
    [
        "above-peak",
        "battery",
        "bimodal",
        "clock-step",
        "fallback",
        "few-rounds",
        "frequency",
        "governor",
        "interrupted",
        "latency-failed",
        "no-kv-cache",
        "noisy",
        "one-after-another",
        "other-load",
        "other-load-meanwhile",
        "slept",
        "slow-first-round",
        "steal",
        "throttled",
    ]
)


def cost_cautions(cell: Cell) -> tuple[str, ...]:
    """The codes of a cell's cautions that concern its seconds or joules, in the order of the alphabet."""
    codes = {caution.code for caution in cell.cautions}
    return tuple(sorted(code for code in codes if code in OF_SECONDS or code.startswith("energy-")))


def status(cell: Cell) -> str:
    """`measured`, `failed`, or `left out` (--skip-unfit)."""
    if not isinstance(cell.outcome, Failure):
        return "measured"
    return "left out" if cell.outcome.stage == LEFT_OUT else "failed"


def went_wrong(cell: Cell) -> bool:
    """Whether the cell or a part of it failed; one that --skip-unfit left out did not."""
    outcome = cell.outcome
    if isinstance(outcome, Failure):
        return status(cell) == "failed"
    parts = (outcome.latency, outcome.memory)
    points = outcome.latency.throughput if isinstance(outcome.latency, Latency) else ()
    sweep = outcome.latency.sweep if isinstance(outcome.latency, Latency) else ()
    return (
        any(isinstance(part, Absent) and part.failed for part in parts)
        or any(isinstance(point, Failure) for point in points)
        or any(point.failed for point in sweep)
    )


def latency_of(cell: Cell) -> Latency | None:
    """What was timed of a cell, if it was."""
    found = cell.outcome.latency if isinstance(cell.outcome, Measurement) else None
    return found if isinstance(found, Latency) else None


def compression_of(cell: Cell) -> Compression | None:
    """What was scored of a cell, if it was."""
    found = cell.outcome.compression if isinstance(cell.outcome, Measurement) else None
    return found if isinstance(found, Compression) else None


def energy_of(cell: Cell) -> Energy | None:
    """The joules of a cell, if there are any."""
    found = cell.outcome.energy if isinstance(cell.outcome, Measurement) else None
    return found if isinstance(found, Energy) else None
