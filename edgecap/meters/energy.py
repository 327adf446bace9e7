"""Joules of prefill and decode, in windows as long as the counter needs.

    idle | prefill window x 3 | decode window x 3 | idle
    2 s  | >= 2 s, 100 ticks  | >= 2 s, 100 ticks | 2 s

The counter's tick is found by watching it. A window is gross: idle power is measured before and
after and kept beside it, subtracted from nothing. Prefill and decode have windows of their own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from edgecap.record import Absent, Energy, Window
from edgecap.seams import Clock, Counter

WINDOWS, MIN_SECONDS, MIN_TICKS, IDLE_SECONDS = 3, 2.0, 100, 2.0


def measure_energy(
    counter: Counter,
    clock: Clock,
    prefill: Callable[[], int],
    decode: Callable[[], int],
    progress: Callable[[int, int], None],
) -> Energy | Absent:
    """`prefill` and `decode` each do some work and return its tokens.

    Absent, with what happened, where the counter stands still or dies.
    """
    try:
        tick = find_tick(counter, clock)
        if tick is None:
            return Absent(reason=f"{counter.name} did not move within 5 s")
        length = max(MIN_SECONDS, MIN_TICKS * tick)
        before = _idle(counter, clock)
        windows = []
        for number, work in enumerate([prefill] * WINDOWS + [decode] * WINDOWS):
            progress(number, 2 * WINDOWS)
            windows.append(_window(counter, clock, work, length))
        after = _idle(counter, clock)
        if not all(w.joules > 0 for w in windows):
            return Absent(reason=f"{counter.name} stood still during a window")
    except OSError as error:
        return Absent(reason=f"{counter.name} could no longer be read: {error}")
    return Energy(
        counter=counter.name,
        domains=counter.domains,
        provenance=counter.provenance,
        tick_s=tick,
        resolution_j=counter.resolution_j,
        idle_w=(before, after),
        prefill=tuple(windows[:WINDOWS]),
        decode=tuple(windows[WINDOWS:]),
    )


def find_tick(counter: Counter, clock: Clock) -> float | None:
    """Median seconds between changes of the counter, watched for 8 changes or 5 s; None if it stands still."""
    started, last, changes = clock.now(), counter.read(), list[float]()
    while clock.now() - started < 5 and len(changes) < 9:
        clock.sleep(0.0002)
        value = counter.read()
        if value != last:
            changes.append(clock.now())
            last = value
    gaps = [b - a for a, b in zip(changes, changes[1:], strict=False)]
    return statistics.median(gaps) if gaps else None


def _idle(counter: Counter, clock: Clock) -> float:
    """Watts with nothing running."""
    before, started = counter.read(), clock.now()
    clock.sleep(IDLE_SECONDS)
    return (counter.read() - before) / (clock.now() - started)


def _window(counter: Counter, clock: Clock, work: Callable[[], int], length: float) -> Window:
    tokens, before, started = 0, counter.read(), clock.now()
    while clock.now() - started < length:
        tokens += work()
    return Window(joules=counter.read() - before, seconds=clock.now() - started, tokens=tokens)
