"""Seconds and joules of a size that was not run: its roofline, and how near to theirs the others of its series come.

What is taken to be the same within a series, on one machine, provider and precision, is measured over attainable
seconds, and joules over attainable seconds. Both are averaged on a logarithmic scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edgecap import flops, score, stats
from edgecap.fitting.series import Point
from edgecap.metrics import energy_of, latency_of
from edgecap.predicting.leaving import half_width
from edgecap.record import Absent, Architecture, Bound, Estimate, Peaks, Roofline
from edgecap.roofline import bandwidth_of, peak_rate
from edgecap.score import Quantity

if TYPE_CHECKING:
    from edgecap.stats import Floats

Measured = tuple[float, Quantity]  # attainable seconds of a step, and what it was measured to take


class Step(NamedTuple):
    """What a step of the new size cannot do without."""

    flops: float
    bytes: float


class Device(msgspec.Struct, frozen=True):
    """Predicted for one machine, provider and precision; Absent with a reason where nothing can be.

    `attainable_s` of a decoded token is what the machine's peaks allow, `efficiency` how much of it the series
    reaches, the mean of its sizes. `models` had a roofline, `models_with_joules` energy from a counter too.
    """

    machine: str
    provider: str
    precision: str
    decode_s: Estimate | Absent
    prefill_s: Estimate | Absent
    decode_j: Estimate | Absent
    attainable_s: float | Absent
    efficiency: float | Absent
    prefill_tokens: int | Absent
    models: int
    models_with_joules: int


def device_of(points: Sequence[Point], model: Architecture, token_flops: float) -> Device:
    """What a model of this architecture would take on the device that the points were measured on.

    `token_flops` are those of a decoded token.
    """
    unlike = _unlike(points)
    timed = [] if unlike else [p for p in points if isinstance(p.cell.roofline, Roofline) and latency_of(p.cell)]
    counted = [p for p in timed if not isinstance(_joules(p), Absent)]
    missing = Absent(reason=unlike or _why_untimed(points))
    steps = (missing, missing) if not timed else _steps(timed[-1], model, token_flops)
    bounds = [step if isinstance(step, Absent) else _attainable(_latest(timed), step) for step in steps]
    decode, prefill = bounds
    joules: Estimate | Absent = missing if not timed else _why_no_joules(points)
    if counted and not isinstance(decode, Absent):
        joules = _predicted([_measured(p, _decode_bound, _joules) for p in counted], decode)
    first, shares = points[-1], [_decode_bound(p) for p in timed]
    known = [b.ratio.value for b in shares if isinstance(b, Bound)]
    return Device(
        machine=first.record.machine.name,
        provider=first.cell.provider,
        precision=first.cell.precision,
        decode_s=_seconds(timed, decode, _decode_bound, _decoded),
        prefill_s=_seconds(timed, prefill, _prefill_bound, _read),
        decode_j=joules,
        attainable_s=decode,
        efficiency=math.exp(sum(map(math.log, known)) / len(known)) if known else missing,
        prefill_tokens=_prompt(timed[-1]) if timed else missing,
        models=len(timed),
        models_with_joules=len(counted),
    )


# --- whether they can be held together --------------------------------------------------------


def _unlike(points: Sequence[Point]) -> str | None:
    """Why the points say nothing together: other machines, providers, threads, prompts or contexts."""
    for what, read in _ALIKE.items():
        first = read(points[0])
        other = next((p for p in points if read(p) != first), None)
        if other:
            return f"the {what} of {other.name} is not that of {points[0].name}"
    return None


def _timing(read: Callable[..., object]) -> Callable[[Point], object]:
    def found(point: Point) -> object:
        latency = latency_of(point.cell)
        return read(latency) if latency else None

    return found


_ALIKE: dict[str, Callable[[Point], object]] = {
    "machine": lambda p: (p.record.machine.name, p.record.machine.cpu),
    "provider": lambda p: p.cell.provider,
    "number of threads": _timing(lambda found: found.threads),
    "prompt": _timing(lambda found: found.prefill.tokens),
    "decode context": _timing(lambda found: None if isinstance(found.decode, Absent) else found.decode.context),
}


def _why_untimed(points: Sequence[Point]) -> str:
    reasons = [p.cell.roofline.reason for p in points if isinstance(p.cell.roofline, Absent)]
    return reasons[0] if reasons else "no latency was measured"


def _why_no_joules(points: Sequence[Point]) -> Absent:
    reasons = [found for p in points if isinstance(found := _joules(p), Absent)]
    return reasons[0] if reasons else Absent(reason="no energy was measured")


# --- the new size beside the roofline ---------------------------------------------------------


def _steps(like: Point, model: Architecture, token_flops: float) -> tuple[Step | Absent, Step | Absent]:
    """A decoded token and a prompt, as `like` was measured."""
    latency, stored = latency_of(like.cell), flops.stored_as(like.cell.precision)
    if latency is None or stored not in _STORED:
        reason = Absent(reason=f"edgecap does not know how many bytes weights take in {like.cell.precision}")
        return reason, reason
    width = 2.0 if stored == "fp16" and like.cell.precision == "fp16" else 4.0  # of a number in the cache
    each, state = flops.kv_bytes_per_token(model, width), flops.state_bytes(model, width)
    prompt = latency.prefill.tokens
    whole = prompt * flops.total(flops.token_parts(model, prompt))
    prefill = Step(whole, flops.read_bytes(model, stored, prompt) + prompt * each + state)
    if isinstance(latency.decode, Absent):
        return latency.decode, prefill
    return Step(token_flops, flops.read_bytes(model, stored) + int(latency.decode.context) * each + state), prefill


_STORED = ("fp32", "fp16", "int8", "int4")


def _latest(points: Sequence[Point]) -> Point:
    return max(points, key=lambda p: p.record.created_utc)


def _attainable(like: Point, step: Step) -> float | Absent:
    """The shortest seconds by the peaks in the latest record."""
    peaks = like.record.peaks.get(like.cell.provider)
    if not isinstance(peaks, Peaks):
        return peaks or Absent(reason=f"the peaks of {like.cell.provider} were not measured")
    rate = peak_rate(peaks, like.cell.precision)
    return (
        rate
        if isinstance(rate, Absent)
        else max(step.flops / rate, step.bytes / bandwidth_of(peaks.bandwidth, step.bytes))
    )


# --- what the others took ---------------------------------------------------------------------


def _decode_bound(point: Point) -> Bound | None:
    return point.cell.roofline.decode if isinstance(point.cell.roofline, Roofline) else None


def _prefill_bound(point: Point) -> Bound | None:
    return point.cell.roofline.prefill if isinstance(point.cell.roofline, Roofline) else None


def _prompt(point: Point) -> int | Absent:
    latency = latency_of(point.cell)
    return latency.prefill.tokens if latency else Absent(reason="no latency was measured")


def _decoded(point: Point) -> Quantity | Absent:
    latency = latency_of(point.cell)
    return score.decode_seconds(latency, _seed(point)) if latency else Absent(reason="no latency was measured")


def _read(point: Point) -> Quantity | Absent:
    latency = latency_of(point.cell)
    return score.prefill_seconds(latency, _seed(point)) if latency else Absent(reason="no latency was measured")


def _joules(point: Point) -> Quantity | Absent:
    energy = energy_of(point.cell)
    if energy is None:
        found = getattr(point.cell.outcome, "energy", None)
        return found if isinstance(found, Absent) else Absent(reason="no energy was measured")
    counted = score.scored_energy(energy)
    return counted if isinstance(counted, Absent) else score.decode_joules(counted, _seed(point))


def _seed(point: Point) -> int:
    """Of its own for each model, whose rounds have nothing to do with those of another."""
    return stats.SEED + int(point.flops.per_token) % 100_003


def _measured(
    point: Point, bound: Callable[[Point], Bound | None], read: Callable[[Point], Quantity | Absent]
) -> Measured | None:
    found, limit = read(point), bound(point)
    return None if limit is None or isinstance(found, Absent) else (limit.attainable_s, found)


def _seconds(
    timed: Sequence[Point],
    attainable: float | Absent,
    bound: Callable[[Point], Bound | None],
    read: Callable[[Point], Quantity | Absent],
) -> Estimate | Absent:
    if isinstance(attainable, Absent):
        return attainable
    return _predicted([_measured(p, bound, read) for p in timed], attainable)


def _predicted(measured: Sequence[Measured | None], attainable: float) -> Estimate | Absent:
    """Attainable seconds times the mean of measured over attainable ones, with the interval of a size that is new."""
    import numpy as np

    had = [m for m in measured if m is not None]
    if not had:
        return Absent(reason="no model of the series has it")
    logs = np.array([math.log(found[0] / limit) for limit, found in had])
    drawn = [np.log(found[1] / limit) for limit, found in had if found[1] is not None]
    mean, k = float(logs.mean()), len(logs)
    draws = np.mean(drawn, axis=0) if len(drawn) == k else None
    errors = (logs - mean) * k / max(1, k - 1)  # of each from the mean of the others
    return _estimate(mean, draws, half_width(errors, logs, 0.0, 1), attainable)


def _estimate(mean: float, draws: Floats | None, half: float | None, attainable: float) -> Estimate:
    """Out of logarithms; open where nothing was resampled and none could be left out."""
    value = attainable * math.exp(mean)
    inner = stats.interval(mean, draws)
    if half is None:
        return Estimate(value=value, low=None, high=None)
    low, high = (math.hypot(half, mean - bound) if bound is not None else half for bound in (inner.low, inner.high))
    return Estimate(value=value, low=value * math.exp(-low), high=value * math.exp(high))
