"""Measure a cell: build its graph, then measure bits, divergence, placement, energy and memory.

Latency comes last, for all cells in turns: see `timing`. `judging` computes scores.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgecap.analysis.advisor import advise
from edgecap.analysis.warnings.setup import cache_bytes_per_token
from edgecap.graph.variants import CLOSER, computes_in_half
from edgecap.machine.info import available_memory
from edgecap.machine.nvidia import free_memory
from edgecap.pipeline.artifacts import can_be_fp32, get_or_build, source_of
from edgecap.pipeline.building import mark_in_use
from edgecap.pipeline.judging import as_absent, failed_cell, pending_cell
from edgecap.pipeline.run_context import (
    ReadyGraph,
    RunContext,
    amounts_of,
    run_step,
    session_of,
)
from edgecap.pipeline.scoring import add_known_documents, document_log, scoring_plan
from edgecap.pipeline.worker import MeasureCell, MeasuredCell, MeasureMemory, ReferenceGraph
from edgecap.provider_options import base_name, parse_provider
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

MEASURED = (  # fields of a graph that are measured with its cell
    "divergence_bits",
    "decoded_divergence_bits",
    "prefilled_divergence_bits",
    "widest_activation",
    "cosine",
    "weights",
    "arithmetic",
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
    reference = _reference(context, cell, graph)
    too_large = _too_large(context, record, cell, graph)
    answer = too_large or _measure(context, record, cell, graph, reference)
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
        graph.graph,
        divergence_from=reference.precision if reference else "fp32",
        **{name: getattr(answer, name) for name in MEASURED},
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
    half = computes_in_half(cell.precision, cell.provider)
    a_token = cache_bytes_per_token(context.model.architecture, half) or 0
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
    context: RunContext,
    record: Profile,
    cell: CellSpec,
    graph: ReadyGraph,
    reference: ReferenceGraph | None,
) -> MeasuredCell | Failure:
    spec, amounts = context.spec, amounts_of(context)
    plan = scoring_plan(context, cell, graph)
    log = document_log(context, record.machine, plan, graph)
    mark_in_use(context, cell, log)
    add_known_documents(log, context.scores.documents, context.corpus.count)
    step = MeasureCell(
        plan=plan,
        reference=reference,
        samples=amounts.samples,
        journal=str(log),
        prefill_tokens=amounts.prompt,
        decode_context=amounts.context,
        decode_steps=amounts.decoded,
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


def _reference(context: RunContext, cell: CellSpec, graph: ReadyGraph) -> ReferenceGraph | None:
    """Return the graph to compare a cell with, or None if there is none.

    It is fp32 on the CPU, or fp16 on the cell's provider where fp32 is not there or does not fit
    into memory beside another provider's work. Both must fit on a board then.
    """
    fp32 = _ready(context, source_of(cell)) if can_be_fp32(context) else None
    if fp32 and (base_name(cell.provider) == "cpu" or fp32.graph.bytes < available_memory()):
        return ReferenceGraph(graph=str(fp32.path))
    there = fp32 or any(ready.graph.precision == "fp16" for ready in context.graphs)
    half = CellSpec("fp16", cell.provider)
    fp16 = _ready(context, half) if there and cell != half else None
    kind, device = parse_provider(cell.provider).place
    free = free_memory(device) if kind == "cuda" else None
    if fp16 is None or (free is not None and fp16.graph.bytes + graph.graph.bytes > free):
        return None
    return ReferenceGraph(graph=str(fp16.path), precision="fp16", provider=cell.provider)


def _ready(context: RunContext, cell: CellSpec) -> ReadyGraph | None:
    graph = get_or_build(context, cell)
    return graph if isinstance(graph, ReadyGraph) else None


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
