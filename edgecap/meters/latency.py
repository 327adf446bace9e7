"""Seconds of prefill and decode, sampled in rounds; several engines take turns within each round.

    warm-up of each  | round 0          | round 1          | ...
    until two blocks | A, B, C          | C, B, A          | until 8 rounds, 10 samples, 2 s and
    agree            | prefills, decode | prefills, decode | the target interval, or the limit

Samples of one round are correlated and rounds drift, so each sample keeps its round; engines of one
round are compared in pairs. The order is reversed every round, so that drift within rounds cancels.
Token ids are fresh in every round; no token ends a loop. Decoding restarts from the same cache in
each loop, so that the mean context is that of `flops_per_token`. Each round moves the cache to
other memory. An encoder only reads prompts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from edgecap import stats
from edgecap.protocols import Cache, Clock, Engine, Ids
from edgecap.record import Absent, Decode, Latency, Prefill

MIN_ROUNDS, MIN_SAMPLES, MIN_SECONDS = 8, 10, 2.0
SHORT_TOKENS = 32  # of a cache on which a step is timed before rounds
AGREE = 0.05
DIGITS = 9  # of a second that a clock resolves
ROUND_SECONDS = 0.28  # of prefill, and of decode, in one round: 8 rounds make 2 s
NOT_DECODED = Absent(reason="an encoder does not decode")
PAUSE_S = 0.01  # between two engines, until the threads of the first stop spinning


class LatencyPlan(NamedTuple):
    """Prompt tokens, mean decode context, time limit, and precision of the medians.

    `decode_context` 0 decodes nothing. `target` is half the 95 % interval over the median; 0 asks
    for no more than the minimum number of rounds.
    """

    prefill_tokens: int
    decode_context: int
    limit_s: float
    target: float = 0.0


class Samples(NamedTuple):
    """Seconds, each with the round that it was taken in."""

    seconds: list[float]
    rounds: list[int]

    def add(self, number: int, seconds_taken: Sequence[float]) -> None:
        """Append the samples of a round."""
        self.seconds.extend(round(seconds, DIGITS) for seconds in seconds_taken)
        self.rounds.extend([number] * len(seconds_taken))

    def is_enough(self, target: float) -> bool:
        """Check the number of samples and the interval of their median."""
        many = len(set(self.rounds)) >= MIN_ROUNDS and len(self.seconds) >= MIN_SAMPLES
        if not many or sum(self.seconds) < MIN_SECONDS:
            return False
        return not target or stats.relative_half_width(self.seconds, self.rounds) <= target


class LatencyBench:
    """Benchmark of one engine: warm it up on construction, then run rounds."""

    def __init__(
        self, engine: Engine, clock: Clock, plan: LatencyPlan, vocabulary: int, seed: int = 0
    ) -> None:
        self.engine, self.clock, self.plan, self.vocabulary = engine, clock, plan, vocabulary
        began = clock.now()
        self.rng = np.random.default_rng(seed)
        self.prefills, self.decodes = Samples([], []), Samples([], [])
        self.warm_prefill = warm_up(lambda: [self.prefill()], clock, plan.limit_s / 6)
        self.runs, self.loops = _repeats(statistics.median(self.warm_prefill), 64), 0
        if plan.decode_context:
            self._warm_decoding()
        self.spent_s = clock.now() - began

    def _warm_decoding(self) -> None:
        plan = self.plan
        short = min(SHORT_TOKENS, max(1, plan.decode_context - 8))
        self.steps = _loop_steps(self, self.engine.prefill(self.ids(short)), plan)
        self.begin = max(1, plan.decode_context - (self.steps + 1) // 2)
        self.base = self.engine.prefill(self.ids(self.begin))
        self.warm_decode = warm_up(
            lambda: self.decode(self.base, self.steps), self.clock, plan.limit_s / 6
        )
        self.loops = _repeats(statistics.median(self.warm_decode) * self.steps, 64)

    def ids(self, n: int) -> Ids:
        """Return `n` fresh token ids."""
        return self.rng.integers(0, self.vocabulary, n, dtype=np.int64)

    def prefill(self) -> float:
        """Return the seconds of one prompt."""
        ids = self.ids(self.plan.prefill_tokens)
        before = self.clock.now()
        self.engine.prefill(ids)
        return self.clock.now() - before

    def decode(self, base: Cache, steps: int) -> list[float]:
        """Return the seconds of each of `steps` tokens decoded after `base`."""
        samples, cache = [], base
        for token in self.ids(steps).tolist():
            before = self.clock.now()
            cache = self.engine.decode(cache, token)
            samples.append(self.clock.now() - before)
        return samples

    def run_round(self, number: int) -> None:
        """Run one round of prefills and decode loops."""
        self.prefills.add(number, [self.prefill() for _ in range(self.runs)])
        if self.loops:
            self.base = self.engine.relocated(self.base)
        for _ in range(self.loops):
            self.decodes.add(number, self.decode(self.base, self.steps))

    def is_enough(self) -> bool:
        """Check that prefill and decode both have enough samples."""
        phases = (self.prefills, self.decodes) if self.loops else (self.prefills,)
        return all(samples.is_enough(self.plan.target) for samples in phases)

    def result(self, in_turns: bool, limit_reached: bool) -> Latency:
        """Return the samples as a record; `in_turns` if several engines shared the rounds."""
        return Latency(
            load_s=self.engine.load_s,
            threads=self.engine.threads,
            launches=self.engine.launches,
            prefill=Prefill(
                tokens=self.plan.prefill_tokens,
                warm_up_s=tuple(self.warm_prefill),
                samples_s=tuple(self.prefills.seconds),
                rounds=tuple(self.prefills.rounds),
            ),
            decode=self._decode_record(),
            limit_reached=limit_reached,
            in_turns=in_turns,
        )

    def _decode_record(self) -> Decode | Absent:
        if not self.loops:
            return NOT_DECODED
        return Decode(
            context=self.begin + (self.steps + 1) / 2,
            warm_up_s=tuple(self.warm_decode),
            samples_s=tuple(self.decodes.seconds),
            rounds=tuple(self.decodes.rounds),
        )


def measure_latency(
    engine: Engine,
    clock: Clock,
    plan: LatencyPlan,
    vocabulary: int,
    progress: Callable[[int, int], None],
    seed: int = 0,
) -> Latency:
    """Warm up one engine and sample rounds until there are enough or `plan.limit_s` is reached."""
    (latency,) = measure_in_turns(
        [LatencyBench(engine, clock, plan, vocabulary, seed)], clock, plan.limit_s, progress
    )
    return latency


def measure_in_turns(
    benches: Sequence[LatencyBench],
    clock: Clock,
    limit_s: float,
    progress: Callable[[int, int], None],
    is_decided: Callable[[], bool] = lambda: False,
    least_rounds: int = 1,
) -> tuple[Latency, ...]:
    """Run rounds of all engines in turns until each has enough samples or `limit_s` is reached.

    They also end when `is_decided` says so. The limit includes the warm-ups. Runs at least
    `least_rounds`. Progress is in milliseconds of the limit.
    """
    started, number = clock.now() - sum(bench.spent_s for bench in benches), 0
    decided = False
    while number < least_rounds or clock.now() - started < limit_s:
        spent_s = min(clock.now() - started, limit_s)
        progress(round(1000 * spent_s), max(1, round(1000 * limit_s)))
        for bench in benches if number % 2 == 0 else reversed(benches):
            bench.run_round(number)
            if len(benches) > 1:
                clock.sleep(PAUSE_S)
        number += 1
        decided = is_decided()
        if decided or all(bench.is_enough() for bench in benches):
            break
    progress(1, 1)
    return tuple(
        bench.result(len(benches) > 1, not decided and not bench.is_enough()) for bench in benches
    )


class Decider:
    """Tell when rounds suffice to say which engines are worth more than the baseline.

    Each engine comes with the bounds of what its bits are worth beside those of the baseline, which
    has None. Worth is that times the gain in speed: of decoding, or of the prompt where nothing is
    decoded. `margin` is the relative difference of worth that counts as none. Without engines
    nothing is ever decided.
    """

    def __init__(
        self,
        engines: Sequence[tuple[LatencyBench, tuple[float, float] | None]],
        few_rounds: bool,
        margin: float,
    ) -> None:
        self._rounds = stats.FEW_ROUNDS if few_rounds else MIN_ROUNDS
        self._least = 1 + margin
        self._baseline = next((bench for bench, gain in engines if gain is None), None)
        self._others = [(bench, gain) for bench, gain in engines if gain is not None]

    def __call__(self) -> bool:
        """Return True if each worth lies above or below 1 + margin, or below that of the best."""
        if self._baseline is None or not self._others:
            return False
        before = self._medians(self._baseline)
        if len(before) < self._rounds:
            return False
        bounds = [_worth(before, self._medians(bench), gain) for bench, gain in self._others]
        best = max(low for low, _ in bounds)
        least = max(best, self._least)
        return all(low > self._least or high < least for low, high in bounds)

    @staticmethod
    def _medians(bench: LatencyBench) -> list[float]:
        timed = bench.decodes if bench.loops else bench.prefills
        return stats.round_medians(timed.seconds, timed.rounds)


def _worth(
    before: Sequence[float], after: Sequence[float], gain: tuple[float, float]
) -> tuple[float, float]:
    """Return the 99 % bounds of a worth, by the medians of each round.

    They are wider than those of a verdict, because they are looked at after each round.
    """
    draws = stats.bootstrap_medians([x / y for x, y in zip(before, after, strict=True)])
    low, high = np.quantile(draws, [0.005, 0.995])
    return gain[0] * float(low), gain[1] * float(high)


def warm_up(sample: Callable[[], list[float]], clock: Clock, budget_s: float) -> list[float]:
    """Sample until the medians of two successive blocks agree within 5 % or the budget is spent."""
    started, samples = clock.now(), sample() + sample()
    while clock.now() - started < budget_s:
        half = min(len(samples) // 2, 32)
        before, after = (
            statistics.median(samples[-2 * half : -half]),
            statistics.median(samples[-half:]),
        )
        if len(samples) >= 6 and abs(before - after) <= AGREE * after:
            break
        samples += sample()
    return samples


def _loop_steps(bench: LatencyBench, cache: Cache, plan: LatencyPlan) -> int:
    """Return the decode steps of a loop: 32, fewer if a step is slow or the context is short."""
    typical = statistics.median(bench.decode(cache, 3))
    return max(2, min(32, plan.decode_context, round(ROUND_SECONDS / max(typical, 1e-6))))


def _repeats(seconds: float, most: int) -> int:
    return max(1, min(most, round(ROUND_SECONDS / max(seconds, 1e-6))))
