"""Joules between two marks, from counters and traces alike.

A counter is read at every mark. A trace is written by another device, so that a mark is only a
time, and joules are asked for when all is over. Within a window a counter is polled, so that no
wrap-around is missed and a stalled domain is noticed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from edgecap.protocols import Clock, Counter, Trace
from edgecap.record import LeftOut

Mark = tuple[float, ...]

WATCH_S, CHANGES, STILL_S, SLOW_S, IDLE_BOUND_S = 5.0, 9, 0.05, 10.0, 60.0
STALL_TICKS = 5


class CounterStalled(Exception):
    """A counter did not move while it was watched."""


class ReadingLost(Exception):
    """A counter or trace can no longer be read; not an error of the measured work."""


Result = TypeVar("Result")


def read_source(method: Callable[..., Result], *arguments: Any) -> Result:
    """Call a method of a counter or trace; raise ReadingLost on OSError."""
    try:
        return method(*arguments)
    except OSError as error:
        raise ReadingLost(str(error)) from error


class Readings(Protocol):
    """Joules by domain from a counter or a trace."""

    domains: tuple[str, ...]
    stalls: int  # times that a domain which moves stood still

    def mark(self) -> Mark:
        """Mark this moment."""

    def between(self, began: Mark, ended: Mark) -> dict[str, float]:
        """Return joules by domain between two marks; raise ReadingLost if they are unknown."""

    def poll(self) -> None:
        """Poll within a window, so that no wrap-around or stall is missed."""


class CounterReadings:
    """Readings of a counter whose slowest domain moves every `tick_s` seconds."""

    def __init__(self, counter: Counter, clock: Clock, tick_s: float) -> None:
        self._counter, self._clock, self.domains = counter, clock, counter.domains
        self._patience = max(STILL_S, STALL_TICKS * tick_s)
        self._last: tuple[float, ...] = ()
        self._moved: list[float] = []
        self.stalls = 0

    def mark(self) -> Mark:
        """Return the joules of each domain."""
        values, now = read_source(self._counter.read), self._clock.now()
        self._count_stalls(values, now)
        return values

    def poll(self) -> None:
        """Read the counter and discard the values."""
        self.mark()

    def _count_stalls(self, values: tuple[float, ...], now: float) -> None:
        """Count each time that a domain shows one value for longer than the patience."""
        last, moved = self._last or values, self._moved or [now] * len(values)
        stalled = [
            v == a and v > 0 and now - t > self._patience
            for v, a, t in zip(values, last, moved, strict=True)
        ]
        self._moved = [
            now if v != a or s else t
            for v, a, s, t in zip(values, last, stalled, moved, strict=True)
        ]
        self._last = values
        self.stalls += any(stalled)

    def between(self, began: Mark, ended: Mark) -> dict[str, float]:
        """Return the differences of two readings; raise ReadingLost if one fell."""
        differences = [b - a for a, b in zip(began, ended, strict=True)]
        if any(s < 0 for s in differences):
            raise ReadingLost("the counter fell")
        return dict(zip(self.domains, differences, strict=True))


class TraceReadings:
    """Readings of a trace; another device writes it, so there is nothing to poll."""

    stalls = 0

    def __init__(self, trace: Trace) -> None:
        self._trace, self.domains = trace, trace.domains

    def mark(self) -> Mark:
        """Return the time now."""
        return (self._trace.mark(),)

    def poll(self) -> None:
        """Do nothing."""

    def between(self, began: Mark, ended: Mark) -> dict[str, float]:
        """Return the joules of the trace between two marks; raise ReadingLost if it lacks them."""
        return dict(
            zip(self.domains, read_source(self._trace.between, began[0], ended[0]), strict=True)
        )


class SideReadings:
    """Readings shown beside the total; a failure becomes `reason` and the measurement goes on."""

    def __init__(self, source: Readings) -> None:
        self._readings, self.domains = source, source.domains
        self.reason: str | None = None

    def mark(self) -> Mark:
        """Return a mark; empty after a failure."""
        try:
            return self._readings.mark() if self.reason is None else ()
        except ReadingLost as error:
            self.reason = str(error)
            return ()

    def between(self, began: Mark, ended: Mark) -> dict[str, float]:
        """Return joules by domain; empty if either mark is missing."""
        try:
            return self._readings.between(began, ended) if began and ended else {}
        except ReadingLost as error:
            self.reason = str(error)
            return {}


def open_readings(source: Counter | Trace, clock: Clock, tick_s: float) -> Readings:
    """Return the readings of a counter or a trace."""
    return (
        TraceReadings(source)
        if isinstance(source, Trace)
        else CounterReadings(source, clock, tick_s)
    )


def find_ticks(counter: Counter, clock: Clock) -> dict[str, float]:
    """Return the seconds between changes of each domain that moves.

    Watches for 5 s, less once every domain has changed nine times; for 10 s if a domain has not
    changed twice; for 60 s if none has changed. Raises CounterStalled then.
    """
    started, changes_of, last = (
        clock.now(),
        [list[float]() for _ in counter.domains],
        read_source(counter.read),
    )
    while not _has_enough_changes(changes_of, clock.now() - started):
        clock.sleep(0.0002 if clock.now() - started < 1 else 0.002)
        values, now = read_source(counter.read), clock.now()
        for changes, old, value in zip(changes_of, last, values, strict=True):
            if value != old:
                changes.append(now)
        last = values
    if not any(changes_of):
        raise CounterStalled(f"{counter.name} did not move within {IDLE_BOUND_S:.0f} s")
    watched_s = clock.now() - started
    return {
        d: _tick(changes, watched_s)
        for d, changes in zip(counter.domains, changes_of, strict=True)
        if changes
    }


def _has_enough_changes(changes_of: Sequence[Sequence[float]], watched_s: float) -> bool:
    """Decide whether the changes so far determine the ticks."""
    counts = [len(times) for times in changes_of]
    if min(counts) >= CHANGES:
        return True
    bound = IDLE_BOUND_S if max(counts) == 0 else SLOW_S if min(counts) < 2 else WATCH_S
    return watched_s >= bound


def _tick(times: Sequence[float], watched_s: float) -> float:
    """Return the median gap between changes; of a single change, the whole time watched."""
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    return statistics.median(gaps) if gaps else watched_s


def stalled_domains(counter: Counter, ticks: dict[str, float]) -> list[LeftOut]:
    """List the domains that never moved while others did: their energy is unknown, not 0 J."""
    reason = f"it did not move within {SLOW_S:.0f} s: the machine shows it, but does not count it"
    return [LeftOut(name=d, reason=reason, missing=True) for d in counter.domains if d not in ticks]
