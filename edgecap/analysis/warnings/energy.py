"""Warnings about energy: assumed power, idle drift, short windows and unsteady counters. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edgecap import stats
from edgecap.analysis.warnings.timing import NOISY
from edgecap.record import Absent, Caution, Energy

COARSE, BUSY_SAMPLER = 0.02, 0.02  # relative error of a window; share of one core

_ASSUMED = Caution(
    code="energy-assumed",
    message="joules are assumed watts x seconds: nothing was measured",
    advice="omit --assume-watts where a counter can be read (see edgecap doctor); "
    "these joules enter no score",
)


def check_energy(energy: Energy) -> Iterator[Caution]:
    """Warn about everything that makes the joules of a cell less certain."""
    if energy.provenance == "assumed":
        yield _ASSUMED
        return
    idle = sum(energy.idle_w) / 2
    watts = [w.joules / w.seconds for w in energy.decode or energy.prefill if w.seconds > 0]
    signal = stats.median(watts) - idle if watts else 0.0
    if abs(energy.idle_w[1] - energy.idle_w[0]) > max(0.2 * signal, 0.02 * idle):
        yield Caution(
            code="idle-drift",
            message=f"idle power moved from {energy.idle_w[0]:.1f} to {energy.idle_w[1]:.1f} W "
            "during the run",
            advice="net energy is uncertain; let the machine settle and run again",
        )
    yield from _check_windows(energy)
    yield from _check_counter(energy)


def no_energy(reason: Absent) -> str:
    """Return the line that a report prints if no counter could be read."""
    return f"no energy was measured: {reason.reason}"


def _check_windows(energy: Energy) -> Iterator[Caution]:
    """Warn about windows that are short for the counter's tick, or differ from one another."""
    if energy.quantisation is not None and energy.quantisation > COARSE:
        yield Caution(
            code="energy-window-short",
            message=f"the counter moves every {energy.tick_s:.3g} s: "
            f"a window may be wrong by {energy.quantisation:.0%}",
            advice="use a counter with a finer step; the interval of the joules holds this error",
        )
    phases = {"prefill": energy.prefill, "decode": energy.decode, "scoring": energy.nll}
    spreads = {
        name: stats.relative_spread(
            [w.joules / max(w.tokens, 1) for w in windows], range(len(windows))
        )
        for name, windows in phases.items()
        if windows
    }
    wide = [f"{share:.0%} ({name})" for name, share in spreads.items() if share > NOISY]
    if wide:
        yield Caution(
            code="energy-noisy",
            message=f"joules per token differ between windows by {', '.join(wide)}",
            advice="quieten the machine and run again, or trust only large differences",
        )


def _check_counter(energy: Energy) -> Iterator[Caution]:
    """Warn about late, falling or stalled readings, missing domains, and a busy sampler."""
    missed = (
        (energy.gaps, "samples of power that came late"),
        (energy.falls, "readings that fell or leapt as no counting explains (a reset?)"),
        (energy.stalls, "times when a domain stood still within a window"),
    )
    counts = [f"{count} {event}" for count, event in missed if count]
    if counts:
        yield Caution(
            code="energy-counter-unsteady",
            message=f"{energy.counter}: {', '.join(counts)}",
            advice="joules of the affected windows may be wrong: compare the windows, run again",
        )
    windows = (*energy.prefill, *energy.decode, *energy.nll)
    stalled = [d for d in energy.domains if any(w.by_domain.get(d) == 0 for w in windows)]
    lacking = [x.name for x in energy.left_out if x.missing and x.name not in stalled]
    if stalled or lacking:
        names = [*(f"{d} (stood still)" for d in stalled), *lacking]
        yield Caution(
            code="energy-incomplete",
            message=f"the total lacks {', '.join(names)}",
            advice="give permission (see edgecap doctor), "
            "or compare only with runs of the same domains",
        )
    if energy.sampler_cpu_share > BUSY_SAMPLER:
        yield Caution(
            code="energy-sampler",
            message=f"sampling took {energy.sampler_cpu_share:.1%} of one core while it measured",
            advice="this share of the energy is edgecap's own",
        )
