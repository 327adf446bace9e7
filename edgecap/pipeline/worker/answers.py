"""Answers: the messages of a child, progress among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from edgecap.analysis.assignment import GroupChoices
from edgecap.graph.onnx_file import GraphFacts
from edgecap.machine.diagnosis import CounterCheck, EnergyTotal
from edgecap.meters.exact.texts import TextBits
from edgecap.meters.sharding import DocumentShare
from edgecap.pipeline.worker.steps import Message
from edgecap.record import (
    Absent,
    Bandwidth,
    Baseline,
    Compression,
    Energy,
    Failure,
    GraphWork,
    Latency,
    LeftOut,
    Memory,
    Placement,
    WidestActivation,
)


class Inspected(Message, frozen=True, kw_only=True, tag="looked"):
    """Providers that work or were not tried, and the facts of the graphs, in the order asked.

    `refused` maps a provider to the reason why it does not work, `no_energy` to the reason why its
    energy cannot be counted.
    """

    providers: tuple[str, ...]
    refused: dict[str, str] = {}
    no_energy: dict[str, str] = {}
    graphs: tuple[GraphFacts, ...]


class CompressedBaselines(Message, frozen=True, tag="squeezed"):
    """Compressed size of the corpus, by compressor."""

    baselines: dict[str, Baseline]


class Calibrated(Message, frozen=True, tag="calibrated"):
    """FLOP/s of matrix products by precision, bytes/s by working set."""

    gemm_flops_per_s: dict[str, float]
    bandwidth: tuple[Bandwidth, ...]


class Diagnosed(Message, frozen=True, tag="examined"):
    """Providers, each with the reason why it does not work ("" if it does), and energy counters.

    `refused` are counters that cannot be read; `totals` maps a provider to what counts its energy.
    """

    providers: dict[str, str]
    counters: tuple[CounterCheck, ...]
    refused: tuple[LeftOut, ...]
    totals: dict[str, EnergyTotal]


class BuiltGraph(Message, frozen=True, tag="made"):
    """Files of a new graph, relative to its folder, and why parts of it were not fused.

    `fidelity_bits` and `fidelity` are those of an export, `formats` and `weight_bits` those of a
    variant, as `record.Graph` has them.
    """

    files: tuple[str, ...]
    unfused: tuple[str, ...] = ()
    fidelity_bits: float | Absent = Absent(reason="not an export")
    fidelity: dict[str, float | Absent] = {}
    formats: dict[str, str] = {}
    weight_bits: float | None = None


class MeasuredSensitivity(Message, frozen=True, tag="sensed"):
    """Formats of each group of matrices, with their costs."""

    groups: tuple[GroupChoices, ...]


class MeasuredCell(Message, frozen=True, tag="measured"):
    """Everything of a cell but its memory and latency.

    Fields of divergence, `weights` and `arithmetic` are the graph's.
    """

    divergence_bits: float | Absent
    compression: Compression | Absent
    placement: Placement | Absent
    work: GraphWork | Absent
    energy: Energy | Absent
    cosine: float | None = None
    decoded_divergence_bits: float | Absent = Absent(reason="not decoded")
    prefilled_divergence_bits: float | Absent = Absent(reason="not decoded")
    widest_activation: WidestActivation | None = None
    weights: str = ""
    arithmetic: str = ""


class ScoredPart(Message, frozen=True, tag="scored"):
    """Scores of one part of each document of the corpus."""

    shares: tuple[DocumentShare, ...]


class MeasuredLatency(Message, frozen=True, tag="raced"):
    """Latency of each entrant in order, or a Failure for one that could not be timed."""

    latencies: tuple[Latency | Failure, ...]


class CodecResult(Message, frozen=True, tag="packed"):
    """Sizes of a coded file in bytes, its tokens, and their -log2 p (None when decompressed).

    `stored_bytes` are bytes that were stored as they are.
    """

    plain_bytes: int
    coded_bytes: int
    tokens: int
    nll_bits: float | None
    stored_bytes: int
    seconds: float


class ExactBytesResult(Message, frozen=True, tag="marginalised"):
    """Code lengths of the beginnings of all documents that have text."""

    texts: tuple[TextBits, ...]


class Progress(Message, frozen=True, tag="progress"):
    """Progress of a step: `done` of `total` in a stage."""

    stage: str
    done: int
    total: int


class Refusal(Message, frozen=True, tag="refusal"):
    """A step that cannot be done as asked; the parent raises UsageError or DiskFull."""

    message: str
    disk_full: bool


Answer = (
    Inspected
    | BuiltGraph
    | MeasuredSensitivity
    | CompressedBaselines
    | Calibrated
    | Diagnosed
    | CodecResult
    | MeasuredCell
    | ScoredPart
    | MeasuredLatency
    | ExactBytesResult
    | Memory
    | Failure
)
OutputLine = Progress | Refusal | Answer
AnswerType = TypeVar("AnswerType")


def expected(answer: Answer, kind: type[AnswerType]) -> AnswerType | Failure:
    """Return the answer if it is of a kind or a Failure, else a Failure."""
    if isinstance(answer, kind | Failure):
        return answer
    return Failure(
        stage="worker",
        error="BadAnswer",
        message=f"the child answered with {type(answer).__name__}",
    )


StepCallback = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Ignore progress."""
