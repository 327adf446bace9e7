"""What the decode loop costs without a model: its own reads of the clock, Python, binding, and a run that computes nothing.

It is inside every decode sample of `latency`. It is reported beside them and subtracted from none, since a runtime
may do part of it while the device computes. The graph that computes nothing is `graph.empty`; its engine, with the
model's number of layers and threads, is the caller's.
"""

from __future__ import annotations

import statistics

from edgecap.meters.latency import LatencyBench, LatencyPlan
from edgecap.protocols import Clock, Engine

LIMIT_S = 6.0  # a sixth of it for each warm-up


def measure_overhead(
    engine: Engine, clock: Clock, decode_context: int, limit_s: float = LIMIT_S
) -> float:
    """Median seconds of a decode step of `latency.Bench` on an empty graph, at a mean context of `decode_context`.

    The context matters a little: a step makes a mask as long. Takes one round, behind warm-ups of `limit_s` / 6 each.
    """
    bench = LatencyBench(engine, clock, LatencyPlan(1, decode_context, limit_s), engine.vocabulary)
    return statistics.median(
        s for _ in range(bench.loops) for s in bench.decode(bench.base, bench.steps)
    )
