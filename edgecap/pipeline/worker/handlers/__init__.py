"""Handlers of the steps. Each module imports what its steps need, and a child imports one of them.

graphs     export, fuse, quantize
tuning     what each group of matrices loses and costs in each format; graphs of such formats
score      bits, divergence, placement, energy and work of a cell; a part of a corpus; baselines
latency    latency of several graphs in turns
memory     memory of one graph
energy     which counters count a run, and joules of prefill, decode and scoring
diagnose   providers, graphs, counters and peaks
codec      compress and decompress files, exact code lengths
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecap.pipeline.worker.answers import (
    Answer,
)
from edgecap.pipeline.worker.sessions import Report
from edgecap.pipeline.worker.steps import (
    Calibrate,
    Codec,
    CompressBaselines,
    Diagnose,
    ExactBytes,
    Export,
    Inspect,
    MakeTuned,
    MeasureCell,
    MeasureLatency,
    MeasureMemory,
    MeasureSensitivity,
    Optimize,
    Quantize,
    ScorePart,
    Step,
)

Handler = Callable[[Any, Report], Answer]


def handler_of(step: Step) -> Handler:
    """Import and return the handler of a step."""
    match step:
        case Export() | Optimize() | Quantize():
            from edgecap.pipeline.worker.handlers import graphs

            return graphs.HANDLERS[type(step)]
        case MeasureSensitivity() | MakeTuned():
            from edgecap.pipeline.worker.handlers import tuning

            return tuning.HANDLERS[type(step)]
        case MeasureCell() | ScorePart():
            from edgecap.pipeline.worker.handlers import score

            return score.HANDLERS[type(step)]
        case MeasureLatency():
            from edgecap.pipeline.worker.handlers import latency

            return latency.measure_latency
        case MeasureMemory():
            from edgecap.pipeline.worker.handlers import memory

            return memory.measure
        case Inspect() | Diagnose() | Calibrate():
            from edgecap.pipeline.worker.handlers import diagnose

            return diagnose.HANDLERS[type(step)]
        case Codec() | ExactBytes() | CompressBaselines():
            from edgecap.pipeline.worker.handlers import codec

            return codec.HANDLERS[type(step)]
