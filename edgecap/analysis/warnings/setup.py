"""Warnings about the setup: machine, graph, KV cache and execution provider. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edgecap.analysis.advisor import advise
from edgecap.provider_options import base_name
from edgecap.record import (
    Absent,
    Architecture,
    Attention,
    Caution,
    Graph,
    Latency,
    Machine,
    Measurement,
    Memory,
    Placement,
    Source,
)
from edgecap.units import counted

CACHE_TOLERANCE = 0.01  # relative difference from the size that the config implies
FALLBACK = 0.01  # share of the operators' time on another provider
# By family, scales not counted.
BYTES_PER_WEIGHT = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5}

_NO_CACHE = Caution(
    code="no-kv-cache",
    message="the graph has no KV cache: each decoded token reads the whole text again",
    advice="export with past keys and values (text-generation-with-past) before deploying",
)


def check_load(machine: Machine, measured: Measurement) -> Iterator[Caution]:
    """Warn about the load average before the run, unless load during the benchmark is known.

    The load average covers the last minute, in which edgecap itself may have exported the model or
    measured another cell. Load during the benchmark excludes edgecap and has its own caution.
    """
    if isinstance(measured.latency, Latency) and measured.latency.conditions.other_load is not None:
        return
    cores = machine.physical_cores or machine.logical_cores
    if isinstance(machine.load_average, float) and machine.load_average > 0.25 * cores:
        yield Caution(
            code="other-load",
            message=f"load average {machine.load_average:.2f} on {cores} cores before the run",
            advice="close other programs, or wait until they are done",
        )


def check_machine(machine: Machine) -> Iterator[Caution]:
    """Warn about battery power and a power-saving frequency governor."""
    if machine.power_source == "battery":
        yield Caution(
            code="battery",
            message="running on battery",
            advice="plug in, or compare only with battery runs",
        )
    if machine.governor == "powersave":
        yield Caution(
            code="governor",
            message="the frequency governor is powersave",
            advice="set it to performance for comparable times",
        )


def check_quota(machine: Machine, measured: Measurement) -> Iterator[Caution]:
    """Warn about more threads than the CPU quota of the container has processors."""
    quota, latency = machine.cpu_quota, measured.latency
    if quota is not None and isinstance(latency, Latency) and latency.threads > quota:
        yield Caution(
            code="threads-above-quota",
            message=f"{counted(latency.threads, 'thread')} with a CPU quota of {quota:.3g} "
            "processors: the quota stops them in each of its periods",
            advice="give --threads at most the quota, or raise the quota of the container",
        )


def _check_fidelity(graph: Graph) -> Iterator[Caution]:
    """Warn about an export that could not be compared with its model, or not at every length."""
    parts = {"": graph.fidelity_bits, **graph.fidelity}
    gaps = {part: x.reason for part, x in parts.items() if isinstance(x, Absent) and x.failed}
    if gaps:
        part, reason = next(iter(gaps.items()))
        where = f" {part}" if part.startswith("beyond") else ""
        yield Caution(
            code="not-compared",
            message=f"the export was not compared with the model in transformers{where}: {reason}",
            advice="compare it on a larger machine before you rely on long texts"
            if where
            else "check its answers against the model before you rely on it",
        )


def check_graph(machine: Machine, source: Source, graph: Graph, provider: str) -> Iterator[Caution]:
    """Warn about a variant that does not pay here, or is larger than its precision."""
    advice = advise(machine, graph.precision, provider, None)
    if advice:
        yield advice
    yield from _check_fidelity(graph)
    if graph.unfused:
        count = len(graph.unfused)
        more = f", and {count - 1} more" if count > 1 else ""
        yield Caution(
            code="not-fused",
            message=f"the export kept plain operators: {graph.unfused[0]}{more}",
            advice="expect slower attention than in a fused graph; "
            "--exporter genai may know this model",
        )
    known = None if graph.weight_bits is None else graph.weight_bits / 8
    width = known or BYTES_PER_WEIGHT.get(graph.precision[:4])
    if (
        width
        and isinstance(source.parameters, int)
        and graph.bytes > 1.3 * width * source.parameters + 4_000_000
    ):
        size = graph.bytes / source.parameters
        yield Caution(
            code="graph-too-large",
            message=f"the graph has {size:.1f} bytes per parameter, {width:.2g} expected",
            advice="weights may be stored twice or dequantised; check the export",
        )
    if isinstance(source.architecture, Architecture) and source.architecture.assumed:
        yield Caution(
            code="architecture-assumed",
            message="the architecture was read by standard names or from the graph, "
            "not from a known config",
            advice="check the FLOPs before quoting them",
        )


def check_failed_parts(measured: Measurement) -> Iterator[Caution]:
    """Warn about latency or memory whose measurement failed while the rest of the cell went on."""
    parts = {"latency": measured.latency, "memory": measured.memory}
    for name, part in parts.items():
        if isinstance(part, Absent) and part.failed:
            yield Caution(
                code=f"{name}-failed",
                message=f"{name} could not be measured: {part.reason}",
                advice="run again; --debug also shows what the process printed",
            )


def check_placement(placement: Placement, provider: str) -> Iterator[Caution]:
    """Warn about operators that ran on another provider.

    Covers shares below the limit that fails a cell, and larger ones under --allow-fallback.
    """
    elsewhere = {p: s for p, s in placement.by_provider.items() if p != base_name(provider)}
    if sum(s.time_share for s in elsewhere.values()) > FALLBACK:
        shares = ", ".join(
            f"{s.time_share:.1%} of the time on {p} ({s.nodes} nodes)" for p, s in elsewhere.items()
        )
        yield Caution(
            code="fallback",
            message=f"not all of it ran on {provider}: {shares}",
            advice="do not read these numbers as the provider's alone",
        )


def check_cache(
    memory: Memory, architecture: Architecture | Absent, graph: Graph
) -> Iterator[Caution]:
    """Warn about a missing KV cache, or one of another size than the config implies."""
    if memory.kv_bytes_per_token == 0:
        yield _NO_CACHE
        return
    half = "fp16" in (graph.precision, graph.arithmetic) or graph.arithmetic == "bf16"
    expected = cache_bytes_per_token(architecture, half)
    if expected and abs(memory.kv_bytes_per_token / expected - 1) > CACHE_TOLERANCE:
        yield Caution(
            code="kv-cache-size",
            message=f"the KV cache takes {memory.kv_bytes_per_token:,} bytes per token, "
            f"{expected:,} expected from the config",
            advice="check the cache inputs of the graph: the export may repeat heads "
            "or expand latent attention",
        )


def cache_bytes_per_token(architecture: Architecture | Absent, half: bool) -> int | None:
    """Return the bytes of keys and values per token, over all layers.

    Numbers take 2 bytes in graphs that compute in `half` precision, else 4. None if some layer is
    not attention.
    """
    layers = architecture.layers if isinstance(architecture, Architecture) else ()
    if not layers or not all(isinstance(x.attention, Attention) for x in layers):
        return None
    numbers = sum(
        _cached_numbers(x.attention) * x.count for x in layers if isinstance(x.attention, Attention)
    )
    return numbers * (2 if half else 4)


def _cached_numbers(attention: Attention) -> int:
    """Count the numbers that a layer caches per token; latent attention caches fewer."""
    if attention.shares_cache:
        return 0
    return (
        attention.latent.kv_rank + attention.latent.rope_dim
        if attention.latent
        else attention.kv_heads * (attention.head_dim + attention.value_dim)
    )
