"""Warnings about latency: noise, odd rounds, contexts, streams and system conditions. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edgecap import stats
from edgecap.record import (
    Caution,
    Conditions,
    Decode,
    Latency,
    Prefill,
    Roofline,
    Throughput,
)

NOISY = 0.10  # interquartile range of the rounds over their median
STOLEN, OTHER_LOAD = 0.02, 0.10  # shares of the processors' time
SLEPT_S, CLOCK_STEP_S, FREQUENCY = 0.1, 0.5, 0.05
STOPPED_S, STOPPED_TIMES, SLOW_FIRST = 1.0, 3.0, 1.25
STREAM_OVERHEAD = 0.25  # share of a step that streams spend waiting for the interpreter
ABOVE_PEAK = 1.03  # ratio to the roofline; up to here it is noise


def check_latency(latency: Latency, cells_in_run: int, quick: bool = False) -> Iterator[Caution]:
    """Warn about everything that makes the seconds of a cell less certain."""
    phases = _phases(latency)
    spreads = {name: stats.relative_spread(part.samples_s, part.rounds) for name, part in phases}
    wide = [f"{share:.0%} ({name})" for name, share in spreads.items() if share > NOISY]
    if wide:
        yield Caution(
            code="noisy",
            message=f"the middle half of the rounds spreads by {', '.join(wide)}",
            advice="quieten the machine and run again, or trust only large differences",
        )
    yield from _check_rounds(latency)
    if latency.limit_reached:
        rounds = max(latency.prefill.rounds) + 1
        yield Caution(
            code="few-rounds",
            message="the time limit came before the medians reached the requested precision "
            f"(rounds: {rounds})",
            advice="leave out --quick, or raise --limit"
            if quick
            else "raise --limit, or accept a wider --precision-target",
        )
    yield from _check_conditions(latency.conditions)
    yield from _check_quota(latency.conditions)
    yield from _check_contexts(latency)
    yield from _check_streams(latency)
    if cells_in_run > 1 and not latency.in_turns:
        yield Caution(
            code="one-after-another",
            message="the cells were timed one after another: "
            "drift of the machine adds to their differences",
            advice="repeat the run before trusting differences below 5 %",
        )


def above_peak(roofline: Roofline) -> Iterator[Caution]:
    """Warn about a step that beats the roofline: the peaks were measured in a slower moment."""
    bounds = {"prefill": roofline.prefill, "decode": roofline.decode}
    faster = [
        f"{name} at {bound.ratio.value:.0%}"
        for name, bound in bounds.items()
        if bound and bound.ratio.value > ABOVE_PEAK
    ]
    if faster:
        yield Caution(
            code="above-peak",
            message=f"faster than the measured peaks allow ({', '.join(faster)} of the roofline)",
            advice="the peaks were measured in a slower moment: run once with --calibrate",
        )


def _phases(latency: Latency) -> list[tuple[str, Prefill | Decode]]:
    phases: list[tuple[str, Prefill | Decode]] = [("prefill", latency.prefill)]
    if isinstance(latency.decode, Decode):
        phases.append(("decode", latency.decode))
    return phases


def _check_rounds(latency: Latency) -> Iterator[Caution]:
    """Warn about interruptions, two states of the machine, and a first round that warmed up."""
    for name, part in _phases(latency):
        typical, longest = _typical(part.samples_s), max(part.samples_s)
        if longest > max(typical + STOPPED_S, STOPPED_TIMES * typical):
            yield Caution(
                code="interrupted",
                message=f"one {name} took {longest:.1f} s where {typical:.2g} s is typical: "
                "the process was stopped, or the machine slept",
                advice="the median outvotes its round; run again if there are several",
            )
        modes = stats.modes(part.samples_s)
        if modes:
            yield Caution(
                code="bimodal",
                message=f"{name} takes either {modes.fast:.3g} s or {modes.slow:.3g} s "
                f"({modes.share_slow:.0%} of the samples)",
                advice="the median shows only one of two states: a neighbour, a frequency, "
                "a slower core; try --affinity",
            )
        first, *others = stats.round_medians(part.samples_s, part.rounds)
        if len(others) > 2 and first > SLOW_FIRST * stats.median(others) and first > max(others):
            times = first / stats.median(others)
            yield Caution(
                code="slow-first-round",
                message=f"the first round of {name} took {times:.2f} times as long as the others",
                advice="the machine was not warm or not quiet yet; run again, or raise --limit",
            )


def _typical(samples: tuple[float, ...]) -> float:
    """Return the lower quartile, or the minimum of few samples: half of those may be outliers."""
    return min(samples) if len(samples) < 5 else stats.quantile(samples, 0.25)


def _check_conditions(conditions: Conditions) -> Iterator[Caution]:
    """Warn about what the system did during the benchmark: steal, load, sleep, clock, heat."""
    if conditions.steal_share and conditions.steal_share > STOLEN:
        yield Caution(
            code="steal",
            message=f"a hypervisor took {conditions.steal_share:.0%} of the processors "
            "during the benchmark",
            advice="measure on a machine of your own, or compare only cells of one record",
        )
    if conditions.other_load and conditions.other_load > OTHER_LOAD:
        yield Caution(
            code="other-load-meanwhile",
            message=f"other processes used {conditions.other_load:.0%} of the processors "
            "during the benchmark",
            advice="close them and run again",
        )
    if conditions.slept_s and conditions.slept_s > SLEPT_S:
        yield Caution(
            code="slept",
            message=f"the machine slept for {conditions.slept_s:.1f} s during the benchmark",
            advice="keep it awake and run again",
        )
    if conditions.clock_step_s and abs(conditions.clock_step_s) > CLOCK_STEP_S:
        yield Caution(
            code="clock-step",
            message=f"the wall clock was set by {conditions.clock_step_s:+.1f} s "
            "during the benchmark",
            advice="seconds are safe (a monotonic clock); "
            "joules of a wall meter may lie in the wrong window",
        )
    slowest = min(conditions.frequencies_hz, default=0.0)
    fastest = max(conditions.frequencies_hz, default=0.0)
    if slowest and fastest / slowest - 1 > FREQUENCY:
        yield Caution(
            code="frequency",
            message=f"the processors ran at {slowest / 1e9:.2f} to {fastest / 1e9:.2f} GHz "
            "from round to round",
            advice="fix the frequency (governor performance, turbo off) for comparable times",
        )
    if conditions.throttle_events:
        yield Caution(
            code="throttled",
            message="heat throttled the processors during the benchmark "
            f"({conditions.throttle_events} events)",
            advice="cool the machine or lower --limit; these are times under sustained load",
        )


def _check_quota(conditions: Conditions) -> Iterator[Caution]:
    """Warn about a CPU quota that stopped the processes of the container while they were timed."""
    if conditions.quota_waits:
        yield Caution(
            code="cpu-quota-throttled",
            message="the CPU quota of the container stopped its processes in "
            f"{conditions.quota_waits} periods of the benchmark, for "
            f"{conditions.quota_wait_s or 0.0:.1f} s of processor time",
            advice="raise the quota (docker --cpus, cpu.max) or lower --threads, and run again",
        )


def _check_contexts(latency: Latency) -> Iterator[Caution]:
    """Warn about contexts of the sweep that failed or were timed without a warm-up."""
    failed = [f"{p.context} ({p.failed})" for p in latency.sweep if p.failed]
    if failed:
        yield Caution(
            code="context-failed",
            message=f"contexts could not be timed: {', '.join(failed)}",
            advice="give shorter ones to --context-sweep, or free memory",
        )
    cold = [f"{p.context}" for p in latency.sweep if p.cold]
    if cold:
        yield Caution(
            code="cold-contexts",
            message=f"contexts were timed once, without a warm-up: {', '.join(cold)}",
            advice="raise --limit, or give fewer contexts",
        )


def _check_streams(latency: Latency) -> Iterator[Caution]:
    """Warn about streams that wait for one another in the one Python interpreter."""
    shares = {
        point.streams: point.streams
        * point.steps
        * (latency.overhead_s or 0.0)
        / stats.median(point.decode_s)
        for point in latency.throughput
        if isinstance(point, Throughput) and point.streams > 1 and point.decode_s
    }
    bound = [
        f"{streams} streams {min(share, 1):.0%}"
        for streams, share in shares.items()
        if share > STREAM_OVERHEAD
    ]
    if bound:
        yield Caution(
            code="streams-bound",
            message=f"Python and runtime overhead, one stream after another, takes "
            f"{', '.join(bound)} of a step",
            advice="read the throughput of streams of so small a model as a lower bound; "
            "batches do not pay this",
        )
