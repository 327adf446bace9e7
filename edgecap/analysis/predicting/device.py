"""Predict seconds and joules of a size that was not run, from its roofline and the series.

The law of `steps` is assumed to be the same within a series, on one machine, provider and
precision: so much per operator of the graph, and a multiple of the attainable seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from edgecap import stats
from edgecap.analysis import score
from edgecap.analysis.cell_labels import device_names, gpus_of, hardware_of
from edgecap.analysis.fitting.series import SeriesModel
from edgecap.analysis.outcomes import energy_of, latency_of
from edgecap.analysis.predicting.steps import (
    MeasuredStep,
    StepSize,
    estimate_operators,
    fit_measured_steps,
    predict_step,
)
from edgecap.analysis.roofline import bandwidth_of, peak_rate
from edgecap.model import flops
from edgecap.record import (
    Absent,
    Architecture,
    Bound,
    Estimate,
    Flops,
    Gpu,
    Measurement,
    Peaks,
    Placement,
    Roofline,
)
from edgecap.stats import Quantity


class StepNeeds(NamedTuple):
    """The minimum work of a step of the new size: FLOPs, and bytes moved."""

    flops: float
    bytes: float


class DevicePrediction(msgspec.Struct, frozen=True):
    """Prediction for one machine, provider and precision; Absent with a reason if impossible.

    `attainable_s` is the shortest time of a decoded token by the machine's peaks, `starts_s` the
    time that starting its `operators` takes, and `efficiency` the share of the peaks that the
    series reaches beyond that, None if its sizes do not show in its seconds. `models` had a
    roofline, `models_with_joules` also energy from a counter.
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
    """Predict a model of this architecture on the device that the points were measured on.

    `token_flops` are those of a decoded token.
    """
    difference = _difference(points)
    timed = (
        []
        if difference
        else [p for p in points if isinstance(p.cell.roofline, Roofline) and latency_of(p.cell)]
    )
    metered = [p for p in timed if not isinstance(_decode_joules(p), Absent)]
    missing = Absent(reason=difference or _untimed_reason(points))
    steps = (missing, missing) if not timed else _step_needs(timed[-1], model, token_flops)
    bounds = [
        step if isinstance(step, Absent) else _attainable(_latest(timed), step) for step in steps
    ]
    operators_known = all(_operator_count(p) for p in timed)
    operators = _new_operators(timed, model) if timed and operators_known else 1.0
    decode, prefill = (b if isinstance(b, Absent) else StepSize(operators, b) for b in bounds)
    joules: Estimate | Absent = missing if not timed else _no_joules_reason(points)
    if metered and not isinstance(decode, Absent):
        joules = predict_step(
            _measured_steps(metered, operators_known, _decode_bound, _decode_joules), decode, None
        )
    decoded = _measured_steps(timed, operators_known, _decode_bound, _decode_seconds)
    first, law = points[-1], fit_measured_steps(decoded)
    return DevicePrediction(
        machine=_machine_name(first),
        provider=first.cell.provider,
        precision=first.cell.precision,
        decode_s=_predict_seconds(decoded, decode),
        prefill_s=_predict_seconds(
            _measured_steps(timed, operators_known, _prefill_bound, _prefill_seconds), prefill
        ),
        decode_j=joules,
        attainable_s=bounds[0],
        operators=operators if timed and operators_known else missing,
        starts_s=missing if law is None else float(law.each) * operators,
        efficiency=missing if law is None else 1 / float(law.times) if law.times > 0 else None,
        prefill_tokens=_prompt(timed[-1]) if timed else missing,
        models=len(timed),
        models_with_joules=len(metered),
    )


# --- comparable points ------------------------------------------------------------------------


def _difference(points: Sequence[SeriesModel]) -> str | None:
    """Return why the points say nothing together: other machine, provider, threads, or prompt."""
    for what, read in _ALIKE.items():
        first = read(points[0])
        other = next((p for p in points if read(p) != first), None)
        if other:
            return f"the {what} of {other.name} differs from that of {points[0].name}"
    return None


def possible_gpus(point: SeriesModel) -> tuple[Gpu, ...]:
    """Return the GPUs that a cell may have run on."""
    return gpus_of(point.record.machine, point.cell.provider)


def _host_key(point: SeriesModel) -> tuple[object, ...]:
    machine = point.record.machine
    return machine.name, machine.processor, machine.logical_cores, machine.cpu_quota


def _machine_name(point: SeriesModel) -> str:
    """Name the machine, with its GPU if that did the work."""
    gpus = tuple(dict.fromkeys(board.name for board in possible_gpus(point)))
    (name,) = device_names([hardware_of(point.record.machine)._replace(gpus=gpus)])
    return name


def _latency_reader(read: Callable[..., object]) -> Callable[[SeriesModel], object]:
    def read_latency(point: SeriesModel) -> object:
        latency = latency_of(point.cell)
        return read(latency) if latency else None

    return read_latency


def _has_all_logits(point: SeriesModel) -> bool:
    """Test whether prompts were counted with the logits of all positions, as older records are."""
    counted, shape = point.record.flops, point.record.source.architecture
    if not isinstance(counted, Flops) or not isinstance(shape, Architecture):
        return False
    last_only = flops.total(flops.prefill_parts(shape, counted.prefill_tokens))
    return counted.prefill > last_only + counted.parts.lm_head / 2


_ALIKE: dict[str, Callable[[SeriesModel], object]] = {
    "machine": lambda p: (*_host_key(p), [board.name for board in possible_gpus(p)]),
    "provider": lambda p: p.cell.provider,
    "number of threads": _latency_reader(lambda latency: latency.threads),
    "prompt": _latency_reader(lambda latency: latency.prefill.tokens),
    "number of logits of a prompt": _has_all_logits,
    "decode context": _latency_reader(
        lambda latency: None if isinstance(latency.decode, Absent) else latency.decode.context
    ),
}


def _untimed_reason(points: Sequence[SeriesModel]) -> str:
    reasons = [p.cell.roofline.reason for p in points if isinstance(p.cell.roofline, Absent)]
    return reasons[0] if reasons else "no latency was measured"


def _no_joules_reason(points: Sequence[SeriesModel]) -> Absent:
    reasons = [x for p in points if isinstance(x := _decode_joules(p), Absent)]
    return reasons[0] if reasons else Absent(reason="no energy was measured")


# --- roofline of the new size -----------------------------------------------------------------


def _step_needs(
    point: SeriesModel, model: Architecture, token_flops: float
) -> tuple[StepNeeds | Absent, StepNeeds | Absent]:
    """Return what a decoded token and a prompt need, measured as the point was."""
    latency, stored = latency_of(point.cell), flops.storage_precision(point.cell.precision)
    if latency is None or stored not in flops.STORED:
        reason = Absent(
            reason=f"edgecap does not know how many bytes weights take in {point.cell.precision}"
        )
        return reason, reason
    cache_width = 2.0 if stored == "fp16" and point.cell.precision == "fp16" else 4.0
    per_token, state = (
        flops.kv_bytes_per_token(model, cache_width),
        flops.state_bytes(model, cache_width),
    )
    prompt = latency.prefill.tokens
    parts = flops.prefill_parts(model, prompt, _has_all_logits(point))
    prefill = StepNeeds(
        flops.total(parts), flops.read_bytes(model, stored, prompt) + prompt * per_token + state
    )
    if isinstance(latency.decode, Absent):
        return latency.decode, prefill
    return StepNeeds(
        token_flops,
        flops.read_bytes(model, stored) + int(latency.decode.context) * per_token + state,
    ), prefill


def _latest(points: Sequence[SeriesModel]) -> SeriesModel:
    return max(points, key=lambda p: p.record.created_utc)


def _attainable(point: SeriesModel, needs: StepNeeds) -> float | Absent:
    """Return the shortest seconds of a step, by the peaks in a record."""
    peaks = point.record.peaks.get(point.cell.provider)
    if not isinstance(peaks, Peaks):
        return peaks or Absent(reason=f"the peaks of {point.cell.provider} were not measured")
    rate = peak_rate(peaks, point.cell.precision)
    return (
        rate
        if isinstance(rate, Absent)
        else max(needs.flops / rate, needs.bytes / bandwidth_of(peaks.bandwidth, needs.bytes))
    )


def _operator_count(point: SeriesModel) -> int | None:
    """Return the operators of a graph that ran; None if unknown, or if the layers are."""
    placed = point.cell.outcome.placement if isinstance(point.cell.outcome, Measurement) else None
    shape = point.record.source.architecture
    if not isinstance(placed, Placement) or not isinstance(shape, Architecture) or not shape.depth:
        return None
    return sum(share.nodes for share in placed.by_provider.values())


def _new_operators(points: Sequence[SeriesModel], model: Architecture) -> float:
    """Estimate the operators of the new size from those of the series, all of which are known."""
    import numpy as np

    shapes = [p.record.source.architecture for p in points]
    layers = [s.depth for s in shapes if isinstance(s, Architecture)]
    return estimate_operators(
        np.array(layers), np.array([_operator_count(p) for p in points], np.float64), model.depth
    )


# --- measurements of the series ---------------------------------------------------------------


def _decode_bound(point: SeriesModel) -> Bound | None:
    return point.cell.roofline.decode if isinstance(point.cell.roofline, Roofline) else None


def _prefill_bound(point: SeriesModel) -> Bound | None:
    return point.cell.roofline.prefill if isinstance(point.cell.roofline, Roofline) else None


def _prompt(point: SeriesModel) -> int | Absent:
    latency = latency_of(point.cell)
    return latency.prefill.tokens if latency else Absent(reason="no latency was measured")


def _decode_seconds(point: SeriesModel) -> Quantity | Absent:
    latency = latency_of(point.cell)
    return (
        score.decode_seconds(latency, _seed(point))
        if latency
        else Absent(reason="no latency was measured")
    )


def _prefill_seconds(point: SeriesModel) -> Quantity | Absent:
    latency = latency_of(point.cell)
    return (
        score.prefill_seconds(latency, _seed(point))
        if latency
        else Absent(reason="no latency was measured")
    )


def _decode_joules(point: SeriesModel) -> Quantity | Absent:
    energy = energy_of(point.cell)
    if energy is None:
        reason = getattr(point.cell.outcome, "energy", None)
        return reason if isinstance(reason, Absent) else Absent(reason="no energy was measured")
    counted = score.scored_energy(energy)
    return counted if isinstance(counted, Absent) else score.decode_joules(counted, _seed(point))


def _seed(point: SeriesModel) -> int:
    """Return a seed of its own for each model, whose rounds are independent of another's."""
    return stats.SEED + int(point.flops.per_token) % 100_003


def _measured_steps(
    points: Sequence[SeriesModel],
    known: bool,
    bound: Callable[[SeriesModel], Bound | None],
    read: Callable[[SeriesModel], Quantity | Absent],
) -> list[MeasuredStep]:
    """Return the points that have both a bound and a measurement.

    Each counts one operator if operators are not `known`.
    """
    candidates = [(bound(p), read(p), float((known and _operator_count(p)) or 1)) for p in points]
    return [
        MeasuredStep(StepSize(operators, limit.attainable_s), quantity)
        for limit, quantity, operators in candidates
        if limit is not None and not isinstance(quantity, Absent)
    ]


def _predict_seconds(
    measured: Sequence[MeasuredStep], place: StepSize | Absent
) -> Estimate | Absent:
    return (
        place
        if isinstance(place, Absent)
        else predict_step(measured, place, float(place.attainable))
    )
