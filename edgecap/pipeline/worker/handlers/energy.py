"""Measure energy: find the counters of a run, and count joules of prefill, decode and scoring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecap.machine.energy import Resolution, find_counters, resolve
from edgecap.machine.energy.assumed import AssumedCounter
from edgecap.machine.nvidia import cuda_uuids
from edgecap.machine.roots import sysfs
from edgecap.meters.energy import measure_energy
from edgecap.model.architecture import ENCODER
from edgecap.pipeline.worker.sessions import Report, SystemClock, open_timed_session, progress_of
from edgecap.pipeline.worker.steps import (
    MeasureCell,
)
from edgecap.provider_options import parse_provider
from edgecap.record import Absent, Energy

Load = Callable[[], int]  # does its work once and returns the number of its tokens


def counters_of(provider: str, meter: str | None, offset_s: float | None) -> Resolution:
    """Return what counts the energy of a run on a provider; see `machine.energy.resolve`."""
    parsed = parse_provider(provider)
    file = Path(meter) if meter else None
    uuids = cuda_uuids() if parsed.place[0] == "cuda" else None
    counters = find_counters(
        sysfs(), meter=file, meter_offset_s=offset_s, devices=(parsed.device,), uuids=uuids
    )
    return resolve(parsed.name, counters)


def measure(step: MeasureCell, report: Report, scoring: Callable[[], Any]) -> Energy | Absent:
    """Count joules of prefill, decode and scoring; Absent if nothing here counts them.

    `scoring` opens a session that scores.
    """
    if step.energy == "off":
        return Absent(reason="switched off (--energy off)")
    session, clock = step.plan.session, SystemClock()
    resolution = (
        Resolution(AssumedCounter(step.assume_watts, clock.now))
        if step.assume_watts
        else counters_of(session.provider, step.meter, step.meter_offset_s)
    )
    if isinstance(resolution.counter, Absent):
        return resolution.counter
    prefill, decode = _loads(step, open_timed_session(session))
    return measure_energy(
        resolution.counter,
        clock,
        prefill,
        decode,
        progress_of(report, "energy"),
        None if session.task == ENCODER else _scoring_load(step, scoring()),
        resolution.beside,
        resolution.left_out,
    )


def _loads(step: MeasureCell, engine: Any) -> tuple[Load, Load | None]:
    """Return a prompt, and a loop of decoding unless the model decodes nothing."""
    import numpy as np

    rng, vocabulary = np.random.default_rng(1), step.plan.session.vocabulary

    def prefill() -> int:
        engine.prefill(rng.integers(0, vocabulary, step.prefill_tokens))
        return step.prefill_tokens

    return prefill, _decode_load(step, engine, rng) if step.decode_context else None


def _decode_load(step: MeasureCell, engine: Any, rng: Any) -> Load:
    vocabulary = step.plan.session.vocabulary
    steps = max(1, min(step.decode_steps, step.decode_context // 2))
    prompt = max(1, step.decode_context - steps // 2)
    base = engine.prefill(rng.integers(0, vocabulary, prompt))

    def decode() -> int:
        cache = base
        for token in rng.integers(0, vocabulary, steps).tolist():
            cache = engine.decode(cache, token)
        return steps

    return decode


def _scoring_load(step: MeasureCell, engine: Any) -> Load:
    """Return a window of scoring, on a session of its own."""
    import numpy as np

    rng, tokens = np.random.default_rng(3), max(1, step.plan.context - 1)
    vocabulary = step.plan.session.vocabulary

    def score() -> int:
        ids = rng.integers(0, vocabulary, tokens + 1)
        engine.nll(ids[:-1], ids[1:])
        return tokens

    return score
