"""Measure a cell: build its graph, then measure bits, divergence, placement, energy and memory.

Latency comes last, for all cells in turns: see `timing`. `judging` computes scores.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgecap.analysis.advisor import advise
from edgecap.analysis.warnings.setup import cache_bytes_per_token
from edgecap.graph.variants import CLOSER
from edgecap.machine.nvidia import free_memory
from edgecap.pipeline.artifacts import can_be_fp32, get_or_build, mark_in_use
from edgecap.pipeline.judging import as_absent, failed_cell, pending_cell
from edgecap.pipeline.run_context import (
    ReadyGraph,
    RunContext,
    amounts_of,
    run_step,
    session_of,
)
from edgecap.pipeline.scoring import add_known_documents, document_log, scoring_plan
from edgecap.pipeline.worker import MeasureCell, MeasuredCell, MeasureMemory
from edgecap.provider_options import parse_provider
from edgecap.record import (
    LEFT_OUT,
    Absent,
    Cell,
    Compression,
    Failure,
    Measurement,
    Memory,
    Profile,
)
from edgecap.spec import CellSpec
from edgecap.units import size

DISTANCES = (  # fields of a graph that are measured with its cell
    "divergence_bits",
    "decoded_divergence_bits",
    "prefilled_divergence_bits",
    "widest_activation",
    "cosine",
)
_GARBAGE = ("Garbage", "NotFinite")  # errors of a variant whose numbers overflow or mean nothing
LATENCY_PENDING = Absent(reason="the run ended before the latency was measured")


def measure_cell(context: RunContext, record: Profile, cell: CellSpec) -> Cell:
    """Measure everything of a cell but its latency. A failure is a cell, too."""
    unfit = _unfit(context, record, cell)
    if unfit:
        return failed_cell(cell, Absent(reason="left out"), unfit)
    graph = get_or_build(context, cell)
    if isinstance(graph, Failure):
        return failed_cell(cell, Absent(reason="it could not be made"), graph)
    answer = _too_large(context, record, cell, graph) or _measure(context, record, cell, graph)
    if isinstance(answer, Failure):
        return failed_cell(cell, graph.graph, _with_closer(answer, cell.precision))
    measurement = Measurement(
        compression=answer.compression,
        latency=LATENCY_PENDING,
        energy=answer.energy,
        memory=_measure_memory(context, cell, graph),
        placement=answer.placement,
        work=answer.work,
    )
    described = msgspec.structs.replace(
        graph.graph, **{name: getattr(answer, name) for name in DISTANCES}
    )
    return pending_cell(cell, described, measurement)


def _with_closer(failure: Failure, precision: str) -> Failure:
    """Name the variant that stays closer to fp32 in the failure of one that answers garbage."""
    closer = CLOSER.get(precision)
    if closer is None or failure.error not in _GARBAGE:
        return failure
    return msgspec.structs.replace(failure, message=f"{failure.message}; try {closer}")


def _unfit(context: RunContext, record: Profile, cell: CellSpec) -> Failure | None:
    """Return why --skip-unfit leaves a variant out, before any time is spent on it."""
    if not context.spec.skip_unfit:
        return None
    parameters = record.source.parameters
    known = parameters if isinstance(parameters, int) else None
    advice = advise(record.machine, cell.precision, cell.provider, known)
    if advice is None:
        return None
    message = f"left out: {advice.message}; {advice.advice}"
    return Failure(stage=LEFT_OUT, error=advice.code, message=message)


def _too_large(
    context: RunContext, record: Profile, cell: CellSpec, graph: ReadyGraph
) -> Failure | None:
    """Return why weights and cache do not fit into the free memory of a board, before it tries."""
    kind, device = parse_provider(cell.provider).place
    free = free_memory(device) if kind == "cuda" else None
    a_token = cache_bytes_per_token(context.model.architecture, cell.precision) or 0
    needed = graph.graph.bytes + a_token * amounts_of(context).context
    if free is None or needed <= free:
        return None
    gpu = record.machine.gpu(device)
    name = f"{gpu.name} ({size(gpu.memory_bytes)})" if gpu else "the board"
    return Failure(
        stage="measure",
        error="DeviceMemory",
        message=f"weights and cache need at least {size(needed)}, and {size(free)} are free on "
        f"{name}; end what else uses it (nvidia-smi lists it), or take a smaller variant",
    )


def _measure(
    context: RunContext, record: Profile, cell: CellSpec, graph: ReadyGraph
) -> MeasuredCell | Failure:
    spec, amounts = context.spec, amounts_of(context)
    plan = scoring_plan(context, cell, graph)
    log = document_log(context, record.machine, plan, graph)
    mark_in_use(context, cell, log)
    add_known_documents(log, context.scores.documents)
    step = MeasureCell(
        plan=plan,
        reference=_reference(context, cell),
        samples=amounts.samples,
        journal=str(log),
        prefill_tokens=amounts.prompt,
        decode_context=amounts.context,
        operators=spec.operators,
        allow_fallback=spec.allow_fallback,
        energy=spec.energy,
        assume_watts=spec.assume_watts,
        meter=spec.meter and str(Path(spec.meter).absolute()),
        meter_offset_s=spec.meter_offset_s,
    )
    answer = run_step(context, cell, step, MeasuredCell)
    if isinstance(answer, Failure):
        return answer
    if context.scores.folder is None:
        log.unlink(missing_ok=True)
    return _with_devices(answer, context.scores.devices)


def _reference(context: RunContext, cell: CellSpec) -> str | None:
    """Return the path of the fp32 graph to compare with, or None if there is none."""
    if not can_be_fp32(context):
        return None
    fp32 = get_or_build(context, CellSpec("fp32", cell.provider))
    return str(fp32.path) if isinstance(fp32, ReadyGraph) else None


def _with_devices(answer: MeasuredCell, devices: tuple[str, ...]) -> MeasuredCell:
    """Add contributing devices to the result."""
    if not devices or not isinstance(answer.compression, Compression):
        return answer
    compression = msgspec.structs.replace(answer.compression, scored_on=devices)
    return msgspec.structs.replace(answer, compression=compression)


def _measure_memory(context: RunContext, cell: CellSpec, graph: ReadyGraph) -> Memory | Absent:
    amounts = amounts_of(context)
    prompt, steps = amounts.prompt, amounts.decoded
    step = MeasureMemory(
        session=session_of(context, cell.provider, graph),
        files=tuple(str(graph.folder / f.path) for f in graph.graph.files),
        prefill_tokens=min(prompt, context.model.horizon - steps),
        steps=steps,
    )
    answer = run_step(context, cell, step, Memory)
    return as_absent(answer) if isinstance(answer, Failure) else answer
