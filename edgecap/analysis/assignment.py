"""Choose a format for each group of matrices: least divergence within bytes and seconds.

What groups lose adds up: rounding one hardly changes what rounding another costs. So each group
contributes the divergence, bytes and seconds of its own format, and the best choice is a knapsack
with one item of each group. Bytes are counted in steps of a limit; a limit of seconds is a price of
seconds, the lowest one that meets it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

_BINS = 8192  # steps of a limit
_HALVINGS = 40  # of the search for a price
_LARGEST = 1e6  # price of all seconds, in bits of divergence


class FormatCost(msgspec.Struct, frozen=True):
    """Costs of a group of matrices in one format, by its code.

    `divergence_bits` is a token's from fp32 with this group alone rounded, `seconds` the time of
    its products in a decoded token.
    """

    format: str
    divergence_bits: float
    bytes: int
    seconds: float


class GroupChoices(msgspec.Struct, frozen=True):
    """A group of matrices, and the formats that it may have, from large to small."""

    name: str
    matrices: tuple[str, ...]
    formats: tuple[FormatCost, ...]


class Limits(NamedTuple):
    """Upper limits of an assignment; inf where there is none."""

    bytes: float = math.inf
    seconds: float = math.inf


class Assignment(NamedTuple):
    """The format of each group, in the order of the groups, and the sums of their costs."""

    choices: tuple[FormatCost, ...]

    @property
    def divergence_bits(self) -> float:
        """Predicted divergence from fp32, in bits a token."""
        return sum(c.divergence_bits for c in self.choices)

    @property
    def bytes(self) -> int:
        """Bytes of all groups."""
        return sum(c.bytes for c in self.choices)

    @property
    def seconds(self) -> float:
        """Seconds of all products of a decoded token."""
        return sum(c.seconds for c in self.choices)

    def within(self, limits: Limits) -> bool:
        """Test whether the assignment meets the limits."""
        return self.bytes <= limits.bytes and self.seconds <= limits.seconds


def assign(groups: Sequence[GroupChoices], limits: Limits) -> Assignment | None:
    """Return the assignment with the least divergence within limits, or None if none meets them."""
    longest = sum(max(c.seconds for c in g.formats) for g in groups) or 1.0

    def at(price: float) -> Assignment | None:
        def value(c: FormatCost) -> float:
            return c.divergence_bits + price * c.seconds / longest

        return _cheapest(groups, value, lambda c: c.bytes, limits.bytes)

    def fits(price: float) -> bool:
        found = at(price)
        return found is not None and found.seconds <= limits.seconds

    if fits(0.0):
        return at(0.0)
    return at(_lowest(fits)) if fits(_LARGEST) else None


def assign_quality(groups: Sequence[GroupChoices], most_bits: float) -> Assignment | None:
    """Return the smallest assignment whose predicted divergence is at most `most_bits`, or None."""
    return _cheapest(groups, lambda c: c.bytes, lambda c: c.divergence_bits, most_bits)


def sum_of(groups: Sequence[GroupChoices], formats: Mapping[str, str]) -> Assignment | None:
    """Return the assignment with a format, by its code, for each group, by its name.

    Returns None if a group cannot have its format.
    """
    chosen = [next((c for c in g.formats if c.format == formats[g.name]), None) for g in groups]
    return Assignment(tuple(c for c in chosen if c)) if all(chosen) else None


def _cheapest(
    groups: Sequence[GroupChoices],
    value: Callable[[FormatCost], float],
    cost: Callable[[FormatCost], float],
    limit: float,
) -> Assignment | None:
    """Return one format of each group with the least sum of values, costs within a limit.

    Costs above the least of their group are rounded up to steps of what the limit leaves.
    """
    least = [min(cost(c) for c in g.formats) for g in groups]
    if math.isinf(limit):
        return Assignment(tuple(min(g.formats, key=value) for g in groups))
    left = limit - sum(least)
    if left < 0:
        return None
    step = left / _BINS

    def steps_of(c: FormatCost, smallest: float) -> int:
        extra = cost(c) - smallest
        if extra > left:
            return _BINS + 1
        return math.ceil(extra / step - 1e-9) if extra > 0 else 0

    best = np.zeros(_BINS + 1)  # least sum of values of the groups so far, by steps that are left
    picks = []
    for group, smallest in zip(groups, least, strict=True):
        sums = np.full((len(group.formats), _BINS + 1), np.inf)
        for n, c in enumerate(group.formats):
            steps = steps_of(c, smallest)
            if steps <= _BINS:
                sums[n, steps:] = best[: _BINS + 1 - steps] + value(c)
        picks.append(sums.argmin(axis=0))
        best = sums.min(axis=0)
    chosen, steps = [], _BINS
    for group, smallest, pick in reversed(list(zip(groups, least, picks, strict=True))):
        c = group.formats[pick[steps]]
        chosen.append(c)
        steps -= steps_of(c, smallest)
    return _improved(groups, Assignment(tuple(reversed(chosen))), value, cost, limit)


def _improved(
    groups: Sequence[GroupChoices],
    start: Assignment,
    value: Callable[[FormatCost], float],
    cost: Callable[[FormatCost], float],
    limit: float,
) -> Assignment:
    """Spend what rounding to steps left of the limit on single changes, the best first."""
    choices = list(start.choices)
    while True:
        left = limit - sum(cost(c) for c in choices)
        gains = [
            (value(c) - value(choices[n]), n, c)
            for n, group in enumerate(groups)
            for c in group.formats
            if value(c) < value(choices[n]) and cost(c) - cost(choices[n]) <= left
        ]
        if not gains:
            return Assignment(tuple(choices))
        _, n, best = min(gains, key=lambda gain: gain[:2])
        choices[n] = best


def _lowest(fits: Callable[[float], bool]) -> float:
    """Return the lowest price that fits, on a log scale; `_LARGEST` does."""
    low, high = math.log(1e-9), math.log(_LARGEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(math.exp(middle)) else (middle, high)
    return math.exp(high)
