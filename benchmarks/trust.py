"""Count wrong verdicts: equal sides called different, and a missed slowdown of 10 %.

    python benchmarks/trust.py --repeats 100          about 90 minutes on 2 cores
    python benchmarks/trust.py --repeats 15

Time two sessions of one graph in turns as `edgecap profile` does, and judge a decoded token as
`edgecap compare` does, from the ratios of adjacent rounds. In the second half one side waits for a
tenth of its own time after each step. Judge the same samples also without pairs, for comparison.
"""

from __future__ import annotations

import argparse
import collections
import statistics
import time
from pathlib import Path

from edgecap.analysis.metrics import BY_NAME, verdict
from edgecap.analysis.score import decode_seconds
from edgecap.meters.latency import LatencyBench, LatencyPlan, measure_in_turns
from edgecap.pipeline.artifacts import get_or_build
from edgecap.pipeline.prepare import prepare
from edgecap.pipeline.run_context import ignore_events
from edgecap.pipeline.worker import in_child
from edgecap.pipeline.worker.sessions import SystemClock
from edgecap.spec import CellSpec, Spec
from edgecap.stats import bootstrap_medians, interval, median, round_medians
from edgecap.storage.files import resolve_paths

MARGIN = BY_NAME["decode_s"].margin
SIDES = {"equal": 0.0, "slower": 0.10}  # extra time of the second side, as a share


class Slowed:
    """An engine whose decode takes `share` longer, by spinning."""

    def __init__(self, engine, share: float) -> None:
        self._engine, self._share = engine, share

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def decode(self, cache, token):
        started = time.perf_counter()
        longer = self._engine.decode(cache, token)
        until = time.perf_counter() + self._share * (time.perf_counter() - started)
        while time.perf_counter() < until:
            pass
        return longer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--sides", default="both", choices=["both", *SIDES])
    parser.add_argument("--precision", default="int8")
    parser.add_argument(
        "--limit", type=float, default=30.0, help="seconds a side, as --limit of profile"
    )
    args = parser.parse_args()
    graph = _graph(args.precision)
    for name, share in SIDES.items():
        if args.sides not in ("both", name):
            continue
        pairs, alone, rounds = collections.Counter(), collections.Counter(), []
        for _ in range(args.repeats):
            a, b = _pair(graph, share, args.limit)
            pairs[_paired(a, b)] += 1
            alone[_unpaired(a, b)] += 1
            rounds.append(max(a.decode.rounds) + 1)
        median_rounds = statistics.median(rounds)
        print(f"{name} sides: {args.repeats} repeats, median of {median_rounds:.0f} rounds")
        print(f"  adjacent rounds in pairs   {dict(pairs)}")
        print(f"  each side on its own       {dict(alone)}", flush=True)


def _graph(precision: str) -> Path:
    job = prepare(Spec(precisions=(precision,)), resolve_paths(), ignore_events, in_child).context
    return get_or_build(job, CellSpec(precision, "cpu")).path


def _pair(graph: Path, share: float, limit_s: float):
    from edgecap.runtime.engine import OrtEngine

    plan, clock = LatencyPlan(512, 512, limit_s, 0.03), SystemClock()
    engines = [OrtEngine(graph, "cpu", 2, vocabulary=8192) for _ in range(2)]
    sides = [engines[0], Slowed(engines[1], share) if share else engines[1]]
    return measure_in_turns(
        [LatencyBench(e, clock, plan, 8192) for e in sides],
        clock,
        2 * limit_s,
        lambda done, total: None,
    )


def _paired(a, b) -> str:
    x, y = (round_medians(side.decode.samples_s, side.decode.rounds) for side in (a, b))
    ratios = [after / before for before, after in zip(x, y, strict=True)]
    return verdict(interval(median(ratios), bootstrap_medians(ratios)), True, MARGIN)


def _unpaired(a, b) -> str:
    (x, xs), (y, ys) = decode_seconds(a, 1), decode_seconds(b, 2)
    return verdict(interval(y / x, [q / p for p, q in zip(xs, ys, strict=True)]), True, MARGIN)


if __name__ == "__main__":
    main()
