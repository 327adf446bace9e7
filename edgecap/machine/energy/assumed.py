"""Constant watts given by the user (`--assume-watts`); marked as assumed, and used in no score."""

from __future__ import annotations

from collections.abc import Callable

from edgecap.protocols import CounterHealth


class AssumedCounter:
    """A constant power as a counter; implements `protocols.Counter`. `now` returns seconds."""

    name = "assumed"
    domains: tuple[str, ...] = ("assumed",)
    scope = "machine"
    provenance = "assumed"
    resolution_j = 0.0

    def __init__(self, watts: float, now: Callable[[], float]) -> None:
        self._watts, self._now, self._origin = watts, now, now()

    def read(self) -> tuple[float, ...]:
        """Return watts x seconds since this counter was created."""
        return (self._watts * (self._now() - self._origin),)

    def health(self) -> CounterHealth:
        """Return zeros: nothing is sampled."""
        return CounterHealth()

    def close(self) -> None:
        """Do nothing."""
