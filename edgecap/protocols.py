"""Protocols of the outside world; the tests have a deterministic stand-in for each.

`Engine` runs a graph, `Counter` reads energy (`Trace` is read afterwards), `Clock` has the time.
Meters see nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
Probe = Callable[[], None]  # runs one operator once, synchronised
Cache = Any  # state of an engine between steps; opaque to meters


class Clock(Protocol):
    """A monotonic clock."""

    def now(self) -> float:
        """Return seconds since an arbitrary origin."""

    def sleep(self, seconds: float) -> None:
        """Do nothing for `seconds`."""


class CounterHealth(NamedTuple):
    """Cost and losses of a counter since it was opened.

    `cpu_s` are CPU seconds of its own sampling thread. `gaps` counts samples more than three
    periods apart, `falls` readings that neither counting nor wrapping explains.
    """

    cpu_s: float = 0.0
    gaps: int = 0
    falls: int = 0


class Counter(Protocol):
    """An energy counter of one or more domains, none inside another, that may be added up.

    `scope` names the part of the machine: "processor" (packages and their memory), "nvidia" or
    "amd" (boards), "board" (a whole board or system on a chip), "machine" (all that the machine
    draws) or "platform" (what a vendor calls so; no total). `provenance` is "counter" (the device
    counts energy), "sampled" (power is integrated) or "assumed".
    """

    name: str
    domains: tuple[str, ...]
    scope: str
    provenance: str
    resolution_j: float

    def read(self) -> tuple[float, ...]:
        """Return joules of each domain since an arbitrary origin; they never fall.

        Raises OSError if the counter can no longer be read.
        """

    def health(self) -> CounterHealth:
        """Return its cost and losses so far."""

    def close(self) -> None:
        """Stop what it started."""


@runtime_checkable
class Trace(Protocol):
    """An energy record that another device writes, with its own clock; it is read at the end."""

    name: str
    domains: tuple[str, ...]
    scope: str
    provenance: str
    resolution_j: float
    period_s: float
    aligned: bool  # its clock is known; if not, call `align` first

    def mark(self) -> float:
        """Return the time in seconds since 1970, as the trace counts it."""

    def align(self, steps: Sequence[tuple[float, float]]) -> None:
        """Find the offset of its clock from `steps` of load, each with marks of begin and end.

        Raises OSError if the trace does not show them.
        """

    def between(self, began: float, ended: float) -> tuple[float, ...]:
        """Return joules of each domain between two marks.

        Raises OSError if the trace does not cover them.
        """

    def close(self) -> None:
        """Stop what it started."""


EnergySource = Counter | Trace


class Engine(Protocol):
    """One graph in one session on one execution provider.

    `launches` says whether a provider that records launches replays them, "" for other providers.
    """

    vocabulary: int
    load_s: float
    threads: int
    has_cache: bool
    launches: str

    def nll(self, inputs: Ids, targets: Ids) -> Floats:
        """Return -log2 p of each target in bits.

        `inputs`, `targets` and the result, float64, have shape (n,).
        """

    def log_probabilities(self, inputs: Ids, last: int | None = None) -> Floats:
        """Return log2 p of the token after each input, shape (n, vocabulary); for small samples.

        With `last`, only those after the last inputs are returned.
        """

    def outputs(self, inputs: Ids) -> list[Floats]:
        """Return all numeric outputs for a text of shape (n,), each of shape (rows, last axis)."""

    def log_probabilities_after(self, past: Ids, ids: Ids) -> list[Floats]:
        """Return log2 p of `ids`, decoded one by one behind `past`, each (1, vocabulary)."""

    def prefill(self, inputs: Ids) -> Cache:
        """Read a prompt of shape (n,) or (rows, n), synchronised; return its cache."""

    def decode(self, cache: Cache, tokens: int | Ids) -> Cache:
        """Decode one token a row, synchronised; return the cache, one position longer."""

    def relocated(self, cache: Cache) -> Cache:
        """Return a copy of a cache that steps write in place; return any other cache as it is."""

    def stop_replaying(self, reason: str) -> None:
        """Issue launches one by one from now on, which threads may do at once."""

    def cache_bytes(self, cache: Cache) -> int:
        """Return the bytes of a cache."""


class OverridableEngine(Engine, Protocol):
    """An engine whose next runs take tensors in place of stored ones of the same names."""

    overrides: dict[str, NDArray[np.float32]]


class Probes(Protocol):
    """Operators that measure the limits of a provider."""

    def gemm(self, precision: str, m: int, k: int, n: int) -> Probe:
        """Return a product of (m, k) and (k, n); raise if the provider cannot compute it."""

    def reads(self, size: int) -> Sequence[Probe]:
        """Return ways of reading `size` bytes once."""

    def copies(self, size: int) -> Sequence[Probe]:
        """Return ways of reading `size` bytes and writing as many."""
