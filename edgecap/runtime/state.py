"""Keys and values between steps: as the runtime returned them, or in memory that steps write in place. Pure.

Where a graph takes its past and gives its present in the same memory (GroupQueryAttention), a step writes one
position instead of copying all. Positions behind a cache's length are then whatever was written last, so that a
cache stays good as long as no other continuation of an earlier one was decoded in the same memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from edgecap.errors import EdgecapError
from edgecap.protocols import Ids

HEADROOM = 64  # positions kept free behind a prompt


class StaleCache(EdgecapError):
    """Another continuation was written over what this cache refers to."""


class KvCache(NamedTuple):
    """Past keys and values as runtime values by input name, and the positions they cover.

    A graph without cache has the `ids` so far instead, shape (rows, n), and reads them all again for each token.
    In a `room`, `serial` says which continuation of it this is.
    """

    values: dict[str, Any]
    length: int
    ids: Ids | None = None
    room: Room | None = None
    serial: int = 0


class Room:
    """Memory for `capacity` positions, written by one chain of steps; a step may begin again at any earlier one.

    `bound` is where an engine keeps what it binds once for the whole chain.
    """

    def __init__(self, values: dict[str, Any], capacity: int) -> None:
        self.values, self.capacity = values, capacity
        self.bound: Any = None
        self._serials: list[int] = [0]  # by length: the continuation that ended there
        self._made = 0

    def begin(self) -> KvCache:
        """An empty cache."""
        return KvCache(self.values, 0, room=self)

    def check(self, cache: KvCache) -> None:
        """Raises StaleCache where other positions were written over those of a cache."""
        if self._serials[cache.length : cache.length + 1] != [cache.serial]:
            raise StaleCache(
                "this cache was written over: two continuations cannot be decoded in turns from one cache"
            )

    def after(self, cache: KvCache, positions: int) -> KvCache:
        """The cache that a step of so many positions makes."""
        self._made += 1
        length = cache.length + positions
        self._serials[cache.length + 1 :] = [-1] * (positions - 1) + [self._made]
        return KvCache(self.values, length, room=self, serial=self._made)

    def larger(
        self, cache: KvCache, positions: int, make: Callable[[int], dict[str, Any]]
    ) -> KvCache:
        """The same cache in a room of twice the size, or more; `make` is given a capacity and copies what is there."""
        return self.moved(cache, max(2 * self.capacity, cache.length + positions + HEADROOM), make)

    def moved(
        self, cache: KvCache, capacity: int, make: Callable[[int], dict[str, Any]]
    ) -> KvCache:
        """The same cache in another room."""
        self.check(cache)
        room = Room(make(capacity), capacity)
        return room.after(room.begin(), cache.length) if cache.length else room.begin()
