"""Latency against context: prefill of several prompt lengths, and decode behind each.

Contexts take turns (A B C A B C), so that drift of the machine affects all alike. One sample a
round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from edgecap.names import one_line
from edgecap.protocols import Clock, Engine
from edgecap.record import SweepPoint
from edgecap.spec import SWEEP_STEPS

ROUNDS = 5


def measure_context_sweep(
    engine: Engine,
    clock: Clock,
    contexts: Sequence[int],
    vocabulary: int,
    limit_s: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
    steps: int = SWEEP_STEPS,
) -> tuple[SweepPoint, ...]:
    """Measure one warm-up and up to `ROUNDS` rounds of all contexts.

    No round starts after `limit_s`. `steps` tokens are decoded behind each context; 0 for an
    encoder. If the limit leaves the warm-up alone, it is the sample and marked cold. A context that
    fails carries its error; others go on.
    """
    rng = np.random.default_rng(2)
    samples_of: dict[int, list[tuple[float, float | None]]] = {c: [] for c in contexts}
    failed: dict[int, str] = {}
    started = clock.now()
    for number in range(-1, ROUNDS):
        if number >= 0 and clock.now() - started > limit_s:
            break
        for context in [c for c in contexts if c not in failed]:
            progress(max(number, 0), ROUNDS)
            ids = rng.integers(0, vocabulary, context + steps, dtype=np.int64)
            try:
                samples_of[context].append(_sample(engine, clock, ids, context))
            except Exception as error:  # shorter contexts may still fit
                failed[context] = f"{type(error).__name__}: {one_line(error, 200)}"
    return tuple(_point(c, samples, failed.get(c)) for c, samples in samples_of.items())


def _point(
    context: int, samples: Sequence[tuple[float, float | None]], failed: str | None
) -> SweepPoint:
    """Build the record of one context, without its warm-up if there are other samples."""
    if failed is not None:
        return SweepPoint(context=context, prefill_s=(), decode_s=(), failed=failed)
    timed = samples[1:] or samples
    decoded = tuple(d for _, d in timed if d is not None)
    return SweepPoint(
        context=context,
        prefill_s=tuple(p for p, _ in timed),
        decode_s=decoded,
        cold=len(samples) == 1,
    )


def _sample(
    engine: Engine, clock: Clock, ids: np.ndarray, context: int
) -> tuple[float, float | None]:
    """Return the seconds of a prefill, and the median seconds of the tokens decoded behind it."""
    before = clock.now()
    cache = engine.prefill(ids[:context])
    prefill_s, steps = clock.now() - before, []
    for token in ids[context:].tolist():
        before = clock.now()
        engine.decode(cache, token)
        steps.append(clock.now() - before)
    return prefill_s, statistics.median(steps) if steps else None
