"""What a reader of the numbers should know: findings as data, each with its advice.

Pure functions of what was found; nothing is printed or measured here.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgecap import stats
from edgecap.analysis.advisor import advise
from edgecap.provider_options import base
from edgecap.record import (
    Absent,
    Architecture,
    Attention,
    Caution,
    Compression,
    Conditions,
    Decode,
    Energy,
    Graph,
    Latency,
    Machine,
    Measurement,
    Memory,
    Placement,
    Prefill,
    Roofline,
    Source,
    Throughput,
)
from edgecap.text.bias_card import Card

FEW_DOCUMENTS, NOISY, DIVERGENT, ABOVE_PEAK = 30, 0.10, 0.1, 1.03
STOLEN, OTHERS = 0.02, 0.10
KV_APART = 0.01
FALLBACK = 0.01  # of the operators' time, from where it is told
BOUND = 0.25  # of a step, from where the interpreter that streams share is told
SLEPT_S, CLOCK_STEP_S, FREQUENCY = 0.1, 0.5, 0.05
STOPPED_S, STOPPED_TIMES, SLOW_FIRST = 1.0, 3.0, 1.25
COARSE, BUSY_SAMPLER = 0.02, 0.02
BYTES_OF_A_NUMBER = {
    "fp32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "int8": 1.0,
    "int4": 0.5,
}  # by family, scales apart


def cautions(
    machine: Machine,
    source: Source,
    graph: Graph,
    provider: str,
    measured: Measurement,
    cells_in_run: int,
) -> tuple[Caution, ...]:
    """All cautions of one measured cell."""
    found = [
        *_of_load(machine, measured),
        *_of_machine(machine),
        *_of_graph(machine, source, graph, provider),
        *_of_failed(measured),
    ]
    if isinstance(measured.placement, Placement):
        found += _of_placement(measured.placement, provider)
    if isinstance(measured.compression, Compression):
        found += _of_compression(measured.compression)
    if isinstance(measured.latency, Latency):
        found += _of_latency(measured.latency, cells_in_run)
    if isinstance(measured.energy, Energy):
        found += _of_energy(measured.energy)
    if isinstance(measured.memory, Memory) and source.task == "decoder":
        found += _of_cache(measured.memory, source.architecture, graph.precision)
    return tuple(found)


def _of_cache(
    found: Memory, architecture: Architecture | Absent, precision: str
) -> Iterator[Caution]:
    if found.kv_bytes_per_token == 0:
        yield _NO_CACHE
        return
    expected = cache_bytes_per_token(architecture, precision)
    if expected and abs(found.kv_bytes_per_token / expected - 1) > KV_APART:
        yield Caution(
            code="kv-cache-size",
            message=f"the KV cache holds {found.kv_bytes_per_token:,} bytes a token, the config says {expected:,}",
            advice="heads may be repeated or the latent form expanded in this export: check the graph's cache inputs",
        )


def cache_bytes_per_token(architecture: Architecture | Absent, precision: str) -> int | None:
    """Bytes of keys and values of all layers, in half precision in fp16 graphs; None where layers differ in kind."""
    layers = architecture.layers if isinstance(architecture, Architecture) else ()
    if not layers or not all(isinstance(x.attention, Attention) for x in layers):
        return None
    numbers = sum(
        _cached(x.attention) * x.count for x in layers if isinstance(x.attention, Attention)
    )
    return numbers * (2 if precision == "fp16" else 4)


def _cached(a: Attention) -> int:
    """Numbers that a layer keeps of a token; latent attention keeps the compressed form."""
    if a.shares_cache:
        return 0
    return (
        a.latent.kv_rank + a.latent.rope_dim
        if a.latent
        else a.kv_heads * (a.head_dim + a.value_dim)
    )


_NO_CACHE = Caution(
    code="no-kv-cache",
    message="the graph keeps no KV cache: each decoded token reads the whole text again",
    advice="export with past keys and values (text-generation-with-past) for a graph worth deploying",
)


def _of_load(machine: Machine, measured: Measurement) -> Iterator[Caution]:
    """The load average before the run, where nothing better is known.

    It reaches a minute back, to what edgecap itself did for the model or the cell before; what others used while
    seconds were measured is known without that, and has a caution of its own.
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


def _of_machine(machine: Machine) -> Iterator[Caution]:
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
            advice="set performance for comparable times",
        )


def _of_graph(machine: Machine, source: Source, graph: Graph, provider: str) -> Iterator[Caution]:
    told = advise(machine, graph.precision, provider, None)
    if told:
        yield told
    if isinstance(graph.divergence_bits, float) and graph.divergence_bits > DIVERGENT:
        yield Caution(
            code="divergent",
            message=f"predictions are {graph.divergence_bits:.2f} bits a token away from fp32",
            advice="check the quality of what the model writes before shipping this variant",
        )
    if graph.unfused:
        count = len(graph.unfused)
        yield Caution(
            code="not-fused",
            message=f"the export kept plain operators: {graph.unfused[0]}{f', and {count - 1} more' if count > 1 else ''}",
            advice="expect slower attention than a fused graph has; --exporter genai may know this model",
        )
    width = BYTES_OF_A_NUMBER.get(graph.precision[:4])
    if (
        width
        and isinstance(source.parameters, int)
        and graph.bytes > 1.3 * width * source.parameters + 4_000_000
    ):
        yield Caution(
            code="graph-too-large",
            message=f"the graph has {graph.bytes / source.parameters:.1f} bytes a parameter, {width:g} expected",
            advice="weights may be stored twice or dequantised; check the export",
        )
    if isinstance(source.architecture, Architecture) and source.architecture.assumed:
        yield Caution(
            code="architecture-assumed",
            message="the architecture was read by standard names or from the graph, not from a known config",
            advice="check the FLOPs before quoting them",
        )


def _of_compression(found: Compression) -> Iterator[Caution]:
    if found.documents < FEW_DOCUMENTS:
        yield Caution(
            code="few-documents",
            message=f"few documents ({found.documents}) give wide intervals for the gain",
            advice=f"use a corpus of at least {FEW_DOCUMENTS} documents",
        )
    if not found.lossless_tokens:
        yield Caution(
            code="not-lossless",
            message="the tokenizer changes some texts: its ids do not decode to the same bytes",
            advice="bits per byte still counts the original's bytes; it is not a lossless code for these texts",
        )
    if found.scored_on:
        yield Caution(
            code="scored-elsewhere",
            message=f"the text was scored in parts on {', '.join(found.scored_on)}",
            advice="its bits are those of the graph; where processors differ, their last digits may too",
        )


def _of_latency(found: Latency, cells_in_run: int) -> Iterator[Caution]:
    spreads = {name: stats.spread(part.samples_s, part.rounds) for name, part in _timed(found)}
    wide = [f"{share:.0%} ({name})" for name, share in spreads.items() if share > NOISY]
    if wide:
        yield Caution(
            code="noisy",
            message=f"the middle half of the rounds spreads by {', '.join(wide)}",
            advice="quieten the machine and run again, or trust only large differences",
        )
    yield from _of_odd_rounds(found)
    if found.limit_reached:
        yield Caution(
            code="few-rounds",
            message=f"the time limit came before the medians were as sure as asked (rounds: {max(found.prefill.rounds) + 1})",
            advice="raise --limit, or accept a wider --precision-target",
        )
    yield from _of_conditions(found.conditions)
    yield from _of_contexts(found)
    yield from _of_streams(found)
    if cells_in_run > 1 and not found.in_turns:
        yield Caution(
            code="one-after-another",
            message="the cells were timed one after another: drift of the machine adds to their differences",
            advice="repeat the run before trusting differences below 5 %",
        )


def _of_failed(found: Measurement) -> Iterator[Caution]:
    """Parts of a cell whose measuring went wrong, while the others went on."""
    parts = {"latency": found.latency, "memory": found.memory}
    for name, part in parts.items():
        if isinstance(part, Absent) and part.failed:
            yield Caution(
                code=f"{name}-failed",
                message=f"{name} could not be measured: {part.reason}",
                advice="run again; with --debug edgecap also shows what the process printed",
            )


def _of_contexts(found: Latency) -> Iterator[Caution]:
    lost = [f"{p.context} ({p.failed})" for p in found.sweep if p.failed]
    if lost:
        yield Caution(
            code="context-failed",
            message=f"contexts could not be timed: {', '.join(lost)}",
            advice="ask for shorter ones with --context-sweep, or free memory",
        )
    cold = [f"{p.context}" for p in found.sweep if p.cold]
    if cold:
        yield Caution(
            code="cold-contexts",
            message=f"contexts were timed once, without a warm-up: {', '.join(cold)}",
            advice="raise --limit, or ask for fewer contexts",
        )


def _of_placement(found: Placement, provider: str) -> Iterator[Caution]:
    """What ran elsewhere than asked: below the share that ends a cell, or allowed by --allow-fallback."""
    elsewhere = {p: s for p, s in found.by_provider.items() if p != base(provider)}
    if sum(s.time_share for s in elsewhere.values()) > FALLBACK:
        told = ", ".join(
            f"{s.time_share:.1%} of the time on {p} ({s.nodes} nodes)" for p, s in elsewhere.items()
        )
        yield Caution(
            code="fallback",
            message=f"not all of it ran on {provider}: {told}",
            advice="do not read these numbers as the provider's alone",
        )


def _of_streams(found: Latency) -> Iterator[Caution]:
    """One interpreter serves all streams: what a step costs without a model is paid one stream after another."""
    shares = {
        point.streams: point.streams
        * point.steps
        * (found.overhead_s or 0.0)
        / stats.median(point.decode_s)
        for point in found.throughput
        if isinstance(point, Throughput) and point.streams > 1 and point.decode_s
    }
    bound = [
        f"{streams} streams {min(share, 1):.0%}"
        for streams, share in shares.items()
        if share > BOUND
    ]
    if bound:
        yield Caution(
            code="streams-bound",
            message=f"of the time of a step, binding and Python take {', '.join(bound)}, one stream after another",
            advice="read the throughput of streams of so small a model as a lower bound; batches do not pay this",
        )


def _timed(found: Latency) -> Iterator[tuple[str, Prefill | Decode]]:
    yield "prefill", found.prefill
    if isinstance(found.decode, Decode):
        yield "decode", found.decode


def _of_conditions(found: Conditions) -> Iterator[Caution]:
    if found.steal_share and found.steal_share > STOLEN:
        yield Caution(
            code="steal",
            message=f"a hypervisor took {found.steal_share:.0%} of the processors while seconds were measured",
            advice="measure on a machine of your own, or trust only cells of one record beside each other",
        )
    if found.other_load and found.other_load > OTHERS:
        yield Caution(
            code="other-load-meanwhile",
            message=f"other processes used {found.other_load:.0%} of the processors while seconds were measured",
            advice="close them and run again",
        )
    if found.slept_s and found.slept_s > SLEPT_S:
        yield Caution(
            code="slept",
            message=f"the machine slept for {found.slept_s:.1f} s while seconds were measured",
            advice="keep it awake and run again",
        )
    if found.clock_step_s and abs(found.clock_step_s) > CLOCK_STEP_S:
        yield Caution(
            code="clock-step",
            message=f"the wall clock was set by {found.clock_step_s:+.1f} s while seconds were measured",
            advice="seconds are safe (a monotonic clock); joules of a wall meter may lie in the wrong window",
        )
    slowest, fastest = (
        min(found.frequencies_hz, default=0.0),
        max(found.frequencies_hz, default=0.0),
    )
    if slowest and fastest / slowest - 1 > FREQUENCY:
        yield Caution(
            code="frequency",
            message=f"the processors ran at {slowest / 1e9:.2f} to {fastest / 1e9:.2f} GHz from round to round",
            advice="fix the frequency (governor performance, turbo off) for comparable times",
        )
    if found.throttle_events:
        yield Caution(
            code="throttled",
            message=f"heat slowed the processors down while seconds were measured ({found.throttle_events} events)",
            advice="cool the machine or take --limit shorter; these are its times under sustained load",
        )


def _of_odd_rounds(found: Latency) -> Iterator[Caution]:
    """Samples that something else made: a process that was stopped, a first round that still warmed up."""
    for name, part in _timed(found):
        usual, longest = _usual(part.samples_s), max(part.samples_s)
        if longest > max(usual + STOPPED_S, STOPPED_TIMES * usual):
            yield Caution(
                code="interrupted",
                message=f"one {name} took {longest:.1f} s where {usual:.2g} s is usual: the process was stopped, or the machine slept",
                advice="its round is kept and outvoted by the others; run again if there are several",
            )
        heaps = stats.modes(part.samples_s)
        if heaps:
            yield Caution(
                code="bimodal",
                message=f"{name} takes either {heaps.fast:.3g} s or {heaps.slow:.3g} s ({heaps.share_slow:.0%} of the samples)",
                advice="the median stands for one of two states: a neighbour, a frequency, a slower core; try --affinity",
            )
        first, *others = stats.by_round(part.samples_s, part.rounds)
        if len(others) > 2 and first > SLOW_FIRST * stats.median(others) and first > max(others):
            yield Caution(
                code="slow-first-round",
                message=f"the first round of {name} took {first / stats.median(others):.2f} times as long as the others",
                advice="the machine was not warm or not quiet yet; run again, or raise --limit",
            )


def _usual(samples: tuple[float, ...]) -> float:
    """What a sample takes where nothing comes between: of few samples the quickest, since half of them may be odd."""
    return min(samples) if len(samples) < 5 else stats.quantile(samples, 0.25)


def _of_energy(found: Energy) -> Iterator[Caution]:
    if found.provenance == "assumed":
        yield _ASSUMED
        return
    idle = sum(found.idle_w) / 2
    watts = [w.joules / w.seconds for w in found.decode or found.prefill if w.seconds > 0]
    signal = stats.median(watts) - idle if watts else 0.0
    if abs(found.idle_w[1] - found.idle_w[0]) > max(0.2 * signal, 0.02 * idle):
        yield Caution(
            code="idle-drift",
            message=f"idle power moved from {found.idle_w[0]:.1f} to {found.idle_w[1]:.1f} W during the run",
            advice="net energy is uncertain; let the machine settle and run again",
        )
    yield from _of_windows(found)
    yield from _of_counter(found)


_ASSUMED = Caution(
    code="energy-assumed",
    message="joules are assumed watts x seconds: nothing was measured",
    advice="leave --assume-watts out where a counter can be read (edgecap doctor tells); it enters no score",
)


def _of_windows(found: Energy) -> Iterator[Caution]:
    if found.quantisation is not None and found.quantisation > COARSE:
        yield Caution(
            code="energy-window-short",
            message=f"the counter moves every {found.tick_s:.3g} s: a window may be wrong by {found.quantisation:.0%}",
            advice="use a counter with a finer step; the interval of the joules holds this error",
        )
    phases = {"prefill": found.prefill, "decode": found.decode, "scoring": found.nll}
    spreads = {
        name: stats.spread([w.joules / max(w.tokens, 1) for w in windows], range(len(windows)))
        for name, windows in phases.items()
        if windows
    }
    wide = [f"{share:.0%} ({name})" for name, share in spreads.items() if share > NOISY]
    if wide:
        yield Caution(
            code="energy-noisy",
            message=f"joules a token differ between windows by {', '.join(wide)}",
            advice="quieten the machine and run again, or trust only large differences",
        )


def _of_counter(found: Energy) -> Iterator[Caution]:
    missed = {
        "gaps": (found.gaps, "samples of power that came late"),
        "falls": (found.falls, "readings that fell or leapt as no counting explains (a reset?)"),
        "stalls": (found.stalls, "times when a domain stood still within a window"),
    }
    told = [f"{count} {what}" for count, what in missed.values() if count]
    if told:
        yield Caution(
            code="energy-counter-unsteady",
            message=f"{found.counter}: {', '.join(told)}",
            advice="joules of the windows concerned may be wrong: compare the windows, run again",
        )
    windows = (*found.prefill, *found.decode, *found.nll)
    still = [d for d in found.domains if any(w.by_domain.get(d) == 0 for w in windows)]
    lacking = [x.name for x in found.left_out if x.missing and x.name not in still]
    if still or lacking:
        yield Caution(
            code="energy-incomplete",
            message=f"the total lacks {', '.join([*(f'{d} (stood still)' for d in still), *lacking])}",
            advice="give permission (edgecap doctor tells how), or compare only with runs of the same domains",
        )
    if found.sampler_cpu_share > BUSY_SAMPLER:
        yield Caution(
            code="energy-sampler",
            message=f"sampling took {found.sampler_cpu_share:.1%} of one core while it measured",
            advice="this share of the energy is edgecap's own",
        )


def above_peak(found: Roofline) -> Iterator[Caution]:
    """A step that beats the roofline says that the peaks were measured in a slower moment."""
    bounds = {"prefill": found.prefill, "decode": found.decode}
    wrong = [
        f"{name} at {b.ratio.value:.0%}"
        for name, b in bounds.items()
        if b and b.ratio.value > ABOVE_PEAK
    ]
    if wrong:
        yield Caution(
            code="above-peak",
            message=f"faster than the measured peaks allow ({', '.join(wrong)} of the roofline)",
            advice="they were measured in a slower moment: run once with --calibrate",
        )


FOREIGN_BIAS = "bias-of-another-protocol"


def foreign_bias(card: Card | None, text: Compression | Absent) -> Iterator[Caution]:
    """A corpus card's bias beside a text that was scored in another way than it was fitted under."""
    if card is None or isinstance(text, Absent):
        return
    fitted, scored = ((x.protocol, x.context, x.stride) for x in (card, text))
    if fitted != scored:
        yield Caution(
            code=FOREIGN_BIAS,
            message=(
                f"the bias {card.bias_bits:.2f} was fitted under {_way_of_scoring(*fitted)}; "
                f"this was scored under {_way_of_scoring(*scored)}"
            ),
            advice="fit one for it (edgecap fit) or give --bias",
        )


def _way_of_scoring(protocol: str, context: int, stride: int | None) -> str:
    return f"protocol {protocol}, window {context}{f', stride {stride}' if stride else ''}"


def no_energy(reason: Absent) -> str:
    """The one line that a run without any counter says."""
    return f"no energy was measured: {reason.reason}"
