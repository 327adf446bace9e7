"""Steps: messages that ask a child for work. Paths travel as text; `answers` has the answers."""

from __future__ import annotations

import msgspec

from edgecap.provider_options import CONTRIB
from edgecap.text.corpus import Corpus

Gain = tuple[float, float]


class Message(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"
):
    """A message between parent and child."""


class Session(Message, frozen=True, tag="session"):
    """A graph and the options of its ONNX Runtime session.

    `provider` may carry options. `vocabulary` and `head_dim` are the model's, for graphs that do
    not show them. `task` is "decoder" or "encoder". `level` is the graph optimization level,
    `arena` turns the memory arena on, `affinity` lists the processors of the child (empty: all).
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


class Inspect(Message, frozen=True, tag="look"):
    """List the providers of the installed runtime and describe graphs.

    Each provider that is asked for, except the CPU, is tried with one node; `energy` looks for
    their energy counters, too.
    """

    graphs: tuple[str, ...] = ()
    providers: tuple[str, ...] = ("cpu",)
    energy: bool = False
    meter: str | None = None


class Export(Message, frozen=True, tag="export"):
    """Export a Hugging Face folder to fp32 ONNX in `out`.

    `task` is Optimum's; `finish` is a key of `graph.finish.RECIPES`.
    """

    folder: str
    out: str
    trust_remote_code: bool
    exporter: str
    task: str
    finish: str


class Optimize(Message, frozen=True, tag="optimize"):
    """Fuse the operators of an fp32 graph and write it to `out`."""

    graph: str
    out: str


class Quantize(Message, frozen=True, tag="vary"):
    """Make a variant of an fp32 graph in `out`.

    `weights`, `arithmetic` and `operators` are those of a `graph.variants.Form`. Variants with
    static ranges are calibrated on samples of the corpus, of at most `sample_tokens`. `positions`
    are the model's.
    """

    graph: str
    weights: str
    arithmetic: str
    out: str
    corpus: Corpus | None = None
    tokenizer: str = ""
    sample_tokens: int = 256
    positions: int | None = None
    operators: str = CONTRIB


class MeasureSensitivity(Message, frozen=True, tag="sense"):
    """Measure by how much each group of an fp32 graph's matrices moves predictions when rounded.

    The roundings, the smoothed graph and the finished groups are kept in `folder`. The kernel of
    each format is timed on `provider` with `threads`.
    """

    graph: str
    folder: str
    corpus: Corpus
    tokenizer: str
    positions: int
    provider: str
    threads: int
    affinity: tuple[int, ...] = ()


class MakeTuned(Message, frozen=True, tag="assemble"):
    """Make a graph in `out` from the roundings in `folder`: a format for each matrix.

    `operators` are those of weights in blocks.
    """

    folder: str
    formats: dict[str, str]
    out: str
    operators: str = CONTRIB


class CompressBaselines(Message, frozen=True, tag="squeeze"):
    """Compress a corpus with gzip, xz and zstd."""

    corpus: Corpus


class ScoringPlan(Message, frozen=True, tag="plan"):
    """Plan to score a corpus with a graph.

    `tokenizer` is a folder, `protocol` "exact" or "paper", `context` the positions of a window and
    `stride` the distance of overlapping windows (None: they do not overlap).
    """

    session: Session
    tokenizer: str
    corpus: Corpus
    protocol: str
    context: int
    stride: int | None


class ReferenceGraph(Message, frozen=True, tag="reference"):
    """Graph that variants are compared with, its precision, and the provider that runs it."""

    graph: str
    precision: str = "fp32"
    provider: str = "cpu"


class MeasureCell(Message, frozen=True, tag="measure"):
    """Measure placement, divergence, compression, energy and work of a graph on a provider.

    `reference` is the graph to compare with, on `samples` of the text. The file `journal`
    keeps finished documents. Joules of decoding are those of loops of up to `decode_steps`; nothing
    is decoded if `decode_context` is 0.
    """

    plan: ScoringPlan
    reference: ReferenceGraph | None
    samples: int
    journal: str
    prefill_tokens: int
    decode_context: int
    decode_steps: int
    operators: bool
    allow_fallback: bool
    energy: str
    assume_watts: float | None
    meter: str | None
    meter_offset_s: float | None


class ScorePart(Message, frozen=True, tag="score"):
    """Score the windows of a corpus that fall to `part` of `parts`; see `meters.sharding`."""

    plan: ScoringPlan
    part: int
    parts: int


class MeasureLatency(Message, frozen=True, tag="race"):
    """Measure the latency of several graphs in turns, round by round.

    Rounds end when half the interval of each median is below the share `target`, or after `limit_s`
    seconds a graph. Then each graph is timed at the contexts of `sweep`, and at every batch with
    every number of streams. `layers` sizes the empty graph that measures overhead. Nothing is
    decoded if `decode_context` is 0.

    `gains` are the bounds of what the bits of each entrant are worth beside those of the baseline,
    the one without. With them rounds also end when it is sure which are better than the baseline by
    more than `margin`; `few_rounds` suffice then.
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
    gains: tuple[Gain | None, ...] = ()
    margin: float = 0.0
    few_rounds: bool = False


class MeasureMemory(Message, frozen=True, tag="weigh"):
    """Measure the memory of a process that only loads, prefills and decodes."""

    session: Session
    files: tuple[str, ...]
    prefill_tokens: int
    steps: int


class Calibrate(Message, frozen=True, tag="calibrate"):
    """Measure the peaks of a provider with `threads`; `affinity` lists processors (empty: all)."""

    provider: str
    threads: int
    memory_bytes: int
    affinity: tuple[int, ...] = ()


class Diagnose(Message, frozen=True, tag="examine"):
    """Try each provider with one node, and read each energy counter idle and under load."""

    threads: int


class Codec(Message, frozen=True, tag="pack"):
    """Compress or decompress a file under a model.

    `direction` is "compress" or "decompress"; `hashes` of model, tokenizer and runtime go into the
    header of the file.
    """

    direction: str
    source: str
    target: str
    session: Session
    tokenizer: str
    precision: str
    context: int
    hashes: tuple[bytes, bytes, bytes]


class ExactBytes(Message, frozen=True, tag="marginalise"):
    """Sum the probability of the first `most_bytes` bytes of each document over tokenizations."""

    session: Session
    tokenizer: str
    corpus: Corpus
    most_bytes: int


Step = (
    Inspect
    | Export
    | Optimize
    | Quantize
    | MeasureSensitivity
    | MakeTuned
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
    MeasureSensitivity: "sense",
    MakeTuned: "assemble",
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
