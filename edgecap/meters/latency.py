"""Seconds of prefill and decode, sampled in rounds.

    warm-up          | round 0                | round 1                | ...
    until two blocks | prefills, decode loops | prefills, decode loops | until 8 rounds, 10 samples, 2 s
    agree            |                        |                        | of each, or the limit

Samples of one round are correlated and rounds drift, so each sample keeps its round. Token ids are
fresh in every round; no token ends a loop. Decoding starts again from the same cache in each loop,
so that the mean context is that of `flops_per_token`. The KV cache grows as the graph grows it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edgecap.record import Decode, Latency, Prefill
from edgecap.seams import Cache, Clock, Engine, Ids

MIN_ROUNDS, MIN_SAMPLES, MIN_SECONDS = 8, 10, 2.0
AGREE = 0.05
ROUND_SECONDS = 0.28  # of prefill and of decode in one round, at least one of each: 8 rounds make 2 s


class Plan(NamedTuple):
    """Prompt length, mean decode context, and the seconds that rounds may take."""

    prefill_tokens: int
    decode_context: int
    limit_s: float


class _Bench:
    """One engine under the clock: the state of a latency pass."""

    def __init__(self, engine: Engine, clock: Clock, plan: Plan, vocabulary: int, seed: int) -> None:
        self.engine, self.clock, self.plan, self.vocabulary = engine, clock, plan, vocabulary
        self.rng = np.random.default_rng(seed)

    def ids(self, n: int) -> Ids:
        return self.rng.integers(0, self.vocabulary, n, dtype=np.int64)

    def prefill(self) -> float:
        ids = self.ids(self.plan.prefill_tokens)
        before = self.clock.now()
        self.engine.prefill(ids)
        return self.clock.now() - before

    def decode(self, base: Cache, steps: int) -> list[float]:
        samples, cache = [], base
        for token in self.ids(steps).tolist():
            before = self.clock.now()
            cache = self.engine.decode(cache, token)
            samples.append(self.clock.now() - before)
        return samples


def measure_latency(
    engine: Engine, clock: Clock, plan: Plan, vocabulary: int, progress: Callable[[int, int], None], seed: int = 0
) -> Latency:
    """Warms up, then samples rounds until there are enough or `plan.limit_s` is reached."""
    bench = _Bench(engine, clock, plan, vocabulary, seed)
    started = clock.now()
    warm_prefill = warm_up(lambda: [bench.prefill()], clock, plan.limit_s / 6)
    steps = _steps(bench, engine.prefill(bench.ids(max(1, plan.decode_context - 8))), plan)
    base = engine.prefill(bench.ids(max(1, plan.decode_context - (steps + 1) // 2)))
    warm_decode = warm_up(lambda: bench.decode(base, steps), clock, plan.limit_s / 6)
    prefills = _times(statistics.median(warm_prefill), 64)
    loops = _times(statistics.median(warm_decode) * steps, 64)
    prefill_s: list[tuple[int, float]] = []
    decode_s: list[tuple[int, float]] = []
    number = 0
    while number == 0 or clock.now() - started < plan.limit_s:
        progress(number, MIN_ROUNDS)
        prefill_s += [(number, bench.prefill()) for _ in range(prefills)]
        decode_s += [(number, s) for _ in range(loops) for s in bench.decode(base, steps)]
        number += 1
        if _enough(prefill_s) and _enough(decode_s):
            break
    progress(number, number)
    return Latency(
        load_s=engine.load_s,
        threads=engine.threads,
        prefill=Prefill(
            tokens=plan.prefill_tokens,
            warm_up_s=tuple(warm_prefill),
            samples_s=tuple(s for _, s in prefill_s),
            rounds=tuple(r for r, _ in prefill_s),
        ),
        decode=Decode(
            context=max(1, plan.decode_context - (steps + 1) // 2) + (steps + 1) / 2,
            warm_up_s=tuple(warm_decode),
            samples_s=tuple(s for _, s in decode_s),
            rounds=tuple(r for r, _ in decode_s),
        ),
        limit_reached=not (_enough(prefill_s) and _enough(decode_s)),
    )


def warm_up(sample: Callable[[], list[float]], clock: Clock, budget_s: float) -> list[float]:
    """Samples until the medians of two successive blocks agree within 5 %, or the budget is spent."""
    started, taken = clock.now(), sample() + sample()
    while clock.now() - started < budget_s:
        half = min(len(taken) // 2, 32)
        before, after = statistics.median(taken[-2 * half : -half]), statistics.median(taken[-half:])
        if len(taken) >= 6 and abs(before - after) <= AGREE * after:
            break
        taken += sample()
    return taken


def _steps(bench: _Bench, cache: Cache, plan: Plan) -> int:
    """Decode steps of one loop: 32, fewer where a step is slow or the context is short."""
    typical = statistics.median(bench.decode(cache, 3))
    return max(2, min(32, plan.decode_context, round(ROUND_SECONDS / max(typical, 1e-6))))


def _times(seconds: float, most: int) -> int:
    return max(1, min(most, round(ROUND_SECONDS / max(seconds, 1e-6))))


def _enough(samples: list[tuple[int, float]]) -> bool:
    rounds = samples[-1][0] + 1 if samples else 0
    return rounds >= MIN_ROUNDS and len(samples) >= MIN_SAMPLES and sum(s for _, s in samples) >= MIN_SECONDS
