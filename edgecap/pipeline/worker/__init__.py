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
    Calibrate,
    Calibrated,
    Examine,
    Examined,
    Export,
    Look,
    Looked,
    Made,
    Marginalise,
    Marginalised,
    Measure,
    Measured,
    Optimize,
    Pack,
    Packed,
    Progress,
    Race,
    Raced,
    Score,
    ScoredPart,
    Session,
    Squeeze,
    Squeezed,
    Step,
    Vary,
    Watch,
    Weigh,
    expected,
    silent,
)

__all__ = [
    "Answer",
    "Calibrate",
    "Calibrated",
    "Examine",
    "Examined",
    "Export",
    "Look",
    "Looked",
    "Made",
    "Marginalise",
    "Marginalised",
    "Measure",
    "Measured",
    "Optimize",
    "Pack",
    "Packed",
    "Progress",
    "Race",
    "Raced",
    "Score",
    "ScoredPart",
    "Session",
    "Squeeze",
    "Squeezed",
    "Step",
    "Vary",
    "Watch",
    "Weigh",
    "end_children",
    "expected",
    "in_child",
    "silent",
]
