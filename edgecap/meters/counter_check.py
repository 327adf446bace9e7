"""Average power while the machine is idle or works: a check that a counter counts."""

from __future__ import annotations

from collections.abc import Callable

from edgecap.protocols import Clock, Counter

SECONDS = 1.0


def measure_watts(
    counter: Counter, clock: Clock, work: Callable[[], None] | None = None
) -> dict[str, float]:
    """Return watts by domain over a second of idling, or of repeating `work`.

    Raises OSError if the counter can no longer be read.
    """
    before, started = counter.read(), clock.now()
    while clock.now() - started < SECONDS:
        if work:
            work()
        else:
            clock.sleep(SECONDS)
    after, seconds = counter.read(), clock.now() - started
    return {d: (b - a) / seconds for d, a, b in zip(counter.domains, before, after, strict=True)}
