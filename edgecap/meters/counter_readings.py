"""Counters and traces read alike: marks while the work runs, joules between two marks when it is over.

A counter is read at every mark; a trace only remembers the time and is asked afterwards. Between the ends of
a window a counter is read now and then, so that none wraps unseen and one that stands still is noticed.
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
    """A counter or trace can no longer be read; work that fails with an error of its own is another matter."""


Result = TypeVar("Result")


def read_source(question: Callable[..., Result], *about: Any) -> Result:
    """What a counter or trace answers; `ReadingLost` where it raises OSError."""
    try:
        return question(*about)
    except OSError as error:
        raise ReadingLost(str(error)) from error


class Readings(Protocol):
    """A source of joules by domain, whatever it is behind."""

    domains: tuple[str, ...]
    stalls: int  # times when a domain that moves was seen to stand still

    def mark(self) -> Mark:
        """Where the source is now."""

    def between(self, began: Mark, ended: Mark) -> dict[str, float]:
        """Joules by domain between two marks; `ReadingLost` if it cannot be told."""

    def look(self) -> None:
        """Read in the middle of a window, so that nothing wraps or stands still unseen."""


class CounterReadings:
    """Readings of a counter whose slowest domain moves every `tick_s`."""

    def __init__(self, counter: Counter, clock: Clock, tick_s: float) -> None:
        self._counter, self._clock, self.domains = counter, clock, counter.domains
        self._patience = max(STILL_S, STALL_TICKS * tick_s)
        self._last: tuple[float, ...] = ()
        self._moved: list[float] = []
        self.stalls = 0

    def mark(self) -> Mark:
        """Joules now."""
        values, now = read_source(self._counter.read), self._clock.now()
        self._note(values, now)
        return values

    def look(self) -> None:
        """A mark that nobody keeps."""
        self.mark()

    def _note(self, values: tuple[float, ...], now: float) -> None:
        """Counts a domain that has shown one number for longer than `patience`, once for each such time."""
        last, moved = self._last or values, self._moved or [now] * len(values)
        still = [
            v == a and v > 0 and now - t > self._patience
            for v, a, t in zip(values, last, moved, strict=True)
        ]
        self._moved = [
            now if v != a or s else t for v, a, s, t in zip(values, last, still, moved, strict=True)
        ]
        self._last = values
        self.stalls += any(still)

    def between(self, began: Mark, ended: Mark) -> dict[str, float]:
        """Differences of two readings."""
        steps = [b - a for a, b in zip(began, ended, strict=True)]
        if any(s < 0 for s in steps):
            raise ReadingLost("the counter fell")
        return dict(zip(self.domains, steps, strict=True))


class TraceReadings:
    """Readings of a trace; there is nothing to look at while it is written elsewhere."""

    stalls = 0

    def __init__(self, trace: Trace) -> None:
        self._trace, self.domains = trace, trace.domains

    def mark(self) -> Mark:
        """The moment."""
        return (self._trace.mark(),)

    def look(self) -> None:
        """Nothing."""

    def between(self, began: Mark, ended: Mark) -> dict[str, float]:
        """What the trace says of the time between."""
        return dict(
            zip(self.domains, read_source(self._trace.between, began[0], ended[0]), strict=True)
        )


class SideReadings:
    """Readings that are only shown: where they fail, the measurement goes on, and the reason is kept."""

    def __init__(self, source: Readings) -> None:
        self._readings, self.domains = source, source.domains
        self.reason: str | None = None

    def mark(self) -> Mark:
        """Where the source is now; nowhere once it has failed."""
        try:
            return self._readings.mark() if self.reason is None else ()
        except ReadingLost as error:
            self.reason = str(error)
            return ()

    def between(self, began: Mark, ended: Mark) -> dict[str, float]:
        """Joules by domain; none where either mark is missing."""
        try:
            return self._readings.between(began, ended) if began and ended else {}
        except ReadingLost as error:
            self.reason = str(error)
            return {}


def open_readings(source: Counter | Trace, clock: Clock, tick_s: float) -> Readings:
    """A source of either kind."""
    return (
        TraceReadings(source)
        if isinstance(source, Trace)
        else CounterReadings(source, clock, tick_s)
    )


def find_ticks(counter: Counter, clock: Clock) -> dict[str, float]:
    """Seconds between changes of each domain that moves, found by watching for as long as it takes.

    Five seconds, less once every domain has changed nine times; ten where some domain has not changed twice;
    a minute where none has moved at all. Raises `CounterStalled` then.
    """
    started, changes, last = (
        clock.now(),
        [list[float]() for _ in counter.domains],
        read_source(counter.read),
    )
    while not _seen_enough(changes, clock.now() - started):
        clock.sleep(0.0002 if clock.now() - started < 1 else 0.002)
        values, now = read_source(counter.read), clock.now()
        for seen, before, value in zip(changes, last, values, strict=True):
            if value != before:
                seen.append(now)
        last = values
    if not any(changes):
        raise CounterStalled(f"{counter.name} did not move within {IDLE_BOUND_S:.0f} s")
    watched = clock.now() - started
    return {
        d: _tick(seen, watched) for d, seen in zip(counter.domains, changes, strict=True) if seen
    }


def _seen_enough(changes: Sequence[Sequence[float]], watched: float) -> bool:
    counts = [len(seen) for seen in changes]
    if min(counts) >= CHANGES:
        return True
    bound = IDLE_BOUND_S if max(counts) == 0 else SLOW_S if min(counts) < 2 else WATCH_S
    return watched >= bound


def _tick(seen: Sequence[float], watched: float) -> float:
    """The median gap; of a domain that changed once, all the time that it was watched."""
    gaps = [b - a for a, b in zip(seen, seen[1:], strict=False)]
    return statistics.median(gaps) if gaps else watched


def stalled_domains(counter: Counter, ticks: dict[str, float]) -> list[LeftOut]:
    """Domains that never moved while others did: nothing is known of them, which is not 0 J."""
    reason = f"it did not move within {SLOW_S:.0f} s: the machine shows it, but does not count it"
    return [LeftOut(name=d, reason=reason, missing=True) for d in counter.domains if d not in ticks]
