"""Combine counters into one, with the domains of all."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.protocols import Counter, CounterHealth


class JoinedCounter:
    """Disjoint counters as one; implements `protocols.Counter`. Sampled if one of them is."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters
        self.name = " + ".join(dict.fromkeys(c.name for c in counters))
        self.scope = counters[0].scope
        self.domains = _unique([(c.name, d) for c in counters for d in c.domains])
        self.provenance = (
            "sampled"
            if any(c.provenance == "sampled" for c in counters)
            else counters[0].provenance
        )
        self.resolution_j = max(c.resolution_j for c in counters)

    def read(self) -> tuple[float, ...]:
        """Return the joules of each domain, in the order of the counters."""
        return tuple(joules for c in self._counters for joules in c.read())

    def health(self) -> CounterHealth:
        """Return the sums over all counters."""
        return CounterHealth(
            *(sum(column) for column in zip(*(c.health() for c in self._counters), strict=True))
        )

    def close(self) -> None:
        """Close all counters."""
        for counter in self._counters:
            counter.close()


def _unique(names: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return domain names; those that two counters share are prefixed with the counter's name."""
    domains = [d for _, d in names]
    return tuple(d if domains.count(d) == 1 else f"{c} {d}" for c, d in names)
