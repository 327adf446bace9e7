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
FOUR = Format(4, zero_points=True)
FOUR_LARGE = Format(4, 64, zero_points=True)
# What `edgecap tune` chooses from, from large to small.
FORMATS = (
    *(Format(8, 16), EIGHT, Format(8, 64)),
    *(Format(4, 16, zero_points=True), FOUR, FOUR_LARGE, Format(4, 128, zero_points=True)),
)
BY_CODE = {chosen.code: chosen for chosen in FORMATS}


class MatrixNeed(NamedTuple):
    """A matrix of shape (rows, columns), its bytes in a small format, and its product's error then.

    `error` is relative. `first`: it makes queries, keys or values, whose errors softmax enlarges.
    """

    rows: int
    columns: int
    size: int
    error: float
    first: bool

    @property
    def rank(self) -> tuple[bool, float]:
        """Rank by need: falling error for each weight, within those that come first or not."""
        return not self.first, -self.error / (self.rows * self.columns)


def widen(candidates: Mapping[str, MatrixNeed], limit: float) -> list[str]:
    """Return the matrices that get 8 bits, within `limit` bits a weight over all of them.

    Those that make queries, keys and values come first, then those whose products err most for
    each weight.
    """
    weights = sum(c.rows * c.columns for c in candidates.values())
    spare = limit * weights / 8 - sum(c.size for c in candidates.values())
    chosen = []
    for name, c in sorted(candidates.items(), key=lambda item: item[1].rank):
        cost = EIGHT.size(c.rows, c.columns) - c.size
        if cost <= spare:
            chosen.append(name)
            spare -= cost
    return chosen
