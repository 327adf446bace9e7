"""KV caches between steps: as the runtime returned them, or in a buffer that steps write in place.

Where a graph can take its past and return its present in the same memory (GroupQueryAttention), a
step writes one position instead of copying all of them. Positions beyond a cache's length then hold
whatever was written last, so a cache stays valid until another continuation of an earlier cache is
decoded in the same memory. Runtime values are opaque here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from edgecap.errors import EdgecapError
from edgecap.protocols import Ids

HEADROOM = 64  # positions kept free after a prompt


class StaleCache(EdgecapError):
    """Another continuation has overwritten positions of this cache."""


class KvCache(NamedTuple):
    """Past keys and values as runtime values by input name, and the number of positions they cover.

    A graph without a cache stores the `ids` so far instead, shape (rows, n), and reads all of them
    again for each token. With a `buffer`, `serial` identifies the continuation within it.
    """

    values: dict[str, Any]
    length: int
    ids: Ids | None = None
    buffer: CacheBuffer | None = None
    serial: int = 0


class CacheBuffer:
    """Memory for `capacity` positions, written by one chain of steps that can restart anywhere.

    An engine stores in `bound` the I/O binding that it makes once for the whole chain, and in
    `replays` its recorded runs by their number of new positions.
    """

    def __init__(
        self, values: dict[str, Any], capacity: int, replays: dict[int, Any] | None = None
    ) -> None:
        self.values, self.capacity = values, capacity
        self.replays: dict[int, Any] = {} if replays is None else replays
        self.bound: Any = None
        self._serials: list[int] = [0]  # by length: the continuation that ended there
        self._last_serial = 0

    def empty_cache(self) -> KvCache:
        """Return a cache of no positions in this buffer."""
        return KvCache(self.values, 0, buffer=self)

    def check_current(self, cache: KvCache) -> None:
        """Raise StaleCache if positions of the cache have been overwritten."""
        if self._serials[cache.length : cache.length + 1] != [cache.serial]:
            raise StaleCache(
                "this cache was overwritten: two continuations of one cache cannot be decoded in "
                "turns; decode one after the other, or prefill again"
            )

    def advance(self, cache: KvCache, positions: int) -> KvCache:
        """Return the cache after a step that wrote so many positions."""
        self._last_serial += 1
        length = cache.length + positions
        self._serials[cache.length + 1 :] = [-1] * (positions - 1) + [self._last_serial]
        return KvCache(self.values, length, buffer=self, serial=self._last_serial)

    def grow(
        self, cache: KvCache, positions: int, allocate: Callable[[int], dict[str, Any]]
    ) -> KvCache:
        """Move the cache to a buffer of at least twice the capacity, and room for `positions`.

        `allocate` takes a capacity, and returns new values with the cache's content copied in.
        """
        capacity = max(2 * self.capacity, cache.length + positions + HEADROOM)
        return self.move(cache, capacity, allocate)

    def move(
        self, cache: KvCache, capacity: int, allocate: Callable[[int], dict[str, Any]]
    ) -> KvCache:
        """Return the same cache in a new buffer; see `grow` for `allocate`."""
        self.check_current(cache)
        buffer = CacheBuffer(allocate(capacity), capacity)
        empty = buffer.empty_cache()
        return buffer.advance(empty, cache.length) if cache.length else empty
