"""What can be asked of a child process, and what it answers. Paths travel as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from edgecap.graph.read import GraphFacts
from edgecap.machine.diagnosis import CounterSeen, Total
from edgecap.meters.exact.texts import TextBits
from edgecap.meters.sharding import DocumentShare
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
)
from edgecap.text.corpus import Corpus


class _Message(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"
):
    pass


class Session(_Message, frozen=True, tag="session"):
    """A graph on a provider, named with its options, and how it is opened.

    `vocabulary` and `head_dim` are the model's, where the graph does not show them; an encoder's `task` leaves out
    what predicts or decodes. `level` is the runtime's graph
    optimisation, `arena` its own reserve of memory, `affinity` the processors that the child may run on (all where
    empty).
    """

    graph: str
    provider: str
    threads: int
    vocabulary: int
    head_dim: int | None
    task: str = "decoder"
    level: str = "all"
    arena: bool = True
    affinity: tuple[int, ...] = ()


# --- asked ------------------------------------------------------------------------------------


class Inspect(_Message, frozen=True, tag="look"):
    """Which providers does the installed runtime offer, and what are these graphs?

    Providers that are asked for are tried by running a node, the processor excepted; with `energy`,
    counters are looked for too.
    """

    graphs: tuple[str, ...] = ()
    providers: tuple[str, ...] = ("cpu",)
    energy: bool = False
    meter: str | None = None


class Export(_Message, frozen=True, tag="export"):
    """Export a Hugging Face folder for a task of Optimum's to fp32 ONNX in `out`, finished as one of `optimize`'s recipes."""

    folder: str
    out: str
    trust_remote_code: bool
    exporter: str
    task: str
    finish: str


class Optimize(_Message, frozen=True, tag="optimize"):
    """Fuse an fp32 graph and write it to `out`."""

    graph: str
    out: str


class Quantize(_Message, frozen=True, tag="vary"):
    """Make a variant of an fp32 graph in `out`, on samples of a corpus, of at most `positions`, where it needs them."""

    graph: str
    precision: str
    out: str
    corpus: Corpus | None = None
    tokenizer: str = ""
    positions: int = 256


class CompressBaselines(_Message, frozen=True, tag="squeeze"):
    """What do general compressors make of a corpus?"""

    corpus: Corpus


class MeasureCell(_Message, frozen=True, tag="measure"):
    """Divergence, compression, placement, energy and work of a graph on a provider.

    Finished documents are kept in the file `journal`. Nothing is decoded where `decode_context` is 0.
    """

    session: Session
    reference: str | None
    tokenizer: str
    corpus: Corpus
    protocol: str
    context: int
    stride: int | None
    journal: str
    prefill_tokens: int
    decode_context: int
    operators: bool
    allow_fallback: bool
    energy: str
    assume_watts: float | None
    meter: str | None
    meter_offset_s: float | None


class ScorePart(_Message, frozen=True, tag="score"):
    """Bits of the windows of a corpus that fall to `part` of `parts`; see `meters.sharing`."""

    session: Session
    tokenizer: str
    corpus: Corpus
    protocol: str
    context: int
    stride: int | None
    part: int
    parts: int


class MeasureLatency(_Message, frozen=True, tag="race"):
    """Latency of several graphs, in turns round by round; `target` is half the interval of a median, as its share.

    Then, of each, contexts of `sweep`, and every batch with every number of streams. `layers` have a cache. Nothing is
    decoded where `decode_context` is 0.
    """

    entrants: tuple[Session, ...]
    prefill_tokens: int
    decode_context: int
    limit_s: float
    target: float
    sweep: tuple[int, ...]
    batches: tuple[int, ...]
    streams: tuple[int, ...]
    layers: int


class MeasureMemory(_Message, frozen=True, tag="weigh"):
    """Memory of a process that only loads, prefills and decodes."""

    session: Session
    files: tuple[str, ...]
    prefill_tokens: int
    steps: int


class Calibrate(_Message, frozen=True, tag="calibrate"):
    """What does a provider reach with so many threads, on the processors of `affinity` (all where empty)?"""

    provider: str
    threads: int
    memory_bytes: int
    affinity: tuple[int, ...] = ()


class Diagnose(_Message, frozen=True, tag="examine"):
    """Which providers run a node, and what do energy counters show, idle and under load of so many threads?"""

    threads: int


class Codec(_Message, frozen=True, tag="pack"):
    """Compress or decompress a file under a model; `hashes` of model, tokenizer and runtime are written into it."""

    direction: str
    source: str
    target: str
    session: Session
    tokenizer: str
    precision: str
    context: int
    hashes: tuple[bytes, bytes, bytes]


class ExactBytes(_Message, frozen=True, tag="marginalise"):
    """What do the first bytes of each document, at most `most_bytes`, cost over all their tokenizations?"""

    session: Session
    tokenizer: str
    corpus: Corpus
    most_bytes: int


Step = (
    Inspect
    | Export
    | Optimize
    | Quantize
    | CompressBaselines
    | Calibrate
    | Diagnose
    | MeasureCell
    | ScorePart
    | MeasureLatency
    | MeasureMemory
    | Codec
    | ExactBytes
)

# The stage of a failure, as records keep it: strings that other programs compare.
_STAGES: dict[type, str] = {
    Inspect: "look",
    Export: "export",
    Optimize: "optimize",
    Quantize: "vary",
    CompressBaselines: "squeeze",
    Calibrate: "calibrate",
    Diagnose: "examine",
    MeasureCell: "measure",
    ScorePart: "score",
    MeasureLatency: "race",
    MeasureMemory: "weigh",
    Codec: "pack",
    ExactBytes: "marginalise",
}


def stage_of(step: Step) -> str:
    """Return the name of a step as `Failure.stage` carries it."""
    return _STAGES[type(step)]


# --- answered ---------------------------------------------------------------------------------


class Inspected(_Message, frozen=True, kw_only=True, tag="looked"):
    """Providers that it was built with by the names that people type, without those that were asked for and do not
    work, why those do not, why there is no energy of a provider, and the graphs as asked.
    """

    providers: tuple[str, ...]
    refused: dict[str, str] = {}
    no_energy: dict[str, str] = {}
    graphs: tuple[GraphFacts, ...]


class CompressedBaselines(_Message, frozen=True, tag="squeezed"):
    """What each compressor made of the corpus, by name."""

    baselines: dict[str, Baseline]


class Calibrated(_Message, frozen=True, tag="calibrated"):
    """FLOP/s of matrix products by precision, bytes/s by working set."""

    gemm_flops_per_s: dict[str, float]
    bandwidth: tuple[Bandwidth, ...]


class Diagnosed(_Message, frozen=True, tag="examined"):
    """Providers with the reason why they do not work (empty where they do), counters, and those that cannot be read."""

    providers: dict[str, str]
    counters: tuple[CounterSeen, ...]
    refused: tuple[LeftOut, ...]
    totals: dict[str, Total]


class BuiltGraph(_Message, frozen=True, tag="made"):
    """The files of a new graph, relative to its folder, and why parts of it were not fused."""

    files: tuple[str, ...]
    unfused: tuple[str, ...] = ()


class MeasuredCell(_Message, frozen=True, tag="measured"):
    """What one child found of one cell, memory and latency apart."""

    divergence_bits: float | Absent
    compression: Compression | Absent
    placement: Placement | Absent
    work: GraphWork | Absent
    energy: Energy | Absent
    cosine: float | None = None


class ScoredPart(_Message, frozen=True, tag="scored"):
    """A share of each document of the corpus."""

    shares: tuple[DocumentShare, ...]


class MeasuredLatency(_Message, frozen=True, tag="raced"):
    """The latency of each entrant, or why it could not be timed."""

    found: tuple[Latency | Failure, ...]


class CodecResult(_Message, frozen=True, tag="packed"):
    """Bytes of the file and of what it was compressed to, tokens, their -log2 p (None when decompressed), bytes stored as they are."""

    plain_bytes: int
    coded_bytes: int
    tokens: int
    nll_bits: float | None
    stored_bytes: int
    seconds: float


class ExactBytesResult(_Message, frozen=True, tag="marginalised"):
    """The code lengths of the beginnings of all documents that have text."""

    texts: tuple[TextBits, ...]


class Progress(_Message, frozen=True, tag="progress"):
    """How far a step is: `done` of `total` in a stage."""

    stage: str
    done: int
    total: int


class Refusal(_Message, frozen=True, tag="refusal"):
    """The step cannot be done as asked: the parent raises it as a UsageError."""

    message: str
    disk_full: bool


Answer = (
    Inspected
    | BuiltGraph
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
    """The answer, or a Failure where it is another kind of one."""
    if isinstance(answer, kind | Failure):
        return answer
    return Failure(
        stage="worker",
        error="BadAnswer",
        message=f"the child answered with {type(answer).__name__}",
    )


StepCallback = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Watches nothing."""
