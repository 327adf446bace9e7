"""Overhead of the decode loop without a model: clock reads, Python, the binding, an empty graph.

It is part of every decode sample of `latency`. It is reported beside them and not subtracted, since
a runtime may do part of it while the device computes. The caller opens the engine on `graph.empty`,
with the model's number of layers and threads.
"""

from __future__ import annotations

import statistics

from edgecap.meters.latency import LatencyBench, LatencyPlan
from edgecap.protocols import Clock, Engine

LIMIT_S = 6.0  # a sixth of it for each warm-up


def measure_overhead(
    engine: Engine, clock: Clock, decode_context: int, limit_s: float = LIMIT_S
) -> float:
    """Return the median seconds of a decode step on an empty graph.

    `decode_context` is the mean context: it matters a little, since a step builds a mask of that
    length. Runs one round, after warm-ups of up to `limit_s` / 6 each.
    """
    bench = LatencyBench(engine, clock, LatencyPlan(1, decode_context, limit_s), engine.vocabulary)
    return statistics.median(
        s for _ in range(bench.loops) for s in bench.decode(bench.base, bench.steps)
    )
