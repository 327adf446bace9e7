"""Estimate the work of a run in seconds of a usual machine, for the time that is left.

Only the proportions matter: whoever shows them corrects the pace as the run goes on. What lies in
the model's folder or in the cache already takes no time.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.graph.variants import FORMS, VARIANTS
from edgecap.model.weight_files import count_parameters
from edgecap.pipeline.artifacts import can_be_fp32, exported, is_built
from edgecap.pipeline.peaks import are_measured
from edgecap.pipeline.run_context import RunContext, WorkPart, threads_of
from edgecap.pipeline.timing import timing_seconds
from edgecap.spec import CellSpec

# Seconds on 2 cores with AVX2, of small models and by GB of fp32 weights.
EXPORT_S, EXPORT_S_PER_GB = 15.0, 120.0
MAKE_S, MAKE_S_PER_GB, CALIBRATE_S_PER_GB = 1.0, 15.0, 100.0
MEASURE_S, MEASURE_S_PER_GB = 3.0, 10.0
TEXT_S_PER_BYTE, TEXT_S_PER_BYTE_GB = 1e-4, 1.5e-3
PEAKS_S = 25.0


def work_of(context: RunContext, cells: Sequence[CellSpec], timed: int = 0) -> tuple[WorkPart, ...]:
    """Return the parts that build and measure cells, in their order, and time `timed` cells."""
    gb, text = _gigabytes(context), context.corpus.bytes
    seconds = MEASURE_S + MEASURE_S_PER_GB * gb
    seconds += text * (TEXT_S_PER_BYTE + TEXT_S_PER_BYTE_GB * gb)
    builds = {part.cell: part for part in build_work(context, cells)}
    exports = [builds.pop(cell) for cell in exported(cells) if cell in builds]
    parts = [
        part
        for cell in cells
        for part in (builds.get(cell), WorkPart(cell, "measure", seconds))
        if part
    ]
    return (*exports, *_set_up_work(context), *parts, *_timing_work(context, timed))


def build_work(context: RunContext, cells: Sequence[CellSpec]) -> tuple[WorkPart, ...]:
    """Return the parts that build the graphs of cells, exports first."""
    if not can_be_fp32(context):
        return ()
    gb = _gigabytes(context)
    return tuple(
        WorkPart(cell, "build", _build_seconds(cell.precision, gb))
        for cell in dict.fromkeys((*exported(cells), *cells))
        if not is_built(context, cell)
    )


def _set_up_work(context: RunContext) -> tuple[WorkPart, ...]:
    """Return the part that measures the peaks of the machine, unless they are known."""
    spec, threads = context.spec, threads_of(context.spec)
    missing = [
        provider
        for provider in spec.providers
        if spec.calibrate or not are_measured(context.home, provider, threads, spec.affinity)
    ]
    return (WorkPart(None, "set up", PEAKS_S * len(missing)),) if missing else ()


def _timing_work(context: RunContext, cells: int) -> tuple[WorkPart, ...]:
    rounds, sweeps = (cells * seconds for seconds in timing_seconds(context))
    parts = (WorkPart(None, "rounds", rounds), WorkPart(None, "sweeps", sweeps))
    return tuple(part for part in parts if part.seconds)


def _gigabytes(context: RunContext) -> float:
    """Return GB of fp32 weights, by the parameters or the largest graph of the folder."""
    located = context.located
    parameters = count_parameters(located.path, located.kind) or 0
    return max([4 * parameters, *(ready.graph.bytes for ready in context.graphs)]) / 1e9


def _build_seconds(precision: str, gb: float) -> float:
    if precision == "fp32":
        return EXPORT_S + EXPORT_S_PER_GB * gb
    known = VARIANTS.get(FORMS[precision].weights if precision in FORMS else precision)
    return MAKE_S + gb * (CALIBRATE_S_PER_GB if known and known.observes else MAKE_S_PER_GB)
