"""The protocols through which the world is touched; each has a deterministic stand-in in the tests.

`Engine` runs a graph, `Counter` reads energy (a `Trace` is read afterwards), `Clock` tells the time. Meters see nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
Probe = Callable[[], None]  # runs one operator once, synchronised
Cache = Any  # whatever an engine keeps between steps; opaque to meters


class Clock(Protocol):
    """A monotonic clock."""

    def now(self) -> float:
        """Seconds since an arbitrary origin."""

    def sleep(self, seconds: float) -> None:
        """Do nothing for `seconds`."""


class CounterHealth(NamedTuple):
    """What a counter cost and what it missed since it was opened.

    `cpu_s` are CPU seconds of its own sampling thread, `gaps` the times when two samples lay more than
    three periods apart, `falls` the readings that neither counting nor wrapping explains.
    """

    cpu_s: float = 0.0
    gaps: int = 0
    falls: int = 0


class Counter(Protocol):
    """An energy counter of one or more domains, none inside another, that may be added up.

    `scope` says what they are part of: "processor" (packages and their memory), "nvidia" or "amd" (boards),
    "board" (a whole board or system on a chip), "machine" (all that the machine draws) or "platform" (what a
    vendor calls so; no total).
    """

    name: str
    domains: tuple[str, ...]
    scope: str
    provenance: (
        str  # "counter": the device counts energy; "sampled": power was integrated; "assumed"
    )
    resolution_j: float

    def read(self) -> tuple[float, ...]:
        """Joules of each domain since an arbitrary origin; never falls.

        Raises OSError if the counter can no longer be read.
        """

    def health(self) -> CounterHealth:
        """What it cost and missed so far."""

    def close(self) -> None:
        """Stop what it started."""


@runtime_checkable
class Trace(Protocol):
    """An energy record that another device writes, with its own clock; it is asked when all is over."""

    name: str
    domains: tuple[str, ...]
    scope: str
    provenance: str
    resolution_j: float
    period_s: float
    aligned: bool  # whether its clock is known; if not, `align` must be called first

    def mark(self) -> float:
        """Now, as the trace counts time: seconds since 1970."""

    def align(self, steps: Sequence[tuple[float, float]]) -> None:
        """Find its clock's offset from known `steps` of load (marks of begin and end); OSError if they do not show."""

    def between(self, began: float, ended: float) -> tuple[float, ...]:
        """Joules of each domain between two marks; OSError where the trace does not cover them."""

    def close(self) -> None:
        """Stop what it started."""


EnergySource = Counter | Trace


class Engine(Protocol):
    """One graph in one session on one execution provider."""

    vocabulary: int
    load_s: float
    threads: int
    has_cache: bool

    def nll(self, inputs: Ids, targets: Ids) -> Floats:
        """-log2 p of each target; `inputs`, `targets` and the result have shape (n,), bits in float64."""

    def log_probabilities(self, inputs: Ids) -> Floats:
        """log2 p, shape (n, vocabulary), of the token after each input; for small samples only."""

    def outputs(self, inputs: Ids) -> list[Floats]:
        """All outputs of numbers for one text, shape (n,), each of shape (rows, width of its last axis)."""

    def log_probabilities_after(self, past: Ids, ids: Ids) -> list[Floats]:
        """The same, shapes (1, vocabulary), of `ids` that are decoded one by one behind `past`."""

    def prefill(self, inputs: Ids) -> Cache:
        """Read a prompt, shape (n,) or (rows, n), synchronised; returns the cache of n positions."""

    def decode(self, cache: Cache, tokens: int | Ids) -> Cache:
        """Decode one token after `cache`, one a row of it, synchronised; returns the cache one position longer."""

    def relocated(self, cache: Cache) -> Cache:
        """The same cache in other memory, where it is held in memory that steps write in place; else itself."""

    def cache_bytes(self, cache: Cache) -> int:
        """Bytes that a cache holds."""


class Probes(Protocol):
    """Operators that ask a provider for its limits."""

    def gemm(self, precision: str, m: int, k: int, n: int) -> Probe:
        """A product of (m, k) and (k, n); raises where the provider has none in that precision."""

    def reads(self, size: int) -> Sequence[Probe]:
        """Ways of reading `size` bytes once."""

    def copies(self, size: int) -> Sequence[Probe]:
        """Ways of reading `size` bytes and writing as many."""
