"""Record energy windows: work between marks, idle before and after, load steps to align a trace.

    idle | (settle, prefill) (settle, decode) (settle, nll) | the same twice more | settle, idle
    2 s  |  >= 2 s and 100 ticks each, at most 120 s        |                     |         2 s

Phases are interleaved in rounds, so that drift shows in their spread. Before each window its phase
already runs unrecorded, so that a counter that averages over a moment shows that phase alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from edgecap.meters.counter_readings import Mark, ReadingLost, Readings, SideReadings, read_source
from edgecap.protocols import Clock, CounterHealth, EnergySource, Trace

WINDOWS, MIN_SECONDS, MIN_TICKS, MAX_SECONDS = 3, 2.0, 100, 120.0
IDLE_SECONDS, IDLE_TICKS, MAX_IDLE, SETTLE = 2.0, 50, 30.0, 0.25
POLL_S = 0.05  # seconds between polls of a counter within a window
# Steps of load that align a trace's clock: seconds idle, then seconds of work.
STEPS_S = ((3.0, 3.0), (2.0, 5.0), (4.0, 3.0))
ORDINALS = ("first", "second", "third")

Work = Callable[[], int]  # works for a moment and returns its number of tokens
WindowCallback = Callable[[str, int], None]  # called with the name and number of each window


class RawWindow(NamedTuple):
    """A window by its marks, joules not yet read; `ends` are first and last mark of each source."""

    began: float
    seconds: float
    tokens: int
    ends: tuple[tuple[Mark, Mark], ...]


class RawWindows(NamedTuple):
    """The windows of each phase, idle before and after, and the health of the counter."""

    phases: Mapping[str, list[RawWindow]]
    idle: tuple[RawWindow, RawWindow]
    health: CounterHealth


class EnergyBench(NamedTuple):
    """Clock and sources of a run: the total, and sources shown beside it."""

    clock: Clock
    total: Readings
    beside: tuple[SideReadings, ...]
    tick_s: float

    def mark(self) -> list[Mark]:
        """Mark the total and each source beside it."""
        return [self.total.mark(), *(b.mark() for b in self.beside)]


def record_windows(
    bench: EnergyBench, counter: EnergySource, phases: Mapping[str, Work], on_window: WindowCallback
) -> RawWindows:
    """Record three windows of each phase, and idle windows around them.

    The CPU time of the counter's sampling is returned as a share of the time of all windows.
    """
    length = min(max(MIN_SECONDS, MIN_TICKS * bench.tick_s), MAX_SECONDS)
    on_window("first idle", 0)
    before = _idle(bench)
    windows: dict[str, list[RawWindow]] = {name: [] for name in phases}
    began, cpu_before = bench.clock.now(), _upkeep(counter).cpu_s
    for number, (name, work) in enumerate(list(phases.items()) * WINDOWS):
        on_window(f"{ORDINALS[number // len(phases)]} {name}", number)
        _repeat(bench, work, SETTLE + min(5 * bench.tick_s, 1.0))
        windows[name].append(_window(bench, work, length))
    health = _upkeep(counter)
    share = (health.cpu_s - cpu_before) / max(bench.clock.now() - began, 1e-9)
    on_window("last idle", WINDOWS * len(phases))
    return RawWindows(windows, (before, _idle(bench)), health._replace(cpu_s=share))


def _upkeep(counter: EnergySource) -> CounterHealth:
    return CounterHealth() if isinstance(counter, Trace) else counter.health()


def _idle(bench: EnergyBench) -> RawWindow:
    """Record a window with nothing running, after a moment of rest."""
    bench.clock.sleep(SETTLE)
    length = min(max(IDLE_SECONDS, IDLE_TICKS * bench.tick_s), MAX_IDLE)

    def rest() -> int:
        bench.clock.sleep(4 * POLL_S)
        return 0

    return _window(bench, rest, length)


def _repeat(bench: EnergyBench, work: Work, seconds: float) -> int:
    """Repeat `work` for at least `seconds`, polling the counter; return its tokens."""
    clock, tokens = bench.clock, 0
    started = polled = clock.now()
    while clock.now() - started < seconds:
        tokens += work()
        if clock.now() - polled >= POLL_S:
            polled = clock.now()
            bench.total.poll()
    return tokens


def _window(bench: EnergyBench, work: Work, length: float) -> RawWindow:
    """Record work between two marks of every source."""
    first, started = bench.mark(), bench.clock.now()
    tokens = _repeat(bench, work, length)
    last = bench.mark()
    return RawWindow(
        started, bench.clock.now() - started, tokens, tuple(zip(first, last, strict=True))
    )


# --- clock of a trace -------------------------------------------------------------------------


def align_traces(
    counter: EnergySource, beside: Iterable[EnergySource], bench: EnergyBench, work: Work
) -> None:
    """Align the clock of each trace that does not know its offset, by steps of load.

    A trace beside the total that cannot be aligned is dropped with a reason.
    """
    if isinstance(counter, Trace) and not counter.aligned:
        _align(counter, bench, work)
    for source, readings in zip(beside, bench.beside, strict=True):
        if isinstance(source, Trace) and not source.aligned:
            try:
                _align(source, bench, work)
            except ReadingLost as error:
                readings.reason = str(error)


def _align(trace: Trace, bench: EnergyBench, work: Work) -> None:
    steps = []
    for off, on in STEPS_S:
        bench.clock.sleep(off)
        began = trace.mark()
        _repeat(bench, work, on)
        steps.append((began, trace.mark()))
    bench.clock.sleep(STEPS_S[0][0])
    read_source(trace.align, steps)
