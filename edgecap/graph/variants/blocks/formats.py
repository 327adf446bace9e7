"""Formats of a matrix in blocks, and the rule by which each matrix of a model gets one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

_WORD = 16  # bits of a scale
SMALLEST = 32  # block that may be padded


class Format(NamedTuple):
    """Bits of a weight, weights that share a scale, and whether blocks have a zero point."""

    bits: int
    block: int = 32
    zero_points: bool = False

    def __str__(self) -> str:
        points = ", zero points" if self.zero_points else ""
        return f"{self.bits} bits, blocks of {self.block}{points}"

    @property
    def code(self) -> str:
        """A short name, such as 4b64z: bits, block, and z for zero points."""
        return f"{self.bits}b{self.block}{'z' if self.zero_points else ''}"

    def fits(self, columns: int) -> bool:
        """Test whether rows of a matrix need no padding, or only that of the smallest block."""
        return self.block <= SMALLEST or columns % self.block == 0

    def size(self, rows: int, columns: int) -> int:
        """Return the bytes of a matrix with `columns` inputs, its scales and zero points."""
        groups = math.ceil(columns / self.block)
        points = math.ceil(groups * self.bits / 8) if self.zero_points else 0
        return rows * (groups * (self.block * self.bits + _WORD) // 8 + points)


EIGHT = Format(8)
EIGHT_LARGE = Format(8, 64)
FOUR_SMALL = Format(4, 16, zero_points=True)
FOUR = Format(4, zero_points=True)
FOUR_LARGE = Format(4, 64, zero_points=True)
# What `edgecap tune` chooses from, from large to small.
FORMATS = (
    *(Format(8, 16), EIGHT, EIGHT_LARGE),
    *(FOUR_SMALL, FOUR, FOUR_LARGE, Format(4, 128, zero_points=True)),
)
BY_CODE = {chosen.code: chosen for chosen in FORMATS}


class MatrixNeed(NamedTuple):
    """Bytes of a matrix in 4 and in 8 bits, and how much it needs the 8 bits.

    `small` and `wide`: bytes. `error`: the relative error of its product in 4 bits, for each
    weight. `turn`: matrices of a lower turn get 8 bits first.
    """

    weights: int
    small: int
    wide: int
    error: float
    turn: int


def widen(candidates: Mapping[str, MatrixNeed], limit: float) -> list[str]:
    """Return the matrices that get 8 bits, within `limit` bits a weight over all of them.

    They come in the order of their turns, and those of one turn by falling error.
    """
    weights = sum(c.weights for c in candidates.values())
    spare = limit * weights / 8 - sum(c.small for c in candidates.values())
    chosen = []
    for name, c in sorted(candidates.items(), key=lambda item: (item[1].turn, -item[1].error)):
        if c.wide - c.small <= spare:
            chosen.append(name)
            spare -= c.wide - c.small
    return chosen
