"""Measure the latency of the cells of a run, in turns if their graphs fit into memory together."""

from __future__ import annotations

import msgspec

from edgecap.analysis.cell_view import CellView, cell_views
from edgecap.analysis.compare import decoded_gain
from edgecap.analysis.metrics import BY_NAME
from edgecap.analysis.score import decode_seconds
from edgecap.analysis.verdict import DECIDING, baseline_of
from edgecap.machine.info import available_memory
from edgecap.pipeline.artifacts import get_or_build
from edgecap.pipeline.capabilities import Model
from edgecap.pipeline.judging import as_absent
from edgecap.pipeline.run_context import (
    FULL,
    ReadyGraph,
    RunContext,
    amounts_of,
    run_step,
    session_of,
)
from edgecap.pipeline.worker import Gain, MeasuredLatency, MeasureLatency
from edgecap.provider_options import parse_provider
from edgecap.record import Absent, Architecture, Cell, Failure, Latency, Measurement, Profile
from edgecap.spec import SWEEP_SHARE, SWEEP_STEPS, CellSpec, Spec

TimingGroup = dict[CellSpec, ReadyGraph]
DEFAULT_LAYERS = 24  # of the empty graph, if the model's are unknown
TARGET = 0.03  # half the interval of a median over it
SHORT_LIMIT_S = 5.0  # of a latency that only decides what to build
SWEEP = (128, 512, 1024)  # contexts that are timed for details
# Memory that sessions side by side may need: a factor of the graph, bytes a session, share of free.
MEMORY_OF_GRAPH, MEMORY_OF_SESSION, FREE_SHARE = 1.5, 150_000_000, 0.6


def timing_groups(context: RunContext, record: Profile) -> list[TimingGroup]:
    """Group the measured cells for timing.

    All cells share one process and take turns if they run on the CPU and fit into memory together;
    else each is timed alone.
    """
    graphs: TimingGroup = {}
    for cell in record.cells:
        spec = CellSpec(cell.precision, cell.provider)
        graph = get_or_build(context, spec) if isinstance(cell.outcome, Measurement) else None
        if isinstance(graph, ReadyGraph):
            graphs[spec] = graph
    on_cpu = all(parse_provider(c.provider).place == ("cpu", 0) for c in record.cells)
    needed = sum(MEMORY_OF_GRAPH * r.graph.bytes + MEMORY_OF_SESSION for r in graphs.values())
    if on_cpu and len(graphs) > 1 and needed <= FREE_SHARE * available_memory():
        return [graphs]
    return [{cell: graph} for cell, graph in graphs.items()]


def measure_latency(context: RunContext, record: Profile, group: TimingGroup) -> list[Cell]:
    """Measure the latency of a group and return its cells with it.

    If the process of a group of several ends early, each cell is timed alone.
    """
    alone = next(iter(group)) if len(group) == 1 else None
    step = msgspec.structs.replace(_step(context, group), gains=_gains(record, group))
    answer = run_step(context, alone, step, MeasuredLatency)
    if isinstance(answer, MeasuredLatency):
        latencies: tuple[Latency | Failure, ...] = answer.latencies
    elif alone:
        latencies = (answer,)
    else:
        singles = [{cell: graph} for cell, graph in group.items()]
        return [cell for single in singles for cell in measure_latency(context, record, single)]
    cells = {CellSpec(c.precision, c.provider): c for c in record.cells}
    return [_with_latency(cells[c], x) for c, x in zip(group, latencies, strict=True)]


def decode_seconds_alone(context: RunContext, cell: CellSpec, graph: ReadyGraph) -> float | None:
    """Time a graph for a few seconds, and return those of a decoded token; None if that fails."""
    step = _step(context, {cell: graph})
    step = msgspec.structs.replace(step, limit_s=min(SHORT_LIMIT_S, step.limit_s), sweep=())
    answer = run_step(context, cell, step, MeasuredLatency)
    latency = answer.latencies[0] if isinstance(answer, MeasuredLatency) else answer
    seconds = decode_seconds(latency, None) if isinstance(latency, Latency) else None
    return None if seconds is None or isinstance(seconds, Absent) else float(seconds[0])


def _step(context: RunContext, group: TimingGroup) -> MeasureLatency:
    model, spec, amounts = context.model, context.spec, amounts_of(context)
    assert spec.limit_s is not None  # a request fills it in
    return MeasureLatency(
        entrants=tuple(session_of(context, c.provider, graph) for c, graph in group.items()),
        prefill_tokens=amounts.prompt,
        decode_context=amounts.context,
        limit_s=spec.limit_s,
        target=spec.precision_target or TARGET,
        few_rounds=spec.quick,
        margin=BY_NAME[DECIDING[0]].margin,
        sweep=_contexts(spec, model),
        batches=spec.batches,
        streams=spec.streams,
        layers=_layers(model.architecture),
    )


def timing_seconds(context: RunContext) -> tuple[float, float]:
    """Return the most seconds of a cell in rounds, and about those at other contexts and batches.

    The latter is what `--details`, `--context-sweep`, `--batch` and `--streams` add.
    """
    step = _step(context, {})
    other_batches = (*step.batches, *step.streams) != (1, 1)
    return step.limit_s, step.limit_s * (bool(step.sweep) * SWEEP_SHARE + other_batches)


def _gains(record: Profile, group: TimingGroup) -> tuple[Gain | None, ...]:
    """Return what decoded tokens of each cell are worth beside the baseline's, which has None.

    They tell when rounds suffice to decide; () if a precision was asked for, or of one cell.
    """
    if record.spec.precision_target is not None or len(group) < 2:
        return ()
    measured = [view for view in cell_views([record]) if view.measured]
    views = {CellSpec(view.cell.precision, view.cell.provider): view for view in measured}
    baseline = baseline_of(measured)
    return tuple(
        None if views[cell] is baseline else _gain(baseline, views[cell]) for cell in group
    )


def _gain(baseline: CellView, view: CellView) -> Gain:
    """Return the bounds of what decoded tokens are worth, but for their seconds."""
    gain = decoded_gain(baseline, view)
    if gain is None:
        return 1.0, 1.0
    return (
        gain.value if gain.low is None else gain.low,
        gain.value if gain.high is None else gain.high,
    )


def _layers(architecture: Architecture | Absent) -> int:
    if isinstance(architecture, Absent):
        return DEFAULT_LAYERS
    return sum(layer.count for layer in architecture.layers)


def _contexts(spec: Spec, model: Model) -> tuple[int, ...]:
    """Return the contexts to time: those asked for, else for details the usual ones that fit."""
    if spec.context_sweep is not None or not spec.details:
        return spec.context_sweep or ()
    decoded = 0 if model.encodes else SWEEP_STEPS
    unknown = FULL.prompt if model.encodes else SWEEP[-1] + decoded
    most = model.sizes.positions or unknown
    return tuple(c for c in SWEEP if c + decoded <= most)


def _with_latency(cell: Cell, latency: Latency | Failure) -> Cell:
    assert isinstance(cell.outcome, Measurement)
    measured = as_absent(latency) if isinstance(latency, Failure) else latency
    outcome = msgspec.structs.replace(cell.outcome, latency=measured)
    return msgspec.structs.replace(cell, outcome=outcome)
