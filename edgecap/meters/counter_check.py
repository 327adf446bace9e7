"""What a counter shows while the machine is idle and while it works: the proof that it counts."""

from __future__ import annotations

from collections.abc import Callable

from edgecap.protocols import Clock, Counter

SECONDS = 1.0


def measure_watts(
    counter: Counter, clock: Clock, work: Callable[[], None] | None = None
) -> dict[str, float]:
    """Watts by domain over a second of doing nothing, or of repeating `work`. Raises OSError as counters do."""
    before, started = counter.read(), clock.now()
    while clock.now() - started < SECONDS:
        if work:
            work()
        else:
            clock.sleep(SECONDS)
    after, seconds = counter.read(), clock.now() - started
    return {d: (b - a) / seconds for d, a, b in zip(counter.domains, before, after, strict=True)}
