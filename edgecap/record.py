"""What was found: the record of one run, as frozen values that other programs may rely on.

SI units; the unit is the suffix of the name. A number is measured, counted, or `Absent` with a
reason; a cell that could not be measured is a `Failure`. Medians and intervals of samples are
computed by whoever reads, not stored twice. This room holds no behaviour.
"""

from __future__ import annotations

import msgspec

from edgecap.spec import Spec

# The schema's history. A record of an older number is upgraded when read; of a newer one, refused.
# 1  2026-11  the first shape
# 2  2026-11  corpus.baselines, compression.stride, flops.own_position; spec.stride and spec.documents
SCHEMA = 2


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


# --- two ways of having no number -------------------------------------------------------------


class Absent(_Value, frozen=True, tag_field="kind", tag="absent"):
    """A quantity that was not had, and why."""

    reason: str


class Failure(_Value, frozen=True, tag_field="kind", tag="failure"):
    """A step that went wrong: where, which error, and its message."""

    stage: str
    error: str
    message: str


class Estimate(_Value, frozen=True, tag_field="kind", tag="estimate"):
    """A value with its 95 % interval; open bounds where nothing could be resampled."""

    value: float
    low: float | None
    high: float | None


# --- the model --------------------------------------------------------------------------------


class Latent(_Value, frozen=True):
    """Multi-head latent attention (DeepSeek-V2): ranks of the compressed query and key-value."""

    query_rank: int | None
    kv_rank: int
    rope_dim: int


class Attention(_Value, frozen=True):
    """One attention block: `head_dim` of queries and keys, `value_dim` of values, `window` positions."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int | None = None
    latent: Latent | None = None


class Mlp(_Value, frozen=True, tag_field="kind", tag="mlp"):
    """A dense feed-forward block: three matrices where gated, two where not."""

    width: int
    gated: bool


class Experts(_Value, frozen=True, tag_field="kind", tag="experts"):
    """A mixture of experts: `active` of `routed`, each `width` wide, beside the shared ones."""

    routed: int
    active: int
    width: int
    gated: bool
    shared_width: int = 0


class Layer(_Value, frozen=True):
    """`count` equal layers."""

    count: int
    attention: Attention
    feed_forward: Mlp | Experts


class Architecture(_Value, frozen=True, tag_field="kind", tag="architecture"):
    """A decoder as data, read from the fields of its config, never from names.

    `assumed` says that the model type is not in edgecap's table and standard field names were taken.
    `embedding_dim` is the width of the token embedding where it differs from `hidden`.
    """

    model_type: str
    hidden: int
    vocabulary: int
    positions: int | None
    tied: bool
    layers: tuple[Layer, ...]
    embedding_dim: int | None = None
    assumed: bool = False


class Source(_Value, frozen=True):
    """The model that was asked for; `kind` is reference, hub, folder or onnx."""

    name: str
    kind: str
    revision: str | None
    parameters: int | Absent
    weights_sha256: str
    tokenizer_sha256: str
    architecture: Architecture | Absent


class FlopParts(_Value, frozen=True):
    """FLOPs of one decoded token by part; 2 FLOPs a multiply-add, matrix work only."""

    projections: float
    attention_core: float
    mlp: float
    lm_head: float


class Flops(_Value, frozen=True, tag_field="kind", tag="flops"):
    """Analytic FLOPs: mean of one decoded token over `context` steps from an empty cache; one prefill.

    `own_position` says that a token attends to itself; the published scripts leave that out.
    """

    per_token: float
    context: int
    prefill: float
    prefill_tokens: int
    parts: FlopParts
    own_position: bool = True


# --- the surroundings -------------------------------------------------------------------------


class Machine(_Value, frozen=True):
    """What the run ran on. `flags` are the instruction sets that matter to quantised kernels."""

    name: str
    system: str
    cpu: str
    architecture: str
    flags: tuple[str, ...]
    physical_cores: int | None
    logical_cores: int
    memory_bytes: int
    governor: str | Absent
    turbo: bool | Absent
    power_source: str | Absent
    temperature_c: float | Absent
    load_average: float | Absent
    versions: dict[str, str]
    providers: tuple[str, ...]


class Domain(_Value, frozen=True):
    """A part of the corpus."""

    documents: int
    bytes: int


class Baseline(_Value, frozen=True):
    """What a general compressor makes of the corpus in one stream."""

    bytes: int
    bits_per_byte: float
    version: str


class CorpusInfo(_Value, frozen=True):
    """The text: its name, the hash of its file, its size and bias in bits per token.

    `baselines` are general compressors on the same bytes, by name; none in records of schema 1.
    """

    name: str
    sha256: str
    documents: int
    bytes: int
    bias_bits: float
    domains: dict[str, Domain]
    baselines: dict[str, Baseline] = {}


# --- one cell ---------------------------------------------------------------------------------


class File(_Value, frozen=True):
    """A file of a graph, by a path relative to the graph's folder."""

    path: str
    bytes: int
    sha256: str


class Graph(_Value, frozen=True, tag_field="kind", tag="graph"):
    """An ONNX graph: how it was made and the files it consists of.

    `divergence_bits` is the mean Kullback-Leibler divergence from fp32, bits per token, as executed.
    """

    precision: str
    exporter: str
    recipe: str
    bytes: int
    files: tuple[File, ...]
    divergence_bits: float | Absent


class DocumentBits(_Value, frozen=True):
    """One document: `nll_bits` is the sum of -log2 p over its tokens."""

    id: str
    domain: str
    bytes: int
    tokens: int
    nll_bits: float


class DomainBits(_Value, frozen=True):
    """Pooled sums of one domain, and their quotient."""

    documents: int
    bytes: int
    tokens: int
    nll_bits: float
    bits_per_byte: float


class Compression(_Value, frozen=True, tag_field="kind", tag="compression"):
    """How many bits the text costs under the model; sums pooled over the corpus in float64.

    Under protocol paper, text bits are the mean of the documents' own quotients, as published.
    `stride` positions lie between the beginnings of overlapping windows.
    """

    protocol: str
    context: int
    documents: int
    tokens: int
    bytes: int
    text_bits_per_token: float
    nll_bits_per_token: float
    gain_bits_per_token: float
    bits_per_byte: float
    wall_s: float
    lossless_tokens: bool
    per_document: tuple[DocumentBits, ...]
    by_domain: dict[str, DomainBits]
    stride: int | None = None


class Prefill(_Value, frozen=True):
    """Seconds to read a prompt of `tokens` and have its logits (TTFT without sampling)."""

    tokens: int
    warm_up_s: tuple[float, ...]
    samples_s: tuple[float, ...]
    rounds: tuple[int, ...]


class Decode(_Value, frozen=True):
    """Seconds of one decoded token; `context` is the mean number of positions, its own included."""

    context: float
    warm_up_s: tuple[float, ...]
    samples_s: tuple[float, ...]
    rounds: tuple[int, ...]


class Latency(_Value, frozen=True, tag_field="kind", tag="latency"):
    """Raw samples with their round; load is the session's creation, without export or quantisation."""

    load_s: float
    threads: int
    prefill: Prefill
    decode: Decode
    limit_reached: bool


class Window(_Value, frozen=True):
    """One energy window: gross joules, its seconds and the tokens read or decoded in it."""

    joules: float
    seconds: float
    tokens: int


class Energy(_Value, frozen=True, tag_field="kind", tag="energy"):
    """Gross joules in windows; `idle_w` watts before and after, each measured with nothing running."""

    counter: str
    domains: tuple[str, ...]
    provenance: str
    tick_s: float
    resolution_j: float
    idle_w: tuple[float, float]
    prefill: tuple[Window, ...]
    decode: tuple[Window, ...]


class Memory(_Value, frozen=True, tag_field="kind", tag="memory"):
    """Resident set of a child that only loads, prefills and decodes.

    `baseline_bytes` is the interpreter with ONNX Runtime before the model is loaded.
    """

    baseline_bytes: int
    load_peak_bytes: int
    peak_bytes: int
    steady_bytes: int
    file_bytes: int
    kv_bytes_per_token: int
    device_peak_bytes: int | Absent


class ProviderShare(_Value, frozen=True):
    """Nodes and share of operator time on one execution provider."""

    nodes: int
    time_share: float


class Placement(_Value, frozen=True, tag_field="kind", tag="placement"):
    """Where the operators ran, from ONNX Runtime's own profile."""

    by_provider: dict[str, ProviderShare]


class Measurement(_Value, frozen=True, tag_field="kind", tag="measurement"):
    """All that was measured of one cell."""

    compression: Compression | Absent
    latency: Latency | Absent
    energy: Energy | Absent
    memory: Memory | Absent
    placement: Placement | Absent


class Score(_Value, frozen=True, tag_field="kind", tag="score"):
    """The scores of docs/method.md; `formula` names their definition, so that a record can be rescored."""

    formula: str
    bias_bits: float
    information_capacity: Estimate | Absent
    time_capacity: Estimate | Absent
    energy_capacity: Estimate | Absent
    hardware_capacity: Estimate | Absent
    gain_bits_per_s: Estimate | Absent
    gain_bits_per_j: Estimate | Absent
    roofline_ratio: Estimate | Absent


class Caution(_Value, frozen=True):
    """Something a reader of the numbers should know, and what to do about it."""

    code: str
    message: str
    advice: str


class Cell(_Value, frozen=True):
    """One precision on one provider: what was made, what was measured, what it is worth."""

    precision: str
    provider: str
    graph: Graph | Absent
    outcome: Measurement | Failure
    score: Score | Absent
    cautions: tuple[Caution, ...] = ()


class Profile(_Value, frozen=True):
    """The record of one run. `complete` is false while cells are missing (a run in progress or cut off)."""

    schema: int
    edgecap: str
    created_utc: str
    complete: bool
    spec: Spec
    machine: Machine
    source: Source
    corpus: CorpusInfo
    flops: Flops | Absent
    cells: tuple[Cell, ...] = ()
