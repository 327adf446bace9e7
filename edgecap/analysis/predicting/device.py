"""Seconds and joules of a size that was not run: its roofline, and what the others of its series take beside theirs.

What is taken to be the same within a series, on one machine, provider and precision, is the law of `steps`: so much an
operator of the graph, and a multiple of the attainable seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from edgecap import stats
from edgecap.analysis import score
from edgecap.analysis.fitting.series import SeriesModel
from edgecap.analysis.metrics import energy_of, latency_of
from edgecap.analysis.predicting.steps import (
    MeasuredStep,
    StepSize,
    estimate_operators,
    fit_measured_steps,
    predict_step,
)
from edgecap.analysis.roofline import bandwidth_of, peak_rate
from edgecap.analysis.score import Quantity
from edgecap.model import flops
from edgecap.record import (
    Absent,
    Architecture,
    Bound,
    Estimate,
    Gpu,
    Measurement,
    Peaks,
    Placement,
    Roofline,
)


class StepNeeds(NamedTuple):
    """What a step of the new size cannot do without."""

    flops: float
    bytes: float


class DevicePrediction(msgspec.Struct, frozen=True):
    """Predicted for one machine, provider and precision; Absent with a reason where nothing can be.

    `attainable_s` of a decoded token is what the machine's peaks allow, `starts_s` what starting its `operators` takes, and
    `efficiency` the share of the peaks that the series reaches beyond that, None where its sizes do not show in its
    seconds. `models` had a roofline, `models_with_joules` energy from a counter too.
    """

    machine: str
    provider: str
    precision: str
    decode_s: Estimate | Absent
    prefill_s: Estimate | Absent
    decode_j: Estimate | Absent
    attainable_s: float | Absent
    operators: float | Absent
    starts_s: float | Absent
    efficiency: float | Absent | None
    prefill_tokens: int | Absent
    models: int
    models_with_joules: int


def predict_device(
    points: Sequence[SeriesModel], model: Architecture, token_flops: float
) -> DevicePrediction:
    """What a model of this architecture would take on the device that the points were measured on.

    `token_flops` are those of a decoded token.
    """
    unlike = _unlike(points)
    timed = (
        []
        if unlike
        else [p for p in points if isinstance(p.cell.roofline, Roofline) and latency_of(p.cell)]
    )
    counted = [p for p in timed if not isinstance(_joules(p), Absent)]
    missing = Absent(reason=unlike or _why_untimed(points))
    steps = (missing, missing) if not timed else _steps(timed[-1], model, token_flops)
    bounds = [
        step if isinstance(step, Absent) else _attainable(_latest(timed), step) for step in steps
    ]
    known = all(_operators(p) for p in timed)
    operators = _of_new(timed, model) if timed and known else 1.0
    decode, prefill = (b if isinstance(b, Absent) else StepSize(operators, b) for b in bounds)
    joules: Estimate | Absent = missing if not timed else _why_no_joules(points)
    if counted and not isinstance(decode, Absent):
        joules = predict_step(_all_measured(counted, known, _decode_bound, _joules), decode, None)
    decoded = _all_measured(timed, known, _decode_bound, _decoded)
    first, law = points[-1], fit_measured_steps(decoded)
    return DevicePrediction(
        machine=_named(first),
        provider=first.cell.provider,
        precision=first.cell.precision,
        decode_s=_seconds(decoded, decode),
        prefill_s=_seconds(_all_measured(timed, known, _prefill_bound, _read), prefill),
        decode_j=joules,
        attainable_s=bounds[0],
        operators=operators if timed and known else missing,
        starts_s=missing if law is None else float(law.each) * operators,
        efficiency=missing if law is None else 1 / float(law.times) if law.times > 0 else None,
        prefill_tokens=_prompt(timed[-1]) if timed else missing,
        models=len(timed),
        models_with_joules=len(counted),
    )


# --- whether they can be held together --------------------------------------------------------


def _unlike(points: Sequence[SeriesModel]) -> str | None:
    """Why the points say nothing together: other machines, providers, threads, prompts or contexts."""
    for what, read in _ALIKE.items():
        first = read(points[0])
        other = next((p for p in points if read(p) != first), None)
        if other:
            return f"the {what} of {other.name} is not that of {points[0].name}"
    return None


def possible_gpus(point: SeriesModel) -> tuple[Gpu, ...]:
    """The boards that its cell may have run on."""
    return () if point.cell.provider == "cpu" else point.record.machine.gpus


def _host(point: SeriesModel) -> tuple[object, ...]:
    machine = point.record.machine
    return machine.name, machine.cpu, machine.logical_cores


def _named(point: SeriesModel) -> str:
    """The machine, with its board where that did the work."""
    return ", ".join(
        [point.record.machine.name, *dict.fromkeys(board.name for board in possible_gpus(point))]
    )


def _timing(read: Callable[..., object]) -> Callable[[SeriesModel], object]:
    def found(point: SeriesModel) -> object:
        latency = latency_of(point.cell)
        return read(latency) if latency else None

    return found


_ALIKE: dict[str, Callable[[SeriesModel], object]] = {
    "machine": lambda p: (*_host(p), [board.name for board in possible_gpus(p)]),
    "provider": lambda p: p.cell.provider,
    "number of threads": _timing(lambda found: found.threads),
    "prompt": _timing(lambda found: found.prefill.tokens),
    "decode context": _timing(
        lambda found: None if isinstance(found.decode, Absent) else found.decode.context
    ),
}


def _why_untimed(points: Sequence[SeriesModel]) -> str:
    reasons = [p.cell.roofline.reason for p in points if isinstance(p.cell.roofline, Absent)]
    return reasons[0] if reasons else "no latency was measured"


def _why_no_joules(points: Sequence[SeriesModel]) -> Absent:
    reasons = [found for p in points if isinstance(found := _joules(p), Absent)]
    return reasons[0] if reasons else Absent(reason="no energy was measured")


# --- the new size beside the roofline ---------------------------------------------------------


def _steps(
    like: SeriesModel, model: Architecture, token_flops: float
) -> tuple[StepNeeds | Absent, StepNeeds | Absent]:
    """A decoded token and a prompt, as `like` was measured."""
    latency, stored = latency_of(like.cell), flops.stored_as(like.cell.precision)
    if latency is None or stored not in _STORED:
        reason = Absent(
            reason=f"edgecap does not know how many bytes weights take in {like.cell.precision}"
        )
        return reason, reason
    width = (
        2.0 if stored == "fp16" and like.cell.precision == "fp16" else 4.0
    )  # of a number in the cache
    each, state = flops.kv_bytes_per_token(model, width), flops.state_bytes(model, width)
    prompt = latency.prefill.tokens
    whole = prompt * flops.total(flops.token_parts(model, prompt))
    prefill = StepNeeds(whole, flops.read_bytes(model, stored, prompt) + prompt * each + state)
    if isinstance(latency.decode, Absent):
        return latency.decode, prefill
    return StepNeeds(
        token_flops, flops.read_bytes(model, stored) + int(latency.decode.context) * each + state
    ), prefill


_STORED = ("fp32", "fp16", "int8", "int4")


def _latest(points: Sequence[SeriesModel]) -> SeriesModel:
    return max(points, key=lambda p: p.record.created_utc)


def _attainable(like: SeriesModel, step: StepNeeds) -> float | Absent:
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


def _operators(point: SeriesModel) -> int | None:
    """Operators of its graph that ran, and layers of its architecture, where both are known."""
    placed = point.cell.outcome.placement if isinstance(point.cell.outcome, Measurement) else None
    shape = point.record.source.architecture
    if not isinstance(placed, Placement) or not isinstance(shape, Architecture) or not shape.depth:
        return None
    return sum(share.nodes for share in placed.by_provider.values())


def _of_new(points: Sequence[SeriesModel], model: Architecture) -> float:
    """Operators of the new size, from those of the series, all of which are known."""
    import numpy as np

    shapes = [p.record.source.architecture for p in points]
    layers = [s.depth for s in shapes if isinstance(s, Architecture)]
    return estimate_operators(
        np.array(layers), np.array([_operators(p) for p in points], np.float64), model.depth
    )


# --- what the others took ---------------------------------------------------------------------


def _decode_bound(point: SeriesModel) -> Bound | None:
    return point.cell.roofline.decode if isinstance(point.cell.roofline, Roofline) else None


def _prefill_bound(point: SeriesModel) -> Bound | None:
    return point.cell.roofline.prefill if isinstance(point.cell.roofline, Roofline) else None


def _prompt(point: SeriesModel) -> int | Absent:
    latency = latency_of(point.cell)
    return latency.prefill.tokens if latency else Absent(reason="no latency was measured")


def _decoded(point: SeriesModel) -> Quantity | Absent:
    latency = latency_of(point.cell)
    return (
        score.decode_seconds(latency, _seed(point))
        if latency
        else Absent(reason="no latency was measured")
    )


def _read(point: SeriesModel) -> Quantity | Absent:
    latency = latency_of(point.cell)
    return (
        score.prefill_seconds(latency, _seed(point))
        if latency
        else Absent(reason="no latency was measured")
    )


def _joules(point: SeriesModel) -> Quantity | Absent:
    energy = energy_of(point.cell)
    if energy is None:
        found = getattr(point.cell.outcome, "energy", None)
        return found if isinstance(found, Absent) else Absent(reason="no energy was measured")
    counted = score.scored_energy(energy)
    return counted if isinstance(counted, Absent) else score.decode_joules(counted, _seed(point))


def _seed(point: SeriesModel) -> int:
    """Of its own for each model, whose rounds have nothing to do with those of another."""
    return stats.SEED + int(point.flops.per_token) % 100_003


def _all_measured(
    points: Sequence[SeriesModel],
    known: bool,
    bound: Callable[[SeriesModel], Bound | None],
    read: Callable[[SeriesModel], Quantity | Absent],
) -> list[MeasuredStep]:
    """Of the points that have both; where operators are not `known` each has one."""
    had = [(bound(p), read(p), float((known and _operators(p)) or 1)) for p in points]
    return [
        MeasuredStep(StepSize(operators, limit.attainable_s), found)
        for limit, found, operators in had
        if limit is not None and not isinstance(found, Absent)
    ]


def _seconds(measured: Sequence[MeasuredStep], place: StepSize | Absent) -> Estimate | Absent:
    return (
        place
        if isinstance(place, Absent)
        else predict_step(measured, place, float(place.attainable))
    )
