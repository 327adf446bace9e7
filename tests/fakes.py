"""Deterministic stand-ins for the world: a clock, an engine, a counter, and a child process."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from edgecap.graph.onnx_file import GraphFacts
from edgecap.meters import compression, text_windows
from edgecap.meters.compression import ScoredDocument, measure_compression
from edgecap.meters.latency import LatencyBench, LatencyPlan, measure_in_turns
from edgecap.meters.sharding import score_part
from edgecap.pipeline.worker import (
    BuiltGraph,
    Calibrate,
    Calibrated,
    CompressBaselines,
    CompressedBaselines,
    Export,
    Inspect,
    Inspected,
    MeasureCell,
    MeasuredCell,
    MeasuredLatency,
    MeasureLatency,
    MeasureMemory,
    Progress,
    Quantize,
    ScoredPart,
    ScorePart,
)
from edgecap.protocols import CounterHealth
from edgecap.record import (
    Absent,
    Bandwidth,
    Baseline,
    Failure,
    GraphWork,
    Memory,
    Placement,
    ProviderShare,
    StepWork,
)
from edgecap.storage.jsonl_log import JsonlLog


class FakeClock:
    """Time that passes only when someone lets it pass."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds


class FakeEngine:
    """Gives every token the probability 1/vocabulary x `skill`, and takes `speed_s` a position."""

    def __init__(self, clock, vocabulary=16, skill=1.0, speed_s=0.001, drift=0.0):
        self.clock, self.vocabulary, self.skill, self.speed_s, self.drift = (
            clock,
            vocabulary,
            skill,
            speed_s,
            drift,
        )
        self.load_s, self.threads, self.has_cache, self.launches = 0.5, 2, True, ""
        self.decoded: list[int] = []
        self.prompts: list[list[int]] = []

    def nll(self, inputs, targets):
        assert len(inputs) == len(targets)
        return np.full(len(targets), math.log2(self.vocabulary) - math.log2(self.skill))

    def log_probabilities(self, inputs):
        return np.full((len(inputs), self.vocabulary), -math.log2(self.vocabulary))

    def outputs(self, inputs):
        return [np.eye(self.vocabulary)[inputs]]

    def prefill(self, inputs):
        self.clock.time += self.speed_s * len(inputs)
        self.prompts.append(inputs.tolist())
        return len(inputs)

    def stop_replaying(self, reason):
        pass

    def decode(self, cache, token):
        self.speed_s *= 1 + self.drift
        self.clock.time += self.speed_s
        self.decoded.append(token)
        return cache + 1

    def relocated(self, cache):
        return cache

    def cache_bytes(self, cache):
        return 128 * cache


class FakeCounter:
    """Joules at a constant power, seen only at every tick; a quarter of them in memory."""

    name, domains, scope, provenance, resolution_j = (
        "fake",
        ("package-0", "dram"),
        "processor",
        "counter",
        1e-6,
    )

    def __init__(self, clock, watts=10.0, tick_s=0.01, dies_at=math.inf):
        self.clock, self.watts, self.tick_s, self.dies_at = clock, watts, tick_s, dies_at
        self.closed = False

    def read(self):
        if self.clock.now() > self.dies_at:
            raise OSError("the counter's file vanished")
        joules = math.floor(self.clock.now() / self.tick_s + 1e-9) * self.tick_s * self.watts
        return 0.75 * joules, 0.25 * joules

    def health(self):
        return CounterHealth()

    def close(self):
        self.closed = True


class ByteTokenizer:
    """One token a byte; `start` as given."""

    def __init__(self, start=0):
        self.start = start

    def encode(self, text):
        return list(text.encode())

    def is_lossless(self, text, ids):
        return bytes(ids).decode("utf-8", "replace") == text


def scripted(corpus, broken=(), interrupt_at=None):
    """A stand-in for `in_child` that answers every step at once.

    `broken` precisions end in a Failure when measured; `interrupt_at` presses Ctrl-C there.
    """
    asked = []

    def run(step, watch, timeout_s):
        asked.append(step)
        watch(Progress(stage=type(step).__name__.lower(), done=0, total=1))
        if isinstance(step, Inspect):
            facts = GraphFacts("fp32", ("input_ids",), 8192, True, ("model.onnx",), 100)
            return Inspected(providers=("cpu",), graphs=tuple(facts for _ in step.graphs))
        if isinstance(step, Export | Quantize):
            precision = getattr(step, "weights", "fp32")
            Path(step.out, "model.onnx").write_bytes(precision.encode() * 1000)
            return BuiltGraph(files=("model.onnx",))
        if isinstance(step, CompressBaselines):
            return CompressedBaselines(
                baselines={"gzip -9": Baseline(bytes=1000, bits_per_byte=3.5, version="1")}
            )
        if isinstance(step, Calibrate):
            memory = Bandwidth(
                working_set_bytes=4_000_000, read_bytes_per_s=2e10, copy_bytes_per_s=1e10
            )
            return Calibrated(
                gemm_flops_per_s={"fp32": 1e12, "fp16": 5e11, "int8": 4e12}, bandwidth=(memory,)
            )
        if isinstance(step, MeasureMemory):
            return Memory(
                baseline_bytes=1000,
                load_peak_bytes=2000,
                peak_bytes=3000,
                steady_bytes=2500,
                file_bytes=4000,
                kv_bytes_per_token=128,
                device_peak_bytes=Absent(reason="the model ran on the processor"),
            )
        if isinstance(step, ScorePart):
            return ScoredPart(shares=tuple(shared(step)))
        if isinstance(step, MeasureLatency):
            return MeasuredLatency(latencies=tuple(raced(step)))
        precision = Path(step.plan.session.graph).read_bytes()[:4].decode()
        if precision == interrupt_at:
            raise KeyboardInterrupt
        if precision in broken:
            return Failure(
                stage="compression", error="NotFinite", message="NaN for a token's probability"
            )
        return measured(step, corpus, precision)

    run.asked = asked
    return run


def shared(step: ScorePart):
    """A part of a text as the fake engine of its precision scores it."""
    clock = FakeClock()
    precision = Path(step.plan.session.graph).read_bytes()[:4].decode()
    engine = FakeEngine(
        clock, vocabulary=256, skill=64 if precision == "fp32" else 60, speed_s=SPEEDS[precision]
    )
    cutter = text_windows.exact_cutter(ByteTokenizer(), step.plan.context, 256, step.plan.stride)
    return score_part(engine, cutter, step.plan.corpus.documents, step.part, step.parts, clock)


def step_work(tokens):
    """The work of a graph of a million weights."""
    return StepWork(
        matrix_flops=2_000_000 * tokens,
        other_flops=10_000 * tokens,
        weight_bytes=4_000_000,
        cache_bytes=1000 * tokens,
        activation_bytes=50_000 * tokens,
    )


SPEEDS = {"fp32": 0.004, "fp16": 0.004, "bf16": 0.004, "int8": 0.002, "int4": 0.003}


def raced(step: MeasureLatency):
    """Latencies of fake engines that take turns,
    each with a speed that depends on the precision.
    """
    clock = FakeClock()
    decoded = 32 if step.decode_context else 0
    names = [Path(e.graph).read_bytes()[:4].decode() for e in step.entrants]
    benches = [
        LatencyBench(
            FakeEngine(clock, 256, speed_s=SPEEDS[n]), clock, LatencyPlan(64, decoded, 30.0), 256
        )
        for n in names
    ]
    return measure_in_turns(benches, clock, 30.0 * len(benches), lambda done, total: None)


def encoded(step: MeasureCell, precision):
    """What a child would have found of an encoder."""
    assert step.decode_context == 0
    nothing = Absent(reason="an encoder does not predict the next token")
    return MeasuredCell(
        divergence_bits=nothing,
        compression=nothing,
        placement=Placement(by_provider={"cpu": ProviderShare(nodes=10, time_share=1.0)}),
        work=GraphWork(prefill=step_work(512), decode=None, unknown={}),
        energy=Absent(reason="switched off (--energy off)"),
        cosine=1.0 if precision == "fp32" else 0.9,
    )


def measured(step: MeasureCell, corpus, precision):
    """What a child would have found, from a fake engine whose speed depends on the precision."""
    if step.plan.session.task == "encoder":
        return encoded(step, precision)
    clock = FakeClock()
    engine = FakeEngine(
        clock, vocabulary=256, skill=64 if precision == "fp32" else 60, speed_s=SPEEDS[precision]
    )
    return MeasuredCell(
        divergence_bits=0.0 if precision == "fp32" else 0.01,
        compression=measure_compression(
            engine,
            text_windows.exact_cutter(ByteTokenizer(), step.plan.context, 256, step.plan.stride),
            corpus.documents,
            compression.WindowPlan(step.plan.protocol, step.plan.context, step.plan.stride),
            clock,
            log=JsonlLog(Path(step.journal), ScoredDocument),
        ),
        placement=Placement(by_provider={"cpu": ProviderShare(nodes=10, time_share=1.0)}),
        work=GraphWork(prefill=step_work(512), decode=step_work(1), unknown={}),
        energy=Absent(reason="no RAPL counter: /sys/class/powercap holds no intel-rapl zone"),
    )


def corpus_of(step):
    """Return the corpus that a step carries itself or in its scoring plan, else None."""
    return getattr(getattr(step, "plan", step), "corpus", None)


LEVELS = (
    Bandwidth(working_set_bytes=4_000_000, read_bytes_per_s=100e9, copy_bytes_per_s=80e9),
    Bandwidth(working_set_bytes=64_000_000, read_bytes_per_s=10e9, copy_bytes_per_s=9e9),
)
