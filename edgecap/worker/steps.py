"""What can be asked of a child process, and what it answers. Paths travel as text."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edgecap.corpus import Corpus
from edgecap.graph.read import Facts
from edgecap.record import Absent, Baseline, Compression, Energy, Failure, Latency, Memory, Placement


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    pass


# --- asked ------------------------------------------------------------------------------------


class Look(_Message, frozen=True, tag="look"):
    """Which providers does the installed runtime offer, and what are these graphs?

    Providers are tried by running a node where others than the processor are asked for.
    """

    graphs: tuple[str, ...] = ()
    providers: tuple[str, ...] = ("cpu",)


class Export(_Message, frozen=True, tag="export"):
    """Export a Hugging Face folder to fp32 ONNX in `out`."""

    folder: str
    out: str
    trust_remote_code: bool


class Vary(_Message, frozen=True, tag="vary"):
    """Make a variant of an fp32 graph in `out`."""

    graph: str
    precision: str
    out: str


class Squeeze(_Message, frozen=True, tag="squeeze"):
    """What do general compressors make of a corpus?"""

    corpus: Corpus


class Measure(_Message, frozen=True, tag="measure"):
    """Divergence, compression, latency, placement and energy of a graph on a provider.

    Finished documents are kept in the file `journal`.
    """

    graph: str
    reference: str | None
    provider: str
    threads: int
    tokenizer: str
    corpus: Corpus
    protocol: str
    context: int
    stride: int | None
    journal: str
    vocabulary: int
    head_dim: int | None
    prefill_tokens: int
    decode_context: int
    limit_s: float


class Weigh(_Message, frozen=True, tag="weigh"):
    """Memory of a process that only loads, prefills and decodes."""

    graph: str
    files: tuple[str, ...]
    provider: str
    threads: int
    vocabulary: int
    head_dim: int | None
    prefill_tokens: int
    steps: int


class Pack(_Message, frozen=True, tag="pack"):
    """Compress or decompress a file under a model; `hashes` of model, tokenizer and runtime are written into it."""

    direction: str
    source: str
    target: str
    graph: str
    tokenizer: str
    provider: str
    precision: str
    threads: int
    context: int
    hashes: tuple[bytes, bytes, bytes]
    vocabulary: int
    head_dim: int | None


Step = Look | Export | Vary | Squeeze | Measure | Weigh | Pack


# --- answered ---------------------------------------------------------------------------------


class Looked(_Message, frozen=True, tag="looked"):
    """Providers by the names that people type, and the graphs in the order asked."""

    providers: tuple[str, ...]
    graphs: tuple[Facts, ...]


class Squeezed(_Message, frozen=True, tag="squeezed"):
    """What each compressor made of the corpus, by name."""

    baselines: dict[str, Baseline]


class Made(_Message, frozen=True, tag="made"):
    """The files of a new graph, relative to its folder."""

    files: tuple[str, ...]


class Measured(_Message, frozen=True, tag="measured"):
    """What one child found of one cell, memory apart."""

    divergence_bits: float | Absent
    compression: Compression | Absent
    latency: Latency | Absent
    placement: Placement | Absent
    energy: Energy | Absent


class Packed(_Message, frozen=True, tag="packed"):
    """Bytes of the file and of what it was compressed to, tokens, their -log2 p (None when decompressed), bytes stored as they are."""

    plain_bytes: int
    coded_bytes: int
    tokens: int
    nll_bits: float | None
    stored_bytes: int
    seconds: float


class Progress(_Message, frozen=True, tag="progress"):
    """How far a step is: `done` of `total` in a stage."""

    stage: str
    done: int
    total: int


class Refusal(_Message, frozen=True, tag="refusal"):
    """The step cannot be done as asked: the parent raises it as a UsageError."""

    message: str
    disk_full: bool


Answer = Looked | Made | Squeezed | Packed | Measured | Memory | Failure
Line = Progress | Refusal | Answer
Watch = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Watches nothing."""
