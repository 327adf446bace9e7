"""The protocols through which the world is touched; each has a deterministic stand-in in the tests.

`Engine` runs a graph, `Counter` reads energy, `Clock` tells the time. Meters see nothing else.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
Cache = Any  # whatever an engine keeps between steps; opaque to meters


class Clock(Protocol):
    """A monotonic clock."""

    def now(self) -> float:
        """Seconds since an arbitrary origin."""

    def sleep(self, seconds: float) -> None:
        """Do nothing for `seconds`."""


class Counter(Protocol):
    """An energy counter of one or more domains that are added up."""

    name: str
    domains: tuple[str, ...]
    provenance: str
    resolution_j: float

    def read(self) -> float:
        """Joules since an arbitrary origin, over all domains; never falls.

        Raises OSError if the counter can no longer be read.
        """


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

    def prefill(self, inputs: Ids) -> Cache:
        """Read a prompt, shape (n,), synchronised; returns the cache of n positions."""

    def decode(self, cache: Cache, token: int) -> Cache:
        """Decode one token after `cache`, synchronised; returns the cache one position longer."""

    def cache_bytes(self, cache: Cache) -> int:
        """Bytes that a cache holds."""
