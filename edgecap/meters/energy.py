"""Joules of prefill, decode and scoring, in windows as long as the counter needs.

The counter's tick is found by watching it, windows are taken (`taking`), and when all is over each is asked for
its joules. A window is gross: idle power is measured before and after, kept beside it, and subtracted by whoever
reads. What a counter misses (late samples, falls, standing still) is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edgecap.meters.counter_readings import (
    CounterStalled,
    ReadingLost,
    SideReadings,
    find_ticks,
    open_readings,
    stalled_domains,
)
from edgecap.meters.energy_windows import (
    WINDOWS,
    EnergyBench,
    RawWindow,
    RawWindows,
    Work,
    align_traces,
    record_windows,
)
from edgecap.protocols import Clock, EnergySource, Trace
from edgecap.record import Absent, Energy, LeftOut, Window


def measure_energy(
    counter: EnergySource,
    clock: Clock,
    prefill: Work,
    decode: Work | None,
    progress: Callable[[int, int], None],
    nll: Work | None = None,
    beside: Sequence[EnergySource] = (),
    left_out: Sequence[LeftOut] = (),
    epoch: Callable[[], float] = time.time,
) -> Energy | Absent:
    """Energy of the phases that there are from `counter`; `beside` is read along and not added, `left_out` only recorded.

    Absent, with what happened, where the counter stands still or dies.
    """
    asked = {"prefill": prefill, "decode": decode, "nll": nll}
    phases = {name: work for name, work in asked.items() if work}
    stage = ["while its tick was looked for"]

    def at(where: str, number: int) -> None:
        stage[0] = f"in the {where} window"
        progress(number, WINDOWS * len(phases))

    try:
        ticks, still = _ticks(counter, clock)
        tick_s = max(ticks)
        shown = tuple(SideReadings(open_readings(s, clock, tick_s)) for s in beside)
        bench = EnergyBench(clock, open_readings(counter, clock, tick_s), shown, tick_s)
        align_traces(counter, beside, bench, prefill)
        taken = record_windows(bench, counter, phases, at)
        stage[0] = "when its windows were added up"
        return _energy(counter, bench, taken, epoch() - clock.now(), beside, (*left_out, *still))
    except CounterStalled as error:
        return Absent(reason=str(error))
    except ReadingLost as error:
        return Absent(reason=f"{counter.name} could no longer be read {stage[0]}: {error}")
    finally:
        for source in (counter, *beside):
            source.close()


def _ticks(counter: EnergySource, clock: Clock) -> tuple[list[float], list[LeftOut]]:
    """Seconds between changes of the domains, and those that stood still."""
    if isinstance(counter, Trace):
        return [counter.period_s], []
    found = find_ticks(counter, clock)
    return list(found.values()), stalled_domains(counter, found)


# --- from marks to joules ---------------------------------------------------------------------


def _energy(
    counter: EnergySource,
    bench: EnergyBench,
    taken: RawWindows,
    origin: float,
    beside: Sequence[EnergySource],
    left_out: Sequence[LeftOut],
) -> Energy | Absent:
    """All windows asked for their joules; `origin` is seconds since 1970 at the clock's zero."""
    windows = {
        name: [_asked(bench, t, origin) for t in marks] for name, marks in taken.phases.items()
    }
    every = [w for phase in windows.values() for w in phase]
    if not all(w.joules > 0 for w in every):
        return Absent(reason=f"{counter.name} stood still during a window")
    idle = [_asked(bench, t, origin) for t in taken.idle]
    return Energy(
        counter=counter.name,
        domains=counter.domains,
        provenance=counter.provenance,
        tick_s=bench.tick_s,
        resolution_j=counter.resolution_j,
        idle_w=(idle[0].joules / idle[0].seconds, idle[1].joules / idle[1].seconds),
        idle_by_domain_w={d: _watts(idle, d) for d in counter.domains},
        prefill=tuple(windows["prefill"]),
        decode=tuple(windows.get("decode", ())),
        nll=tuple(windows.get("nll", ())),
        quantisation=max(_quantisation(counter, bench.tick_s, w) for w in every),
        sampler_cpu_share=taken.upkeep.cpu_s,
        gaps=taken.upkeep.gaps,
        falls=taken.upkeep.falls,
        stalls=bench.total.stalls,
        left_out=(*left_out, *_lost(bench, beside)),
    )


def _watts(idle: Sequence[Window], domain: str) -> tuple[float, float]:
    before, after = (w.by_domain[domain] / w.seconds for w in idle)
    return before, after


def _quantisation(counter: EnergySource, tick_s: float, window: Window) -> float:
    """The largest relative error of a window: each end falls within a tick, each domain within a step.

    An assumed power has none.
    """
    if counter.provenance == "assumed":
        return 0.0
    return max(tick_s / window.seconds, len(counter.domains) * counter.resolution_j / window.joules)


def _asked(bench: EnergyBench, taken: RawWindow, origin: float) -> Window:
    """The joules of a window."""
    total = bench.total.between(*taken.ends[0])
    shown = [b.between(*ends) for b, ends in zip(bench.beside, taken.ends[1:], strict=True)]
    return Window(
        joules=sum(total.values()),
        seconds=taken.seconds,
        tokens=taken.tokens,
        by_domain=total,
        beside={domain: joules for each in shown for domain, joules in each.items()},
        began_s=origin + taken.began,
    )


def _lost(bench: EnergyBench, beside: Sequence[EnergySource]) -> list[LeftOut]:
    """Sources beside the total that failed, and how."""
    return [
        LeftOut(
            name=source.name,
            reason=f"shown beside the total until it failed: {had.reason}",
            scope=source.scope,
        )
        for source, had in zip(beside, bench.beside, strict=True)
        if had.reason
    ]
