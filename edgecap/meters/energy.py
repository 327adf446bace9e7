"""Joules of prefill, decode and scoring, in windows as long as the counter needs.

The counter is watched to find its tick, windows are recorded (`energy_windows`), and when all is
over each gets its joules. A window is gross: idle power is measured before and after, kept beside
it, and subtracted by the score. Late samples, falls and stalls of the counter are counted.
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
    """Measure the energy of each given phase with `counter`.

    `beside` is recorded along but not added; `left_out` is only recorded. Absent, with the reason,
    if the counter stalls or can no longer be read. Closes all counters.
    """
    workloads = {"prefill": prefill, "decode": decode, "nll": nll}
    phases = {name: work for name, work in workloads.items() if work}
    stage = ["while its tick was measured"]

    def on_window(window: str, number: int) -> None:
        stage[0] = f"in the {window} window"
        progress(number, WINDOWS * len(phases))

    try:
        ticks, stalled = _ticks(counter, clock)
        tick_s = max(ticks)
        side = tuple(SideReadings(open_readings(s, clock, tick_s)) for s in beside)
        bench = EnergyBench(clock, open_readings(counter, clock, tick_s), side, tick_s)
        align_traces(counter, beside, bench, prefill)
        windows = record_windows(bench, counter, phases, on_window)
        stage[0] = "when its windows were summed"
        return _energy(
            counter, bench, windows, epoch() - clock.now(), beside, (*left_out, *stalled)
        )
    except CounterStalled as error:
        return Absent(reason=str(error))
    except ReadingLost as error:
        return Absent(reason=f"{counter.name} could no longer be read {stage[0]}: {error}")
    finally:
        for source in (counter, *beside):
            source.close()


def _ticks(counter: EnergySource, clock: Clock) -> tuple[list[float], list[LeftOut]]:
    """Return the seconds between changes of the moving domains, and the domains that stalled."""
    if isinstance(counter, Trace):
        return [counter.period_s], []
    ticks = find_ticks(counter, clock)
    return list(ticks.values()), stalled_domains(counter, ticks)


# --- from marks to joules ---------------------------------------------------------------------


def _energy(
    counter: EnergySource,
    bench: EnergyBench,
    raw: RawWindows,
    origin: float,
    beside: Sequence[EnergySource],
    left_out: Sequence[LeftOut],
) -> Energy | Absent:
    """Build the record of all windows; `origin` is the clock's zero in seconds since 1970."""
    windows = {
        name: [_window(bench, w, origin) for w in phase] for name, phase in raw.phases.items()
    }
    all_windows = [w for phase in windows.values() for w in phase]
    if not all(w.joules > 0 for w in all_windows):
        return Absent(reason=f"{counter.name} stood still during a window")
    idle = [_window(bench, w, origin) for w in raw.idle]
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
        quantisation=max(_quantisation(counter, bench.tick_s, w) for w in all_windows),
        sampler_cpu_share=raw.health.cpu_s,
        gaps=raw.health.gaps,
        falls=raw.health.falls,
        stalls=bench.total.stalls,
        left_out=(*left_out, *_failed_sources(bench, beside)),
    )


def _watts(idle: Sequence[Window], domain: str) -> tuple[float, float]:
    before, after = (w.by_domain[domain] / w.seconds for w in idle)
    return before, after


def _quantisation(counter: EnergySource, tick_s: float, window: Window) -> float:
    """Return the largest relative error of a window: a tick at its ends, a step of each domain.

    An assumed power has no such error.
    """
    if counter.provenance == "assumed":
        return 0.0
    return max(tick_s / window.seconds, len(counter.domains) * counter.resolution_j / window.joules)


def _window(bench: EnergyBench, raw: RawWindow, origin: float) -> Window:
    """Return the joules of a window."""
    total = bench.total.between(*raw.ends[0])
    sides = [b.between(*ends) for b, ends in zip(bench.beside, raw.ends[1:], strict=True)]
    return Window(
        joules=sum(total.values()),
        seconds=raw.seconds,
        tokens=raw.tokens,
        by_domain=total,
        beside={domain: joules for side in sides for domain, joules in side.items()},
        began_s=origin + raw.began,
    )


def _failed_sources(bench: EnergyBench, beside: Sequence[EnergySource]) -> list[LeftOut]:
    """List the sources beside the total that failed, with reasons."""
    return [
        LeftOut(
            name=source.name,
            reason=f"shown beside the total until it failed: {readings.reason}",
            scope=source.scope,
        )
        for source, readings in zip(beside, bench.beside, strict=True)
        if readings.reason
    ]
