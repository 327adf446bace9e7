"""Running totals of energy counters that never fall: wraps are undone, falls and leaps noted.

A reading below the last one is one of three things:

    wrap     the step over the end of the range is one the device can have used    added
    jitter   less than a joule below (processors read each other's registers)      ignored, noted
    reset    anything else (driver reloaded, machine suspended)                    restarted, noted

A reading further above the last one than the device can have used is a leap: restarted, noted.
Each noted event leads to a warning. The energy used around a reset is lost, never estimated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from edgecap.protocols import CounterHealth

MOST_W = 5000.0  # no board or machine measured here draws more
SLACK_J = 1000.0  # a slow counter may take this step at once
# The same for counters that wrap: a processor package, updated every millisecond.
WRAP_W, WRAP_SLACK_J = 1000.0, 10.0
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
        """Add a reading taken at `now` seconds, and return the total in joules.

        Raises OSError if the reading is not finite.
        """
        if not math.isfinite(raw):
            raise OSError(f"the counter answered {raw}")
        step, seconds = raw - self._last, now - self._then
        if -self._jitter <= step < 0:  # keep the last reading, or the way back would count again
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
    """Domains whose device counts energy; implements `protocols.Counter`.

    `raw` returns joules by domain as the device counts them; its exceptions become OSError.
    `wraps_j` are the joules at which each domain wraps, None if it does not.
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
            values = [float(v) for v in self._raw()]
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        if len(values) != len(self.domains):
            raise OSError(f"{len(values)} of {len(self.domains)} domains answered")
        return values

    def read(self) -> tuple[float, ...]:
        """Return the joules of each domain.

        Must be called more often than the device's counter wraps (minutes).
        """
        values, now = self._values(), self._now()
        return tuple(
            tally.add(value, now) for tally, value in zip(self._tallies, values, strict=True)
        )

    def health(self) -> CounterHealth:
        """Return the falls so far; a counting device costs no CPU time and has no gaps."""
        return CounterHealth(falls=sum(t.falls for t in self._tallies))

    def close(self) -> None:
        """Do nothing."""
