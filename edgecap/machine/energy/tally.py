"""Running totals of energy counters: wrap-around taken out, falls and leaps noticed, never a step back.

A reading below the last one is one of three things:

    a wrap    the way over the top of the range is what the device can have used   added
    a jitter  less than a joule below (processors read each other's registers)     nothing added, noted
    a reset   anything else (driver reloaded, machine suspended)                   counted anew, noted

A reading further above the last one than the device can have used is a leap: counted anew, noted.
What is noted becomes a caution; what was used around a reset is lost and never guessed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from edgecap.protocols import CounterHealth

MOST_W = 5000.0  # no board or machine measured here draws more
SLACK_J = 1000.0  # a step of a slow counter may be read at once
WRAP_W, WRAP_SLACK_J = (
    1000.0,
    10.0,
)  # the same for what wraps: a processor package, renewed every millisecond
JITTER_J = 1.0


class DomainTotal:
    """The total of one domain in joules, from raw readings in joules that wrap at `wrap_j`."""

    def __init__(
        self,
        raw: float,
        now: float,
        wrap_j: float | None = None,
        slack_j: float = SLACK_J,
        jitter_j: float = JITTER_J,
    ) -> None:
        self._last, self._then, self._wrap, self._slack = raw, now, wrap_j, slack_j
        self._jitter = min(jitter_j, wrap_j / 20) if wrap_j else jitter_j
        self.total, self.falls = 0.0, 0

    def add(self, raw: float, now: float) -> float:
        """The total after one more reading at `now` seconds."""
        if not math.isfinite(raw):
            raise OSError(f"the counter answered {raw}")
        step, seconds = raw - self._last, now - self._then
        if (
            -self._jitter <= step < 0
        ):  # the mark stays where it was, or the way back would be counted again
            self.falls += 1
            return self.total
        if step < 0 and self._wrap and step + self._wrap <= WRAP_W * seconds + WRAP_SLACK_J:
            step += self._wrap
        if 0 <= step <= MOST_W * seconds + self._slack:
            self.total += step
        else:
            self.falls += 1
        self._last, self._then = raw, now
        return self.total


class CumulativeCounter:
    """Domains whose device counts energy; see `seams.Counter`.

    `raw` gives joules by domain as the device has them; its errors, of whatever library, become OSError.
    """

    provenance = "counter"

    def __init__(
        self,
        name: str,
        scope: str,
        domains: Sequence[str],
        raw: Callable[[], Sequence[float]],
        resolution_j: float,
        wraps_j: Sequence[float | None] | None = None,
        slack_j: float = SLACK_J,
        jitter_j: float = JITTER_J,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.scope, self.domains, self.resolution_j = (
            name,
            scope,
            tuple(domains),
            resolution_j,
        )
        self._raw, self._now = raw, now
        values = self._values()
        wraps = wraps_j or [None] * len(values)
        self._tallies = [
            DomainTotal(v, now(), w, slack_j, jitter_j) for v, w in zip(values, wraps, strict=True)
        ]

    def _values(self) -> list[float]:
        try:
            found = [float(v) for v in self._raw()]
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        if len(found) != len(self.domains):
            raise OSError(f"{len(found)} of {len(self.domains)} domains answered")
        return found

    def read(self) -> tuple[float, ...]:
        """Joules of each domain. Read it more often than the device's counter wraps (minutes)."""
        values, now = self._values(), self._now()
        return tuple(
            tally.add(value, now) for tally, value in zip(self._tallies, values, strict=True)
        )

    def health(self) -> CounterHealth:
        """The falls so far; a counter that counts by itself costs and misses nothing."""
        return CounterHealth(falls=sum(t.falls for t in self._tallies))

    def close(self) -> None:
        """Nothing was started."""
