"""Measure the latency of several graphs in one process, in turns."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from edgecap.graph.empty_decoder import empty_decoder
from edgecap.machine.board_noise import monitor_board
from edgecap.machine.noise import NoiseMonitor
from edgecap.meters.context_sweep import measure_context_sweep
from edgecap.meters.latency import (
    Decider,
    LatencyBench,
    LatencyPlan,
    measure_in_turns,
)
from edgecap.meters.overhead import measure_overhead
from edgecap.meters.throughput import measure_throughput
from edgecap.pipeline.worker.answers import (
    MeasuredLatency,
)
from edgecap.pipeline.worker.sessions import (
    Report,
    SystemClock,
    failure_of,
    open_timed_session,
    progress_of,
)
from edgecap.pipeline.worker.steps import (
    MeasureLatency,
    Session,
    stage_of,
)
from edgecap.provider_options import parse_provider
from edgecap.record import Failure, Latency
from edgecap.spec import SWEEP_SHARE, SWEEP_STEPS
from edgecap.stats import FEW_ROUNDS


def measure_latency(step: MeasureLatency, report: Report) -> MeasuredLatency:
    """Time all sessions in one process.

    They take turns, and an idle one was seen to disturb no other.
    """
    benches = [_bench(step, entrant, report) for entrant in step.entrants]
    ready = [bench for bench in benches if isinstance(bench, LatencyBench)]
    gains = [g for bench, g in zip(benches, step.gains, strict=False) if bench in ready]
    decider = Decider(list(zip(ready, gains, strict=False)), step.few_rounds, step.margin)
    timed = dict(zip(ready, _take_turns(step, ready, decider, report), strict=True))
    return MeasuredLatency(
        latencies=tuple(
            bench
            if isinstance(bench, Failure)
            else _with_sweeps(
                step, bench, timed[bench], _share_of(report, ready.index(bench), len(ready))
            )
            for bench in benches
        )
    )


def _share_of(report: Report, place: int, of: int) -> Report:
    """Report the stages of one of `of` benches as a share of the same stage of all."""
    return lambda stage, done, total: report(stage, place * total + done, of * total)


def _bench(step: MeasureLatency, entrant: Session, report: Report) -> LatencyBench | Failure:
    """Open and warm up a session; a graph that cannot run does not stop the others."""
    report("warm-up", 0, 1)
    plan = LatencyPlan(step.prefill_tokens, step.decode_context, step.limit_s, step.target)
    try:
        return LatencyBench(open_timed_session(entrant), SystemClock(), plan, entrant.vocabulary)
    except Exception as error:
        return failure_of(stage_of(step), error)


def _take_turns(
    step: MeasureLatency, ready: list[LatencyBench], decider: Decider, report: Report
) -> list[Latency]:
    """Time rounds of all benches, beside a monitor of system noise; then the overhead."""
    kind, device = parse_provider(step.entrants[0].provider).place  # on a board there is only one
    monitor = NoiseMonitor(monitor_board(device) if kind == "cuda" else None)

    def progress(done: int, total: int) -> None:
        monitor.sample()
        report("latency", done, total)

    limit_s = step.limit_s * len(ready)
    least = FEW_ROUNDS if step.few_rounds else 1
    clock = SystemClock()
    turns = measure_in_turns(ready, clock, limit_s, progress, decider, least) if ready else ()
    conditions = monitor.conditions()
    overhead_s = _overhead(step) if step.decode_context else None
    return [
        msgspec.structs.replace(turn, conditions=conditions, overhead_s=overhead_s)
        for turn in turns
    ]


def _overhead(step: MeasureLatency) -> float | None:
    """Time a decode step that computes nothing, in seconds; None if that fails.

    It runs on the provider of the first entrant.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "empty.onnx"
            path.write_bytes(empty_decoder(step.layers))
            engine = open_timed_session(step.entrants[0], path=path)
            return measure_overhead(engine, SystemClock(), step.decode_context)
    except Exception:
        return None


def _with_sweeps(
    step: MeasureLatency, bench: LatencyBench, latency: Latency, report: Report
) -> Latency:
    """Add other contexts, batches and streams, as far as the step asks for them."""
    clock = SystemClock()
    if step.sweep:
        sweep = measure_context_sweep(
            bench.engine,
            clock,
            step.sweep,
            bench.vocabulary,
            step.limit_s * SWEEP_SHARE,
            progress_of(report, "contexts"),
            SWEEP_STEPS if step.decode_context else 0,
        )
        latency = msgspec.structs.replace(latency, sweep=sweep)
        if bench.engine.launches != latency.launches:
            launches = f"{latency.launches}; further contexts {bench.engine.launches}"
            latency = msgspec.structs.replace(latency, launches=launches)
    points = [(batch, streams) for batch in step.batches for streams in step.streams]
    if points != [(1, 1)]:
        if max(step.streams) > 1:
            bench.engine.stop_replaying("streams share a session")
        throughput = measure_throughput(
            bench.engine,
            clock,
            points,
            step.prefill_tokens,
            step.decode_context,
            bench.vocabulary,
            step.limit_s,
            progress_of(report, "throughput"),
        )
        latency = msgspec.structs.replace(latency, throughput=throughput)
    return latency
