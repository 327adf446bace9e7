"""One step in a fresh child process: asked in JSON on its standard input, answered in JSON lines.

parent                                   child (python -m edgecap.worker)
step ──────────────── stdin ───────────▶ does it, with nothing else in the process
waits, burning nothing ◀─ stdout ─────── progress ... answer | refusal | failure
holds stdin open (the lifeline) ───────▶ leaves at once when stdin ends

steps    what can be asked and answered
child    does a step
parent   starts a child, waits, and turns its end into a value
"""

from edgecap.pipeline.worker.parent import end_children, in_child
from edgecap.pipeline.worker.steps import (
    Answer,
    BuiltGraph,
    Calibrate,
    Calibrated,
    Codec,
    CodecResult,
    CompressBaselines,
    CompressedBaselines,
    Diagnose,
    Diagnosed,
    ExactBytes,
    ExactBytesResult,
    Export,
    Inspect,
    Inspected,
    MeasureCell,
    MeasuredCell,
    MeasuredLatency,
    MeasureLatency,
    MeasureMemory,
    Optimize,
    Progress,
    Quantize,
    ScoredPart,
    ScorePart,
    Session,
    Step,
    StepCallback,
    expected,
    ignore_progress,
)

__all__ = [
    "Answer",
    "Calibrate",
    "Calibrated",
    "Diagnose",
    "Diagnosed",
    "Export",
    "Inspect",
    "Inspected",
    "BuiltGraph",
    "ExactBytes",
    "ExactBytesResult",
    "MeasureCell",
    "MeasuredCell",
    "Optimize",
    "Codec",
    "CodecResult",
    "Progress",
    "MeasureLatency",
    "MeasuredLatency",
    "ScorePart",
    "ScoredPart",
    "Session",
    "CompressBaselines",
    "CompressedBaselines",
    "Step",
    "Quantize",
    "StepCallback",
    "MeasureMemory",
    "end_children",
    "expected",
    "in_child",
    "ignore_progress",
]
