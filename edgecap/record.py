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
# 3  2026-11  peaks, cells.roofline, outcome.work, placement.operators, latency.sweep; layers without attention,
#             flops.parts.router and .experts, flops.latent_form; energy by domain, nll, left_out; machine.smt and gpus
# 4  2026-11  latency.conditions (steal_share and other_load were beside it), .throughput, .overhead_s; graph.unfused and
#             .cosine; source.task; decoding may be absent;
#             spec: exporter, optimize, affinity, graph_level, arena, batches, streams and others
# 5  2026-11  compression.scored_on
SCHEMA = 5


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


# --- two ways of having no number -------------------------------------------------------------


class Absent(_Value, frozen=True, tag_field="kind", tag="absent"):
    """A quantity that was not had, and why; `failed` where its measuring went wrong."""

    reason: str
    failed: bool = False


LEFT_OUT = (
    "advice"  # the stage of a Failure that nothing went wrong in: --skip-unfit left the cell out
)


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


class Attention(_Value, frozen=True, tag_field="kind", tag="attention"):
    """One attention block: `head_dim` of queries and keys, `value_dim` of values.

    A token sees the last `window` positions, or those since the last multiple of `chunk`. `gated` says
    that the query projection also makes a gate of the output, `shares_cache` that keys and values are
    those of an earlier layer (the weights of its own lie unused).
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int | None = None
    latent: Latent | None = None
    chunk: int | None = None
    gated: bool = False
    shares_cache: bool = False


class Recurrent(_Value, frozen=True, tag_field="kind", tag="recurrent"):
    """A gated delta net (Qwen3-Next): a state of `key_dim` x `value_dim` a value head, whatever the context.

    `kernel` is the width of the causal convolution over queries, keys and values.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int


class Mlp(_Value, frozen=True, tag_field="kind", tag="mlp"):
    """A dense feed-forward block: three matrices where gated, two where not."""

    width: int
    gated: bool


class Experts(_Value, frozen=True, tag_field="kind", tag="experts"):
    """A mixture of experts: `active` of `routed`, each `width` wide, beside the shared ones.

    `shared_gate` is a column of `hidden` numbers that weighs the shared ones; `vectors` are the numbers
    outside matrices (biases) of each routed expert.
    """

    routed: int
    active: int
    width: int
    gated: bool
    shared_width: int = 0
    shared_gate: bool = False
    vectors: int = 0


class Layer(_Value, frozen=True):
    """`count` equal layers.

    `other` are the multiply-adds a token of matrices beside attention and feed-forward (Gemma 3n),
    `other_weights` their numbers, `vectors` the numbers outside matrices: norms, biases, sinks.
    """

    count: int
    attention: Attention | Recurrent
    feed_forward: Mlp | Experts
    other: int = 0
    other_weights: int = 0
    vectors: int = 0


class Architecture(_Value, frozen=True, tag_field="kind", tag="architecture"):
    """A decoder as data, read from the fields of its config, never from names.

    `assumed` says that the model type is not in edgecap's table and standard field names were taken.
    `embedding_dim` is the width of the token embedding where it differs from `hidden`. Outside the layers
    stand `other` numbers of further matrices, `tables` of positions and the like that are only looked up,
    and `vectors` of norms and biases.
    """

    model_type: str
    hidden: int
    vocabulary: int
    positions: int | None
    tied: bool
    layers: tuple[Layer, ...]
    embedding_dim: int | None = None
    assumed: bool = False
    other: int = 0
    tables: int = 0
    vectors: int = 0

    @property
    def depth(self) -> int:
        """Layers in all."""
        return sum(layer.count for layer in self.layers)


class Source(_Value, frozen=True):
    """The model that was asked for; `kind` is reference, hub, folder or onnx, `task` decoder or encoder.

    An encoder reads a text at once and predicts no next token: compression and decoding are absent.
    """

    name: str
    kind: str
    revision: str | None
    parameters: int | Absent
    weights_sha256: str
    tokenizer_sha256: str
    architecture: Architecture | Absent
    task: str = "decoder"


class FlopParts(_Value, frozen=True):
    """FLOPs of one decoded token by part; 2 FLOPs a multiply-add, matrix work only.

    `mlp` is dense feed-forward only; shared experts belong to `experts`.
    """

    projections: float
    attention_core: float
    mlp: float
    lm_head: float
    router: float = 0.0
    experts: float = 0.0


class Flops(_Value, frozen=True, tag_field="kind", tag="flops"):
    """Analytic FLOPs: mean of one decoded token over `context` steps from an empty cache; one prefill.

    `own_position` says that a token attends to itself; the published scripts leave that out.
    `latent_form` says how latent attention was counted: "expanded" as transformers executes it,
    "absorbed" as serving engines decode.
    """

    per_token: float
    context: int
    prefill: float
    prefill_tokens: int
    parts: FlopParts
    own_position: bool = True
    latent_form: str | None = None


# --- the surroundings -------------------------------------------------------------------------


class Gpu(_Value, frozen=True):
    """A graphics board, and how many other processes use it."""

    name: str
    driver: str
    memory_bytes: int
    users: int


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
    smt: bool | Absent = Absent(reason="not read by the version that made this record")
    gpus: tuple[Gpu, ...] = ()


class Bandwidth(_Value, frozen=True):
    """Bytes a second with a working set of so many bytes; a copy counts what it reads and what it writes."""

    working_set_bytes: int
    read_bytes_per_s: float
    copy_bytes_per_s: float


class Peaks(_Value, frozen=True, tag_field="kind", tag="peaks"):
    """The fastest that this machine was seen to do through a provider, with so many threads.

    `gemm_flops_per_s` by precision, without those that the provider cannot multiply.
    """

    provider: str
    threads: int
    gemm_flops_per_s: dict[str, float]
    bandwidth: tuple[Bandwidth, ...]
    measured_utc: str


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
    `cosine` is the mean between the outputs of an encoder and those of fp32, over the last axis.
    `unfused` says why layers of the export, or all of it, kept plain operators.
    """

    precision: str
    exporter: str
    recipe: str
    bytes: int
    files: tuple[File, ...]
    divergence_bits: float | Absent
    unfused: tuple[str, ...] = ()
    cosine: float | None = None


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
    `stride` positions lie between the beginnings of overlapping windows. `scored_on` are the devices of a fleet that
    each scored a part of the text, where not the machine of the record scored all of it.
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
    scored_on: tuple[str, ...] = ()


class Prefill(_Value, frozen=True):
    """Seconds to read a prompt of `tokens` and have its logits (TTFT without sampling), or an encoder's outputs."""

    tokens: int
    warm_up_s: tuple[float, ...]
    samples_s: tuple[float, ...]
    rounds: tuple[int, ...]


class Decode(_Value, frozen=True, tag_field="kind", tag="decode"):
    """Seconds of one decoded token; `context` is the mean number of positions, its own included."""

    context: float
    warm_up_s: tuple[float, ...]
    samples_s: tuple[float, ...]
    rounds: tuple[int, ...]


class SweepPoint(_Value, frozen=True):
    """Seconds to read a prompt of `context` tokens, and of one token decoded behind it; one sample a round.

    An encoder decodes none. `cold`: there was time for one sample only, the first. `failed` says why there is none.
    """

    context: int
    prefill_s: tuple[float, ...]
    decode_s: tuple[float, ...]
    cold: bool = False
    failed: str | None = None


class Throughput(_Value, frozen=True, tag_field="kind", tag="throughput"):
    """Reading and decoding with `batch` rows in each of `streams` concurrent streams of one session, whose weights they share.

    `prefill_s` are wall seconds in which each stream read `batch` prompts of `prefill_tokens`; `decode_s` wall seconds
    in which each stream decoded `steps` tokens in each of its rows, behind `context` positions on average; `step_s` the
    median seconds of a step as a stream saw it. One sample a round. `steps` is 0 where nothing is decoded.
    """

    batch: int
    streams: int
    prefill_tokens: int
    context: float
    steps: int
    prefill_s: tuple[float, ...]
    decode_s: tuple[float, ...]
    step_s: tuple[float, ...]


class Conditions(_Value, frozen=True):
    """What else went on while the seconds were measured; None, or no frequencies, where the system does not tell.

    `steal_share` is the CPU time that a hypervisor took and `other_load` that which other processes used, as shares
    of all processors. `slept_s` the machine was suspended, `clock_step_s` the wall clock was set ahead,
    `frequencies_hz` are the processors' mean in each round, `throttle_events` slowed them down because of heat.
    """

    steal_share: float | None = None
    other_load: float | None = None
    slept_s: float | None = None
    clock_step_s: float | None = None
    frequencies_hz: tuple[float, ...] = ()
    throttle_events: int | None = None


class Latency(_Value, frozen=True, tag_field="kind", tag="latency"):
    """Raw samples with their round; load is the session's creation, without export or quantisation.

    `in_turns`: the cells of the record were timed round by round together, so that the rounds of two may be compared
    in pairs. `throughput` is of the batches and streams that were asked for. `overhead_s` is what a decode step costs
    without a model, measured on an empty graph; it is in the samples.
    """

    load_s: float
    threads: int
    prefill: Prefill
    decode: Decode | Absent
    limit_reached: bool
    sweep: tuple[SweepPoint, ...] = ()
    in_turns: bool = False
    conditions: Conditions = Conditions()
    throughput: tuple[Throughput | Failure, ...] = ()
    overhead_s: float | None = None


class LeftOut(_Value, frozen=True):
    """A counter, or a domain of one, that is not in the total, and why.

    `missing` says that it belongs there: the total lacks what it would have counted.
    """

    name: str
    reason: str
    scope: str = ""
    missing: bool = False


class Window(_Value, frozen=True):
    """One energy window: gross joules, its seconds and the tokens read, decoded or scored in it.

    `by_domain` adds up to `joules`; `beside` are counters that contain the total or overlap it (psys, a
    battery, a wall meter). `began_s` is in seconds since 1970.
    """

    joules: float
    seconds: float
    tokens: int
    by_domain: dict[str, float] = {}
    beside: dict[str, float] = {}
    began_s: float | None = None


class Energy(_Value, frozen=True, tag_field="kind", tag="energy"):
    """Gross joules in windows; `idle_w` watts before and after, each measured with nothing running.

    `provenance` is "counter" (the device counts energy), "sampled" (power was integrated) or "assumed"
    (given by the user, kept out of the scores). `tick_s` is the step of the slowest domain; `quantisation`
    the largest relative error that steps and resolution can give a window. `sampler_cpu_share` is the CPU
    time of sampling over the time of the windows, `gaps` samples that came late, `falls` readings that
    neither counting nor wrapping explains, `stalls` times when a domain stood still in a window.
    """

    counter: str
    domains: tuple[str, ...]
    provenance: str
    tick_s: float
    resolution_j: float
    idle_w: tuple[float, float]
    prefill: tuple[Window, ...]
    decode: tuple[Window, ...]
    nll: tuple[Window, ...] = ()
    idle_by_domain_w: dict[str, tuple[float, float]] = {}
    quantisation: float | None = None
    sampler_cpu_share: float = 0.0
    gaps: int = 0
    falls: int = 0
    stalls: int = 0
    left_out: tuple[LeftOut, ...] = ()


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


class StepWork(_Value, frozen=True):
    """What one run of the graph does, counted from its nodes: FLOPs, and bytes by what they are.

    Weights in their stored precision, each once; keys and values read and newly written; all else that
    nodes read and write.
    """

    matrix_flops: int
    other_flops: int
    weight_bytes: int
    cache_bytes: int
    activation_bytes: int


class GraphWork(_Value, frozen=True, tag_field="kind", tag="work"):
    """The work of a whole prompt and of one decoded token, None of an encoder; `unknown` operators, by number, are in neither."""

    prefill: StepWork
    decode: StepWork | None
    unknown: dict[str, int]


class ProviderShare(_Value, frozen=True):
    """Nodes and share of operator time on one execution provider."""

    nodes: int
    time_share: float


class Placement(_Value, frozen=True, tag_field="kind", tag="placement"):
    """Where the operators ran, from ONNX Runtime's own profile.

    `operators` is asked for with --operators: for prefill and decode, the share of time by operator.
    """

    by_provider: dict[str, ProviderShare]
    operators: dict[str, dict[str, float]] = {}


class Measurement(_Value, frozen=True, tag_field="kind", tag="measurement"):
    """All that was measured of one cell."""

    compression: Compression | Absent
    latency: Latency | Absent
    energy: Energy | Absent
    memory: Memory | Absent
    placement: Placement | Absent
    work: GraphWork | Absent = Absent(reason="not counted by the version that made this record")


class Bound(_Value, frozen=True):
    """A step beside the roofline: `flops` and `bytes` that it cannot do without, and the machine's peaks.

    `attainable_s` is the longer of flops / peak_flops_per_s and bytes / peak_bytes_per_s, `limit` says
    which: "compute" or "memory". `intensity` is FLOPs a byte. Utilisations and `ratio` (attainable / measured seconds) are shares of 1.
    """

    flops: float
    bytes: float
    peak_flops_per_s: float
    peak_bytes_per_s: float
    attainable_s: float
    limit: str
    intensity: float
    compute_utilisation: float
    bandwidth_utilisation: float
    ratio: Estimate


class Roofline(_Value, frozen=True, tag_field="kind", tag="roofline"):
    """What the hardware could do, beside what it did (Williams, Waterman and Patterson 2009); an encoder decodes nothing."""

    prefill: Bound
    decode: Bound | None


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
    roofline: Roofline | Absent = Absent(reason="not computed by the version that made this record")
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
    peaks: dict[str, Peaks | Absent] = {}
    cells: tuple[Cell, ...] = ()
