"""Throughput against latency: prefill and decode in batches, in several streams of one session.

    warm-up of each point | round 0: A, B, C | round 1: A, B, C | ... up to 5 rounds, or the limit

    streams of a point | read a prompt | read the decode context | decode `steps` tokens a row |
                       g               g       (not timed)       g                             g

A stream is a thread with its own cache; the runtime releases Python's lock while it runs. At each
gate (g) streams wait for one another, and the last to arrive reads the clock, so that nothing
untimed falls between two marks.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from edgecap.names import one_line
from edgecap.protocols import Clock, Engine, Ids
from edgecap.record import Failure, Throughput

ROUNDS = 5
LOOP_SECONDS = 0.3  # of decoding, about
MIN_STEPS, MAX_STEPS = 2, 32  # decode steps of a loop
WARM_UP_STEPS = 3  # decode steps of the warm-up


class _Script(NamedTuple):
    """Fresh ids of one stream.

    `prompt` and `behind` have shape (batch, n), `tokens`, decoded after `behind`, (steps, batch).
    """

    prompt: Ids
    behind: Ids
    tokens: Ids


class _Sample(NamedTuple):
    """Wall seconds of prefill and decode in all streams, and the median seconds of a step."""

    prefill_s: float
    decode_s: float | None
    step_s: float | None


class _Shape(NamedTuple):
    """Rows of a batch, prompt positions, positions before the loop, and decode steps."""

    batch: int
    prefill_tokens: int
    behind: int
    steps: int

    def script(self, rng: np.random.Generator, vocabulary: int) -> _Script:
        """Return fresh ids for one stream."""
        sizes = (
            (self.batch, self.prefill_tokens),
            (self.batch, self.behind),
            (self.steps, self.batch),
        )
        return _Script(*(rng.integers(0, vocabulary, size, dtype=np.int64) for size in sizes))


_Turn = Callable[[Sequence[_Script]], _Sample | Failure]  # one script a stream


def measure_throughput(
    engine: Engine,
    clock: Clock,
    points: Sequence[tuple[int, int]],
    prefill_tokens: int,
    decode_context: int,
    vocabulary: int,
    limit_s: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Throughput | Failure, ...]:
    """Measure one warm-up and up to `ROUNDS` rounds of all `points` (batch, streams).

    Runs at least one round, and starts none after `limit_s`. A point that fails becomes a Failure,
    and the others go on. A cache lives no longer than a turn of its point, and the prompt's is
    freed before the decode context's is made: 16 rows in 4 streams hold 64 of each, which can be
    gigabytes. In return the decode context is read again in each round, untimed.
    """
    started, rng = clock.now(), np.random.default_rng(4)
    benches = [_PointBench(*point, prefill_tokens, decode_context) for point in points]
    for number in range(-1, ROUNDS):
        if number > 0 and clock.now() - started >= limit_s:
            break
        for place, bench in enumerate(benches, (number + 1) * len(benches)):
            progress(place, (1 + ROUNDS) * len(benches))
            bench.run_turn(partial(_run_turn, engine, clock), rng, vocabulary)
    return tuple(bench.result() for bench in benches)


class _PointBench:
    """Benchmark of one point: the first turn is the warm-up, the others are samples.

    A point that failed is not measured again.
    """

    def __init__(self, batch: int, streams: int, prefill_tokens: int, decode_context: int) -> None:
        self.streams, self.decode_context = streams, decode_context
        self.shape = _Shape(batch, prefill_tokens, *_loop(decode_context, WARM_UP_STEPS))
        self.warm = False
        self.samples: list[_Sample] = []
        self.failure: Failure | None = None

    def run_turn(self, turn: _Turn, rng: np.random.Generator, vocabulary: int) -> None:
        """Run one turn with fresh ids."""
        if self.failure:
            return
        sample = turn([self.shape.script(rng, vocabulary) for _ in range(self.streams)])
        if isinstance(sample, Failure):
            self.failure = sample
        elif self.warm:
            self.samples.append(sample)
        else:
            self.warm = True
            if sample.step_s is not None:
                self._set_steps(sample.step_s)

    def _set_steps(self, step_s: float) -> None:
        """Set the steps of a loop from the warm-up's `step_s` seconds."""
        most = min(MAX_STEPS, self.decode_context, round(LOOP_SECONDS / max(step_s, 1e-6)))
        behind, steps = _loop(self.decode_context, max(MIN_STEPS, most))
        self.shape = self.shape._replace(behind=behind, steps=steps)

    def result(self) -> Throughput | Failure:
        """Return the samples as a record."""
        if self.failure:
            return self.failure
        return Throughput(
            batch=self.shape.batch,
            streams=self.streams,
            prefill_tokens=self.shape.prefill_tokens,
            context=self.shape.behind + (self.shape.steps + 1) / 2 if self.shape.steps else 0.0,
            steps=self.shape.steps,
            prefill_s=tuple(s.prefill_s for s in self.samples),
            decode_s=tuple(s.decode_s for s in self.samples if s.decode_s is not None),
            step_s=tuple(s.step_s for s in self.samples if s.step_s is not None),
        )


def _loop(decode_context: int, steps: int) -> tuple[int, int]:
    """Return the positions before a loop with mean context `decode_context`, and its steps.

    Both are 0 if `decode_context` is.
    """
    if not decode_context:
        return 0, 0
    return max(1, decode_context - (steps + 1) // 2), steps


# --- streams ----------------------------------------------------------------------------------

# Seconds of each step; an error; or None if another stream failed.
_Outcome = list[float] | Failure | None


def _run_turn(engine: Engine, clock: Clock, scripts: Sequence[_Script]) -> _Sample | Failure:
    """Run all streams of a point at once, until each has ended."""
    marks: list[float] = []
    gate = threading.Barrier(len(scripts), lambda: marks.append(clock.now()))
    try:
        ends = _run_streams(
            [partial(_stream, engine, clock, gate, script) for script in scripts], gate
        )
    except Exception as error:  # no room for one more thread
        return _failure(error, scripts[0], gate)
    failures = [end for end in ends if isinstance(end, Failure)]
    steps = [seconds for end in ends if isinstance(end, list) for seconds in end]
    if failures:
        return failures[0]
    read_s = marks[1] - marks[0]
    return (
        _Sample(read_s, marks[3] - marks[2], statistics.median(steps))
        if steps
        else _Sample(read_s, None, None)
    )


def _run_streams(
    streams: Sequence[Callable[[], _Outcome]], gate: threading.Barrier
) -> list[_Outcome]:
    """Run each stream in its own thread and return their outcomes; break the gate on an error."""
    with ThreadPoolExecutor(len(streams), "edgecap-stream") as pool:
        try:
            ends = [pool.submit(stream) for stream in streams]
            return [end.result() for end in ends]
        except BaseException:
            gate.abort()
            raise


def _stream(engine: Engine, clock: Clock, gate: threading.Barrier, script: _Script) -> _Outcome:
    """Run a script; return an error as a Failure, since a traceback would keep caches alive."""
    try:
        return _steps(engine, clock, gate, script)
    except threading.BrokenBarrierError:
        return None
    except Exception as error:
        gate.abort()
        return _failure(error, script, gate)
    except BaseException:
        gate.abort()
        raise


def _steps(engine: Engine, clock: Clock, gate: threading.Barrier, script: _Script) -> list[float]:
    """Return the seconds of each decode step of this stream."""
    gate.wait()
    engine.prefill(script.prompt)
    gate.wait()
    if not len(script.tokens):
        return []
    cache, step_s = engine.prefill(script.behind), []
    gate.wait()
    for tokens in script.tokens:
        before = clock.now()
        cache = engine.decode(cache, tokens)
        step_s.append(clock.now() - before)
    gate.wait()
    return step_s


def _failure(error: Exception, script: _Script, gate: threading.Barrier) -> Failure:
    where = f"batch {len(script.prompt)}, streams {gate.parties}"
    text = one_line(error) or "no message"
    return Failure(stage="throughput", error=type(error).__name__, message=f"{where}: {text[:500]}")
