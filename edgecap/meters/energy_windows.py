"""Taking energy windows: work between marks, rest before and after, steps of load for a trace's clock.

    idle | (settle, prefill) (settle, decode) (settle, nll) | the same twice more | settle, idle
    2 s  |  >= 2 s and 100 ticks each, at most 120 s        |                     |         2 s

Phases are interleaved in rounds, so that drift shows in their spread. Before each window its phase already
runs uncounted, so that a counter that averages over a moment shows that phase alone. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from edgecap.meters.counter_readings import Mark, ReadingLost, Readings, SideReadings, read_source
from edgecap.protocols import Clock, EnergySource, Trace, Upkeep

WINDOWS, MIN_SECONDS, MIN_TICKS, MAX_SECONDS = 3, 2.0, 100, 120.0
IDLE_SECONDS, IDLE_TICKS, MAX_IDLE, SETTLE = 2.0, 50, 30.0, 0.25
POLL_S = 0.05  # a counter is read this often while something works
STEPS_S = (
    (3.0, 3.0),
    (2.0, 5.0),
    (4.0, 3.0),
)  # load to align a trace's clock: seconds off, then on
ORDINALS = ("first", "second", "third")

Work = Callable[[], int]  # does some work and returns its tokens
WindowCallback = Callable[[str, int], None]  # told which window begins, and its number


class RawWindow(NamedTuple):
    """A window as it was marked, before anybody has asked for its joules; `ends` are those of each source."""

    began: float
    seconds: float
    tokens: int
    ends: tuple[tuple[Mark, Mark], ...]


class RawWindows(NamedTuple):
    """The windows of a run by phase, rest before and after, and what the counter cost and missed."""

    phases: Mapping[str, list[RawWindow]]
    idle: tuple[RawWindow, RawWindow]
    upkeep: Upkeep


class EnergyBench(NamedTuple):
    """What windows are taken with: the total, and what is shown beside it."""

    clock: Clock
    total: Readings
    beside: tuple[SideReadings, ...]
    tick_s: float

    def mark(self) -> list[Mark]:
        """Marks of the total and of what is shown beside it."""
        return [self.total.mark(), *(b.mark() for b in self.beside)]


def record_windows(
    bench: EnergyBench, counter: EnergySource, phases: Mapping[str, Work], at: WindowCallback
) -> RawWindows:
    """Three windows of each phase, and the rest around them; the CPU time of sampling as a share of theirs."""
    length = min(max(MIN_SECONDS, MIN_TICKS * bench.tick_s), MAX_SECONDS)
    at("first idle", 0)
    before = _idle(bench)
    taken: dict[str, list[RawWindow]] = {name: [] for name in phases}
    began, spent = bench.clock.now(), _upkeep(counter).cpu_s
    for number, (name, work) in enumerate(list(phases.items()) * WINDOWS):
        at(f"{ORDINALS[number // len(phases)]} {name}", number)
        _repeat(bench, work, SETTLE + min(5 * bench.tick_s, 1.0))
        taken[name].append(_window(bench, work, length))
    upkeep = _upkeep(counter)
    share = (upkeep.cpu_s - spent) / max(bench.clock.now() - began, 1e-9)
    at("last idle", WINDOWS * len(phases))
    return RawWindows(taken, (before, _idle(bench)), upkeep._replace(cpu_s=share))


def _upkeep(counter: EnergySource) -> Upkeep:
    return Upkeep() if isinstance(counter, Trace) else counter.upkeep()


def _idle(bench: EnergyBench) -> RawWindow:
    """A window with nothing running, after a moment of rest."""
    bench.clock.sleep(SETTLE)
    length = min(max(IDLE_SECONDS, IDLE_TICKS * bench.tick_s), MAX_IDLE)

    def rest() -> int:
        bench.clock.sleep(4 * POLL_S)
        return 0

    return _window(bench, rest, length)


def _repeat(bench: EnergyBench, work: Work, seconds: float) -> int:
    """Work for at least `seconds`, with a look at the counter now and then; returns its tokens."""
    clock, tokens = bench.clock, 0
    started = looked = clock.now()
    while clock.now() - started < seconds:
        tokens += work()
        if clock.now() - looked >= POLL_S:
            looked = clock.now()
            bench.total.look()
    return tokens


def _window(bench: EnergyBench, work: Work, length: float) -> RawWindow:
    """Work between two marks of every source."""
    first, started = bench.mark(), bench.clock.now()
    tokens = _repeat(bench, work, length)
    last = bench.mark()
    return RawWindow(
        started, bench.clock.now() - started, tokens, tuple(zip(first, last, strict=True))
    )


# --- a trace's clock --------------------------------------------------------------------------


def align_traces(
    counter: EnergySource, beside: Iterable[EnergySource], bench: EnergyBench, work: Work
) -> None:
    """Let each trace that does not know its clock find it from steps of load."""
    if isinstance(counter, Trace) and not counter.aligned:
        _align(counter, bench, work)
    for source, shown in zip(beside, bench.beside, strict=True):
        if isinstance(source, Trace) and not source.aligned:
            try:
                _align(source, bench, work)
            except ReadingLost as error:
                shown.reason = str(error)


def _align(trace: Trace, bench: EnergyBench, work: Work) -> None:
    steps = []
    for off, on in STEPS_S:
        bench.clock.sleep(off)
        began = trace.mark()
        _repeat(bench, work, on)
        steps.append((began, trace.mark()))
    bench.clock.sleep(STEPS_S[0][0])
    read_source(trace.align, steps)
