"""The cost of each limit: the winner without it and its gain. If nothing fits: the distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from edgecap.analysis.recommend.candidates import Considered, Held
from edgecap.analysis.recommend.limits import Limit, option_text

Key = Callable[[Considered], Any]  # sorts the best first


class Change(msgspec.Struct, frozen=True):
    """A metric of the winner (`kept`) and of the winner without the limit (`freed`).

    None stands for a value that was not measured.
    """

    metric: str
    kept: float | None
    freed: float | None


class LimitCost(msgspec.Struct, frozen=True):
    """A limit, the cell that would win without it, and the changes; none if the winner stays.

    Of several limits, the last entry is for all of them together: its `limit` is None.
    """

    limit: Limit | None
    winner: str
    changes: tuple[Change, ...] = ()


class Relaxed(msgspec.Struct, frozen=True):
    """A limit that a cell misses.

    `needed` is the cell's value and `over` its excess relative to the limit; None if not measured.
    `typed` is the option as a user would type it, or "without" it if it must be dropped.
    """

    limit: Limit
    needed: float | None
    over: float | None
    typed: str


class Relaxation(msgspec.Struct, frozen=True):
    """A cell, and the limits that must be relaxed for it."""

    name: str
    changes: tuple[Relaxed, ...]


def costs(
    cells: Sequence[Considered], limits: Sequence[Limit], key: Key, metrics: Sequence[str]
) -> tuple[LimitCost, ...]:
    """Return the cost of each limit, and of all together if there are several, in `metrics`.

    `key` sorts the cells, the best first. At least one cell must fit.
    """
    best = min((c for c in cells if c.fits()), key=key)
    by_limit = [
        _cost(limit, best, min((c for c in cells if c.fits(but=n)), key=key), metrics)
        for n, limit in enumerate(limits)
    ]
    if len(limits) < 2:
        return tuple(by_limit)
    return *by_limit, _cost(None, best, min((c for c in cells if c.measured), key=key), metrics)


def _cost(
    limit: Limit | None, best: Considered, freed: Considered, metrics: Sequence[str]
) -> LimitCost:
    if freed is best:
        return LimitCost(limit, best.candidate.name)
    changes = (Change(name, best.figure(name), freed.figure(name)) for name in metrics)
    measured = tuple(c for c in changes if (c.kept, c.freed) != (None, None))
    return LimitCost(limit, freed.candidate.name, measured)


def nearest(cells: Sequence[Considered], key: Key) -> Considered | None:
    """Return the cell with the least excess over a limit, of those with all limited metrics."""
    known = [
        c for c in cells if c.measured and all(h.state != "not measured" for h in c.candidate.held)
    ]
    return min(known, key=lambda c: (c.over, key(c)), default=None)


def relaxations(
    cells: Sequence[Considered], limits: Sequence[Limit], key: Key
) -> tuple[Relaxation, ...]:
    """Return the ways to let a cell in: all limits that the nearest misses, then single limits."""
    near = nearest(cells, key)
    ways = [_relaxation(near, limits)] if near else []
    for n in range(len(limits)):
        misses_only_this = [c for c in cells if c.fits(but=n)]
        measured = [c for c in misses_only_this if c.candidate.held[n].value is not None]
        if misses_only_this:
            admitted = min(measured or misses_only_this, key=lambda c: (c.over, key(c)))
            ways.append(_relaxation(admitted, limits))
    return tuple(dict.fromkeys(ways))


def _relaxation(cell: Considered, limits: Sequence[Limit]) -> Relaxation:
    pairs = zip(limits, cell.candidate.held, strict=True)
    relaxed = tuple(_relaxed(limit, held) for limit, held in pairs if held.state != "met")
    return Relaxation(cell.candidate.name, relaxed)


def _relaxed(limit: Limit, held: Held) -> Relaxed:
    words = f"without {limit.option}" if held.value is None else option_text(limit, held.value)
    return Relaxed(limit, held.value, held.over, words)
