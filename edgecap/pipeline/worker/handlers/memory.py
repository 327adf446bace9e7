"""Measure the memory of one graph, in a process that does nothing else."""

from __future__ import annotations

from pathlib import Path

import onnxruntime  # noqa: F401 - loaded before the baseline is read

import edgecap.runtime.replay  # noqa: F401 - likewise
from edgecap.machine.nvidia import process_gpu_memory
from edgecap.meters.memory import ON_HOST, measure_memory
from edgecap.pipeline.worker.sessions import Report, open_timed_session
from edgecap.pipeline.worker.steps import (
    MeasureMemory,
)
from edgecap.provider_options import parse_provider
from edgecap.record import Memory


def measure(step: MeasureMemory, report: Report) -> Memory:
    """Measure resident and device memory over load, prefill and decode."""
    report("memory", 0, 1)
    kind, device = parse_provider(step.session.provider).place
    return measure_memory(
        lambda: open_timed_session(step.session),
        step.session.vocabulary,
        step.prefill_tokens,
        step.steps,
        [Path(f) for f in step.files],
        (lambda: ON_HOST) if kind == "cpu" else (lambda: process_gpu_memory(device)),
    )
