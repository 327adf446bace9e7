"""Run one step in a fresh child process, with JSON lines over its standard streams.

parent                                   child (python -m edgecap.pipeline.worker)
step ──────────────── stdin ───────────▶ runs it, with nothing else in the process
sleeps                ◀─ stdout ──────── progress ... answer | refusal | failure
holds stdin open      ─────────────────▶ leaves at once when stdin ends

steps      steps and answers: the messages
parent     starts a child, waits, and turns its end into a value
child      reads a step, runs its handler, and turns errors into values
handlers   one module for each kind of work; `sessions` has what they share
"""

from edgecap.pipeline.worker.answers import (
    Answer,
    BuiltGraph,
    Calibrated,
    CodecResult,
    CompressedBaselines,
    Diagnosed,
    ExactBytesResult,
    Inspected,
    MeasuredCell,
    MeasuredLatency,
    MeasuredSensitivity,
    Progress,
    ScoredPart,
    StepCallback,
    expected,
    ignore_progress,
)
from edgecap.pipeline.worker.parent import end_children, in_child
from edgecap.pipeline.worker.steps import (
    Calibrate,
    Codec,
    CompressBaselines,
    Diagnose,
    ExactBytes,
    Export,
    Gain,
    Inspect,
    MakeTuned,
    MeasureCell,
    MeasureLatency,
    MeasureMemory,
    MeasureSensitivity,
    Optimize,
    Quantize,
    ReferenceGraph,
    ScorePart,
    ScoringPlan,
    Session,
    Step,
)

__all__ = [
    "Answer",
    "Calibrate",
    "Calibrated",
    "Diagnose",
    "Diagnosed",
    "Export",
    "Gain",
    "Inspect",
    "Inspected",
    "MakeTuned",
    "MeasureSensitivity",
    "MeasuredSensitivity",
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
    "ReferenceGraph",
    "ScorePart",
    "ScoringPlan",
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
