"""Watts that the user gives (`--assume-watts`): joules are watts x seconds, marked everywhere, in no score."""

from __future__ import annotations

from collections.abc import Callable

from edgecap.protocols import CounterHealth


class AssumedCounter:
    """A constant power as a counter; see `seams.Counter`. `now` is a clock in seconds."""

    name = "assumed"
    domains: tuple[str, ...] = ("assumed",)
    scope = "machine"
    provenance = "assumed"
    resolution_j = 0.0

    def __init__(self, watts: float, now: Callable[[], float]) -> None:
        self._watts, self._now, self._origin = watts, now, now()

    def read(self) -> tuple[float, ...]:
        """Watts x seconds since it was made."""
        return (self._watts * (self._now() - self._origin),)

    def health(self) -> CounterHealth:
        """It costs and misses nothing."""
        return CounterHealth()

    def close(self) -> None:
        """Nothing was started."""
