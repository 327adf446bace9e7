"""What each limit costs: who would win without it, and how much better the figures would be. Nothing fits: how near."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from edgecap.analysis.recommend.candidates import Considered
from edgecap.analysis.recommend.limits import Limit, typed

Key = Callable[[Considered], Any]


class Change(msgspec.Struct, frozen=True):
    """A figure of the winner, and of the cell that would win without the limit; None where it was not measured."""

    metric: str
    kept: float | None
    freed: float | None


class LimitCost(msgspec.Struct, frozen=True):
    """A limit, the cell that would win without it (the others kept), and what that changes; nothing where none would.

    The last of several is of all limits together: its `limit` is None.
    """

    limit: Limit | None
    winner: str
    changes: tuple[Change, ...] = ()


class Relaxed(msgspec.Struct, frozen=True):
    """A limit that a cell misses: `needed` is what it takes, `over` how far that is above; None where not measured.

    `typed` is the option as it could be typed, or with "without" where it must be dropped.
    """

    limit: Limit
    needed: float | None
    over: float | None
    typed: str


class Relaxation(msgspec.Struct, frozen=True):
    """A cell, and the limits that must give way for it."""

    name: str
    changes: tuple[Relaxed, ...]


def costs(
    everything: Sequence[Considered], limits: Sequence[Limit], key: Key, told: Sequence[str]
) -> tuple[LimitCost, ...]:
    """For every limit, and for all of several, the winner without; `told` are the figures that are compared."""
    best = min((c for c in everything if c.fits()), key=key)
    found = [
        _cost(limit, best, min((c for c in everything if c.fits(but=n)), key=key), told)
        for n, limit in enumerate(limits)
    ]
    if len(limits) > 1:
        found.append(_cost(None, best, min((c for c in everything if c.measured), key=key), told))
    return tuple(found)


def _cost(
    limit: Limit | None, best: Considered, freed: Considered, told: Sequence[str]
) -> LimitCost:
    if freed is best:
        return LimitCost(limit, best.candidate.name)
    changes = (Change(name, best.figure(name), freed.figure(name)) for name in told)
    return LimitCost(
        limit, freed.candidate.name, tuple(c for c in changes if (c.kept, c.freed) != (None, None))
    )


def nearest(everything: Sequence[Considered], key: Key) -> Considered | None:
    """The cell whose worst figure is the least above its limit, of those with all figures; None where there is none."""
    known = [
        c
        for c in everything
        if c.measured and all(h.state != "not measured" for h in c.candidate.held)
    ]
    return min(known, key=lambda c: (c.over, key(c)), default=None)


def relaxations(
    everything: Sequence[Considered], limits: Sequence[Limit], key: Key
) -> tuple[Relaxation, ...]:
    """What would let something in: what the nearest cell takes, then each limit alone where that is enough."""
    near = nearest(everything, key)
    found = [_relaxation(near, limits)] if near else []
    for n in range(len(limits)):
        alone = [c for c in everything if c.fits(but=n)]
        measured = [c for c in alone if c.candidate.held[n].value is not None]
        if measured or alone:
            lets = min(measured or alone, key=lambda c: (c.over, key(c)))
            found.append(_relaxation(lets, limits))
    return tuple(dict.fromkeys(found))


def _relaxation(found: Considered, limits: Sequence[Limit]) -> Relaxation:
    held = [
        (limit, h)
        for limit, h in zip(limits, found.candidate.held, strict=True)
        if h.state != "met"
    ]
    return Relaxation(
        found.candidate.name,
        tuple(
            Relaxed(
                limit,
                h.value,
                h.over,
                f"without {limit.option}" if h.value is None else typed(limit, h.value),
            )
            for limit, h in held
        ),
    )
