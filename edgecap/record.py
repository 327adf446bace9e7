"""The record of one run, as frozen values that other programs may rely on.

SI units; the unit is the suffix of the name. A number is measured, counted, or `Absent` with a
reason; a cell that could not be measured is a `Failure`. Samples are stored, medians and intervals
are computed when a record is read. This module holds data only.
"""

from __future__ import annotations

import msgspec

from edgecap.spec import Spec

# History of the schema. Older records are upgraded when read, newer ones refused.
# 1  2026-11  the first shape
# 2  2026-11  corpus.baselines, compression.stride, flops.own_position; spec.stride, spec.documents
# 3  2026-11  peaks, cells.roofline, outcome.work, placement.operators, latency.sweep; layers
#             without attention, flops.parts.router and .experts, flops.latent_form; energy by
#             domain, nll, left_out; machine.smt and gpus
# 4  2026-11  latency.conditions (steal_share and other_load were beside it), .throughput,
#             .overhead_s; graph.unfused and .cosine; source.task; decoding may be absent;
#             spec: exporter, optimize, affinity, graph_level, arena, batches, streams and others
# 5  2026-11  compression.scored_on
# 6  2026-11  graph.fidelity_bits and .fidelity; source.other_graphs; machine.board, .cpu_quota and
#             .memory_limit_bytes; latency.conditions.quota_waits and .quota_wait_s
# 7  2026-11  graph.decoded_divergence_bits, .prefilled_divergence_bits, .widest_activation,
#             .formats and .weight_bits; what was int8 is int8d, and what was int4 is int4b32
# 8  2026-11  corpus.law and .pieces, score.effective_flops, .effective_flops_per_s and _per_j;
#             graph.weights, .arithmetic and .divergence_from; latency.launches and
#             .conditions.board; machine.gpus: uuid, device, used_bytes, utilisation,
#             power_limit_w; spec.quick and .law
SCHEMA = 8


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


# --- values in place of a number --------------------------------------------------------------


class Absent(_Value, frozen=True, tag_field="kind", tag="absent"):
    """A quantity without a value, and the reason; `failed` if measuring it went wrong."""

    reason: str
    failed: bool = False


LEFT_OUT = "advice"  # the stage of a Failure that is none: --skip-unfit left the cell out


class Failure(_Value, frozen=True, tag_field="kind", tag="failure"):
    """A step that went wrong: its stage, the type of the error, and the message."""

    stage: str
    error: str
    message: str


class Estimate(_Value, frozen=True, tag_field="kind", tag="estimate"):
    """A value with its 95 % interval; bounds are None if nothing could be resampled."""

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

    A token sees the last `window` positions, or those since the last multiple of `chunk`. `gated`:
    the query projection also computes a gate of the output. `shares_cache`: keys and values are
    those of an earlier layer, and the layer's own weights are unused.
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
    """A gated delta net (Qwen3-Next): a state of `key_dim` x `value_dim` for each value head.

    The state does not grow with the context. `kernel` is the width of the causal convolution over
    queries, keys and values.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int


class Mlp(_Value, frozen=True, tag_field="kind", tag="mlp"):
    """A dense feed-forward block: three matrices if gated, else two."""

    width: int
    gated: bool


class Experts(_Value, frozen=True, tag_field="kind", tag="experts"):
    """A mixture of experts: `active` of `routed`, each `width` wide, beside the shared ones.

    `shared_gate` is a column of `hidden` numbers that weighs the shared ones; `vectors` counts the
    numbers outside matrices (biases) of each routed expert.
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

    `other` counts multiply-adds a token of matrices beside attention and feed-forward (Gemma 3n),
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

    `assumed`: the model type is not in edgecap's table, and standard field names were used.
    `embedding_dim` is the width of the token embedding if it differs from `hidden`. Outside the
    layers, `other` counts numbers of matrices, `tables` numbers that are only looked up
    (positions), `vectors` numbers of norms and biases.
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
        """Number of layers."""
        return sum(layer.count for layer in self.layers)


class Source(_Value, frozen=True):
    """The model: `kind` is reference, hub, folder or onnx; `task` is decoder or encoder.

    An encoder reads a text at once and predicts no next token: compression and decoding are absent.
    `other_graphs` are the graphs of the folder that were not measured, by relative path.
    """

    name: str
    kind: str
    revision: str | None
    parameters: int | Absent
    weights_sha256: str
    tokenizer_sha256: str
    architecture: Architecture | Absent
    task: str = "decoder"
    other_graphs: tuple[str, ...] = ()


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
    """Analytic FLOPs of a decoded token (mean over `context` steps from empty) and of a prefill.

    `own_position`: a token attends to itself; the published scripts leave that out. `latent_form`
    is how latent attention was counted: "expanded" as transformers executes it, "absorbed" as
    serving engines decode.
    """

    per_token: float
    context: int
    prefill: float
    prefill_tokens: int
    parts: FlopParts
    own_position: bool = True
    latent_form: str | None = None


# --- machine and text -------------------------------------------------------------------------


class Gpu(_Value, frozen=True):
    """A graphics board, or an instance of one; `users` counts other processes that compute on it.

    `device` is its number in CUDA if the run may use it; None if not, or if that is unknown.
    `used_bytes` of memory were taken before the run. `utilisation` is the share of time in which
    any process computed on it then, `power_limit_w` what the board may draw; an instance has none.
    """

    name: str
    driver: str
    memory_bytes: int
    users: int
    uuid: str = ""
    device: int | None = None
    used_bytes: int | None = None
    utilisation: float | None = None
    power_limit_w: float | None = None


class Machine(_Value, frozen=True):
    """The machine of a run. `flags` are the instruction sets that matter to quantized kernels.

    `board` is the model of a single-board computer. `cpu_quota` is the CPU time that the container
    may use, in processors, and `memory_limit_bytes` its memory; None without such a limit.
    """

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
    board: str | None = None
    cpu_quota: float | None = None
    memory_limit_bytes: int | None = None

    @property
    def processor(self) -> str:
        """Processor and board, such as `Cortex-A76, Raspberry Pi 5 Model B Rev 1.0`."""
        return self.cpu if self.board in (None, self.cpu) else f"{self.cpu}, {self.board}"

    @property
    def usable_gpus(self) -> tuple[Gpu, ...]:
        """Boards that CUDA may use in the run; all of them if that is unknown."""
        return tuple(g for g in self.gpus if g.device is not None) or self.gpus

    def gpu(self, device: int) -> Gpu | None:
        """Return the board that CUDA numbers `device`; None if that is unknown."""
        return next((gpu for gpu in self.gpus if gpu.device == device), None)


class Bandwidth(_Value, frozen=True):
    """Memory bandwidth for one size of working set; a copy counts bytes read and written."""

    working_set_bytes: int
    read_bytes_per_s: float
    copy_bytes_per_s: float


class Peaks(_Value, frozen=True, tag_field="kind", tag="peaks"):
    """Highest rates measured on this machine through a provider.

    `gemm_flops_per_s` is by precision, without those that the provider cannot multiply.
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
    """Size of the corpus under a general compressor, in one stream."""

    bytes: int
    bits_per_byte: float
    version: str


class Law(_Value, frozen=True, tag_field="kind", tag="law"):
    """The bits that a series of models gains on a text: G + b = c log2 N.

    `slope` is c in bits a doubling of N, the FLOPs of a token; `smallest_flops` and `largest_flops`
    are those of the series. `models` names it. `bias_bits` is b; Absent if the series was scored on
    more text, which tells how fast bits grow and not from where.
    """

    models: str
    slope: Estimate
    bias_bits: float | Absent
    smallest_flops: float
    largest_flops: float


class CorpusInfo(_Value, frozen=True):
    """The text: its name, the hash of its file, its size, its bias in bits per token.

    `baselines` are general compressors on the same bytes, by name; empty in records of schema 1.
    `law` is that of the series on which the bias was fitted; Absent without a card. `pieces` of the
    documents are parts of longer ones.
    """

    name: str
    sha256: str
    documents: int
    bytes: int
    bias_bits: float
    domains: dict[str, Domain]
    baselines: dict[str, Baseline] = {}
    law: Law | Absent = Absent(reason="not kept by the version that made this record")
    pieces: int = 0


# --- one cell ---------------------------------------------------------------------------------


class File(_Value, frozen=True):
    """A file of a graph, by a path relative to the graph's folder."""

    path: str
    bytes: int
    sha256: str


_UNKNOWN = Absent(reason="not measured by the version that made this record")
_LEAST_SHIFT, _SHIFT_SHARE = 0.01, 0.25  # bits, and share of the larger divergence


class WidestActivation(_Value, frozen=True):
    """The input of a matrix product whose largest value exceeds the typical one most, on a sample.

    Measured in the fp32 graph. `node` is the name of the product in the graph; `largest` is the
    largest absolute value, in the row of `position`; `typical` is the median over rows of a row's
    largest absolute value.
    """

    node: str
    largest: float
    typical: float
    position: int


class Graph(_Value, frozen=True, tag_field="kind", tag="graph"):
    """An ONNX graph: how it was made, and its files.

    `divergence_bits` is the mean Kullback-Leibler divergence from fp32 in bits per token, as
    executed, of texts that are read in one run. `decoded_divergence_bits` is that of tokens decoded
    one by one behind a cache that the variant filled in one run, `prefilled_divergence_bits` that
    of the same tokens read in one run. If these two differ, `widest_activation` tells the cause.
    `cosine` is the mean cosine of an encoder's outputs with those of fp32, over the last axis.
    `unfused` gives reasons why layers kept plain operators.

    `fidelity_bits` is the mean divergence of the fp32 graph from the model as transformers computes
    it in fp32, in bits per token: the largest of the parts in `fidelity`, which are "short text",
    "long text" and "decoding". A part "beyond N positions" is absent, for lack of memory or time. A
    variant has the numbers of the fp32 graph that it is made from.

    `weights` and `arithmetic` name the types of the stored weights and of the products, "" in older
    records. `divergence_from` names the variant that the divergences are from.

    `formats` maps each weight matrix to its format, such as "4 bits, blocks of 32, zero points".
    `weight_bits` are the stored bits a weight over all matrices and tables.
    """

    precision: str
    exporter: str
    recipe: str
    bytes: int
    files: tuple[File, ...]
    divergence_bits: float | Absent
    unfused: tuple[str, ...] = ()
    cosine: float | None = None
    fidelity_bits: float | Absent = Absent(reason="the version that made this record did not")
    fidelity: dict[str, float | Absent] = {}
    decoded_divergence_bits: float | Absent = _UNKNOWN
    prefilled_divergence_bits: float | Absent = _UNKNOWN
    widest_activation: WidestActivation | None = None
    formats: dict[str, str] = {}
    weight_bits: float | None = None
    weights: str = ""
    arithmetic: str = ""
    divergence_from: str = "fp32"

    @property
    def decoding_shift_bits(self) -> float:
        """Decoded less prefilled divergence, 0 unless they differ clearly."""
        return divergence_shift(self.prefilled_divergence_bits, self.decoded_divergence_bits)


def divergence_shift(prefilled: float | Absent, decoded: float | Absent) -> float:
    """Return decoded less prefilled bits, 0 if the difference is within noise or one is absent.

    It counts from 0.01 bits on, and from a quarter of the larger on.
    """
    if isinstance(prefilled, Absent) or isinstance(decoded, Absent):
        return 0.0
    shift = decoded - prefilled
    return shift if abs(shift) > max(_LEAST_SHIFT, _SHIFT_SHARE * max(prefilled, decoded)) else 0.0


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
    """Bits of the text under the model; sums are pooled over the corpus in float64.

    Under protocol "paper", text bits are the mean of the documents' own quotients, as published.
    `stride` is the distance of overlapping windows in positions. `scored_on` lists the devices of a
    fleet that scored parts of the text; it is empty if this machine scored all of it.
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
    """Seconds to read a prompt of `tokens`: TTFT without sampling, or an encoder's forward pass."""

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
    """Seconds to read a prompt of `context` tokens, and to decode one token behind it.

    One sample a round; an encoder decodes none. `cold`: there was time for one sample only, the
    first. `failed` is the reason why there is none.
    """

    context: int
    prefill_s: tuple[float, ...]
    decode_s: tuple[float, ...]
    cold: bool = False
    failed: str | None = None


class Throughput(_Value, frozen=True, tag_field="kind", tag="throughput"):
    """Prefill and decode with `batch` rows in each of `streams` concurrent streams of one session.

    `prefill_s` are wall seconds in which each stream read `batch` prompts of `prefill_tokens`.
    `decode_s` are wall seconds in which each stream decoded `steps` tokens in each of its rows,
    behind `context` positions on average; `step_s` is the median step of a stream. One sample a
    round. `steps` is 0 if nothing is decoded.
    """

    batch: int
    streams: int
    prefill_tokens: int
    context: float
    steps: int
    prefill_s: tuple[float, ...]
    decode_s: tuple[float, ...]
    step_s: tuple[float, ...]


class BoardConditions(_Value, frozen=True):
    """Tell what an NVIDIA board did in a benchmark, sampled once a round; None if it does not tell.

    `clocks_hz` are those of its multiprocessors while it worked, `most_hz` is the highest they can
    have. `slowed` counts rounds by what held the clock down: "heat", "power limit". `others` is the
    largest number of other processes on it, `other_load` the mean share of time of their kernels.
    """

    rounds: int = 0
    clocks_hz: tuple[float, ...] = ()
    most_hz: float | None = None
    slowed: dict[str, int] = {}
    others: int | None = None
    other_load: float | None = None


class Conditions(_Value, frozen=True):
    """System noise during a benchmark; None, or no frequencies, if the system does not report it.

    `steal_share` is CPU time that a hypervisor took, `other_load` CPU time of other processes, both
    as shares of all processors. `slept_s` is the time that the machine was suspended,
    `clock_step_s` the step of the wall clock. `frequencies_hz` is the mean frequency of the
    processors in each round, `throttle_events` counts slow-downs because of heat. `quota_waits`
    counts the periods in which the container's CPU quota stopped its processes, for `quota_wait_s`
    seconds in all. `board` is the NVIDIA board that ran the model.
    """

    steal_share: float | None = None
    other_load: float | None = None
    slept_s: float | None = None
    clock_step_s: float | None = None
    frequencies_hz: tuple[float, ...] = ()
    throttle_events: int | None = None
    quota_waits: int | None = None
    quota_wait_s: float | None = None
    board: BoardConditions | None = None


class Latency(_Value, frozen=True, tag_field="kind", tag="latency"):
    """Raw samples with their round. Load is the creation of the session, without export.

    `in_turns`: the cells of the record were timed round by round together, so that rounds of two
    cells can be compared in pairs. `throughput` holds the batches and streams that were asked for.
    `overhead_s` is the cost of a decode step without a model, measured on an empty graph; the
    samples contain it. `launches` is for providers that record launches: "replayed", or "one by
    one" with the reason.
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
    launches: str = ""


class LeftOut(_Value, frozen=True):
    """A counter, or a domain of one, that is not in the total, and the reason.

    `missing`: it belongs there, so the total lacks its joules.
    """

    name: str
    reason: str
    scope: str = ""
    missing: bool = False


class Window(_Value, frozen=True):
    """One energy window: gross joules, seconds, and the tokens read, decoded or scored in it.

    `by_domain` adds up to `joules`; `beside` holds counters that contain the total or overlap it
    (psys, a battery, a wall meter). `began_s` is in seconds since 1970.
    """

    joules: float
    seconds: float
    tokens: int
    by_domain: dict[str, float] = {}
    beside: dict[str, float] = {}
    began_s: float | None = None


class Energy(_Value, frozen=True, tag_field="kind", tag="energy"):
    """Gross joules in windows; `idle_w` watts before and after, each measured with nothing running.

    `provenance` is "counter" (the device counts energy), "sampled" (power was integrated) or
    "assumed" (given by the user, kept out of the scores). `tick_s` is the step of the slowest
    domain, `quantisation` the largest relative error of a window from steps and resolution.
    `sampler_cpu_share` is the CPU time of sampling over the time of the windows. `gaps` counts late
    samples, `falls` readings that neither counting nor wrapping explains, `stalls` windows in which
    a domain stood still.
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
    """Work of one run of the graph, counted from its nodes: FLOPs, and bytes by kind.

    Weights count once, in their stored precision. Cache bytes are keys and values read and newly
    written; activation bytes are all else that nodes read and write.
    """

    matrix_flops: int
    other_flops: int
    weight_bytes: int
    cache_bytes: int
    activation_bytes: int


class GraphWork(_Value, frozen=True, tag_field="kind", tag="work"):
    """Work of a whole prompt, and of one decoded token (None for an encoder).

    `unknown` maps operators that could not be counted to their number.
    """

    prefill: StepWork
    decode: StepWork | None
    unknown: dict[str, int]


class ProviderShare(_Value, frozen=True):
    """Nodes and share of operator time on one execution provider."""

    nodes: int
    time_share: float


class Placement(_Value, frozen=True, tag_field="kind", tag="placement"):
    """Execution providers of the operators, from ONNX Runtime's own profile.

    With --operators, `operators` has the share of time by operator, for prefill and decode.
    """

    by_provider: dict[str, ProviderShare]
    operators: dict[str, dict[str, float]] = {}


class Measurement(_Value, frozen=True, tag_field="kind", tag="measurement"):
    """All measurements of one cell."""

    compression: Compression | Absent
    latency: Latency | Absent
    energy: Energy | Absent
    memory: Memory | Absent
    placement: Placement | Absent
    work: GraphWork | Absent = Absent(reason="not counted by the version that made this record")


class Bound(_Value, frozen=True):
    """A step beside the roofline: the `flops` and `bytes` that it needs, and the machine's peaks.

    `attainable_s` is the longer of flops / peak_flops_per_s and bytes / peak_bytes_per_s; `limit`
    names it: "compute" or "memory". `intensity` is in FLOPs a byte. Utilisations and `ratio`
    (attainable over measured seconds) are shares of 1.
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
    """Roofline of prefill and decode (Williams, Waterman and Patterson 2009)."""

    prefill: Bound
    decode: Bound | None


OLD_FORMULA = Absent(reason="not part of the formula of this record")


class Score(_Value, frozen=True, tag_field="kind", tag="score"):
    """Scores of docs/method.md; `formula` names their definition, for rescoring records."""

    formula: str
    bias_bits: float
    information_capacity: Estimate | Absent
    time_capacity: Estimate | Absent
    energy_capacity: Estimate | Absent
    hardware_capacity: Estimate | Absent
    gain_bits_per_s: Estimate | Absent
    gain_bits_per_j: Estimate | Absent
    roofline_ratio: Estimate | Absent
    effective_flops: Estimate | Absent = OLD_FORMULA
    effective_flops_per_s: Estimate | Absent = OLD_FORMULA
    effective_flops_per_j: Estimate | Absent = OLD_FORMULA


class Caution(_Value, frozen=True):
    """A warning about the numbers of a cell, with advice."""

    code: str
    message: str
    advice: str


class Cell(_Value, frozen=True):
    """One precision on one provider: its graph, its measurement or failure, its score."""

    precision: str
    provider: str
    graph: Graph | Absent
    outcome: Measurement | Failure
    score: Score | Absent
    roofline: Roofline | Absent = Absent(reason="not computed by the version that made this record")
    cautions: tuple[Caution, ...] = ()


class Profile(_Value, frozen=True):
    """The record of one run. `complete` is false while the run goes on, or if it was cut off."""

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
