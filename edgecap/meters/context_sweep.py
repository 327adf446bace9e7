"""How seconds grow with the context: prefill of several prompt lengths, and a token decoded behind each.

Contexts take turns (A B C A B C), so that drift of the machine is in all of them alike. One sample a round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np

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
    """One warm-up and up to `ROUNDS` rounds of all contexts, none begun after `limit_s`; where that is one, it is kept.

    `steps` tokens are decoded behind each; of an encoder none.
    """
    rng = np.random.default_rng(2)
    found: dict[int, list[tuple[float, float | None]]] = {c: [] for c in contexts}
    failed: dict[int, str] = {}
    started = clock.now()
    for number in range(-1, ROUNDS):
        if number >= 0 and clock.now() - started > limit_s:
            break
        for context in [c for c in contexts if c not in failed]:
            progress(max(number, 0), ROUNDS)
            ids = rng.integers(0, vocabulary, context + steps, dtype=np.int64)
            try:
                found[context].append(_sample(engine, clock, ids, context))
            except (
                Exception
            ) as error:  # a context that does not fit is not the end of the shorter ones
                failed[context] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return tuple(_point(c, samples, failed.get(c)) for c, samples in found.items())


def _point(
    context: int, samples: Sequence[tuple[float, float | None]], failed: str | None
) -> SweepPoint:
    if failed is not None:
        return SweepPoint(context=context, prefill_s=(), decode_s=(), failed=failed)
    kept = samples[1:] or samples
    decoded = tuple(d for _, d in kept if d is not None)
    return SweepPoint(
        context=context,
        prefill_s=tuple(p for p, _ in kept),
        decode_s=decoded,
        cold=len(samples) == 1,
    )


def _sample(
    engine: Engine, clock: Clock, ids: np.ndarray, context: int
) -> tuple[float, float | None]:
    """Seconds of a prefill, and the median of a few tokens decoded after it."""
    before = clock.now()
    cache = engine.prefill(ids[:context])
    prefill_s, steps = clock.now() - before, []
    for token in ids[context:].tolist():
        before = clock.now()
        engine.decode(cache, token)
        steps.append(clock.now() - before)
    return prefill_s, statistics.median(steps) if steps else None
