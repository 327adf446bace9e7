"""Round a matrix to 4 or 8 bits in blocks with a scale, and a zero point, for each block.

`round_searched` tries scales that are smaller than the range of a block, and keeps the one with the
smallest weighted squared error; each is refitted by least squares. `round_with_feedback` rounds
column by column and moves the error of each column to those that are not rounded yet, so that the
products with typical activations change least (GPTQ, arXiv 2210.17323, with columns in the order of
falling activations).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

_SHRINKS = tuple(np.linspace(0.7, 1.1, 9))  # of the range of a block; 4 bits are best near 0.9
_ROWS = 4096  # of a part: numpy's threads hinder each other where arrays are smaller
_HALF_SCALES = (1e-4, 6e4)  # largest scale of a matrix for which float16 is fine enough
_SMALLEST = {2: np.float32(6e-8), 4: np.float32(1e-37)}  # by bytes of a scale
_DAMPING = 0.1  # of the mean diagonal: activations of the samples stand for others
_NEAR, _LAZY = 8, 128  # columns after which errors are moved to those near, and to all others


class BlockWeights(NamedTuple):
    """A quantized matrix: weight = (code - zero) x scale.

    `codes` is uint8 of shape (N, K), `zeros` uint8 and `scales` float16 of shape (N, K / block); a
    matrix of very small or large weights has scales in float32. K is padded to a multiple of the
    block with codes that stand for zero.
    """

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray
    bits: int
    block: int

    def floats(self) -> np.ndarray:
        """Return the weights as they are computed with, float32 of shape (N, K padded)."""
        shape = self.codes.shape
        blocks = self.codes.reshape(shape[0], -1, self.block).astype(np.float32)
        blocks -= self.zeros[..., None]
        blocks *= self.scales[..., None].astype(np.float32)
        return blocks.reshape(shape)


class Moments(NamedTuple):
    """Second moments of the activations that a matrix is multiplied with.

    `diagonal` is the mean square of each of K inputs. `segments` are matrices of mean products,
    float32 of shape (n, n), of consecutive inputs.
    """

    diagonal: np.ndarray
    segments: Sequence[np.ndarray]


def round_symmetric(matrix: np.ndarray, bits: int, block: int) -> BlockWeights:
    """Round a matrix of shape (N, K) with the largest absolute weight of a block as its range."""
    middle = 1 << bits - 1
    kind = _scale_type(matrix, bits)

    def round_part(blocks: np.ndarray) -> _Rounded:
        largest = np.maximum(blocks.max(axis=1), -blocks.min(axis=1))
        scales = _as_stored(largest / (middle - 1), kind)
        steps = blocks / scales[:, None]
        np.rint(steps, out=steps)
        np.clip(steps, 1 - middle, middle - 1, out=steps)
        steps += middle
        return _Rounded(steps, scales, np.full_like(scales, middle))

    return _round_parts(matrix, bits, block, kind, round_part)


def round_searched(
    matrix: np.ndarray, bits: int, block: int, importance: np.ndarray | None = None
) -> BlockWeights:
    """Round each weight of a matrix of shape (N, K) to the nearest step of a searched grid.

    `importance` weights the squared errors of the K inputs.
    """
    kind = _scale_type(matrix, bits)
    heavy = _heavy(importance, matrix.shape[1], block)

    def round_part(blocks: np.ndarray) -> _Rounded:
        scales, zeros = _search(blocks, bits, heavy, kind)
        steps = blocks / scales[:, None]
        np.rint(steps, out=steps)
        steps += zeros[:, None]
        return _Rounded(np.clip(steps, 0, 2**bits - 1, out=steps), scales, zeros)

    return _round_parts(matrix, bits, block, kind, round_part)


def round_with_feedback(
    matrix: np.ndarray, bits: int, block: int, moments: Moments
) -> BlockWeights:
    """Round a matrix of shape (N, K) so that its products with activations change least."""
    kind = _scale_type(matrix, bits)
    heavy = _heavy(moments.diagonal, matrix.shape[1], block)
    segments = _segments(moments)

    def round_part(blocks: np.ndarray) -> _Rounded:
        scales, zeros = _search(blocks, bits, heavy, kind)
        columns = blocks.reshape(-1, blocks.shape[2])
        codes = np.repeat(zeros, block, axis=0).astype(np.uint8)  # what padding keeps
        for segment in segments:
            part = slice(segment.begin, segment.end)
            grid = slice(segment.begin // block, -(-segment.end // block))
            _feed_back(columns[part], scales[grid], zeros[grid], segment, codes[part], bits, block)
        return _Rounded(codes, scales, zeros)

    return _round_parts(matrix, bits, block, kind, round_part)


class _Rounded(NamedTuple):
    """Codes, scales and zeros of n rows, each with the rows last; the codes may be floats."""

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray


def _round_parts(
    matrix: np.ndarray,
    bits: int,
    block: int,
    kind: np.dtype,
    round_part: Callable[[np.ndarray], _Rounded],
) -> BlockWeights:
    """Round parts of the rows of a matrix at the same time.

    `round_part` takes the blocks of n rows, float32 of shape (K / block, block, n): operations on
    short blocks are fast only along the rows. `kind` is the type of stored scales.
    """
    rows, width = matrix.shape
    groups = -(-width // block)
    codes = np.empty((rows, groups * block), np.uint8)
    scales = np.empty((rows, groups), kind)
    zeros = np.empty((rows, groups), np.uint8)

    def work(begin: int) -> None:
        part = slice(begin, begin + _ROWS)
        columns = matrix[part].T
        blocks = np.zeros((groups * block, columns.shape[1]), np.float32)
        blocks[:width] = columns
        rounded = round_part(blocks.reshape(groups, block, -1))
        codes[part] = rounded.codes.reshape(len(blocks), -1).T
        scales[part], zeros[part] = rounded.scales.T, rounded.zeros.T

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, range(0, rows, _ROWS)))
    return BlockWeights(codes, scales, zeros, bits, block)


# --- feedback of errors -----------------------------------------------------------------------


class _Segment(NamedTuple):
    """Consecutive inputs from `begin` to `end`, the order to round them in, and their shares.

    With the upper triangular U of U^T U = (mean products + damping)^-1, in that order, the error of
    input i is moved to input j by `shares[i, j]`, U[i, j] / U[i, i].
    """

    begin: int
    end: int
    order: np.ndarray
    shares: np.ndarray


def _segments(moments: Moments) -> list[_Segment]:
    ends = itertools.accumulate(len(products) for products in moments.segments)

    def segment(products: np.ndarray, end: int) -> _Segment:
        order = np.argsort(-np.diagonal(products), kind="stable")
        return _Segment(end - len(order), end, order, _shares(products[np.ix_(order, order)]))

    with ThreadPoolExecutor() as pool:
        return list(pool.map(segment, moments.segments, ends))


def _shares(products: np.ndarray) -> np.ndarray:
    damped = products.astype(np.float64)
    mean = float(np.trace(damped)) / len(damped)
    damped[np.diag_indices_from(damped)] += _DAMPING * mean if mean > 0 else 1.0
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    return np.ascontiguousarray(factor / np.diagonal(factor)[:, None], np.float32)


def _feed_back(
    columns: np.ndarray,
    scales: np.ndarray,
    zeros: np.ndarray,
    segment: _Segment,
    codes: np.ndarray,
    bits: int,
    block: int,
) -> None:
    """Round the columns of a segment, shape (n inputs, rows), into `codes` of the same shape.

    `scales` and `zeros` are those of its blocks, shape (blocks, rows).
    """
    order, shares = segment.order, segment.shares
    weights = columns[order]
    grid = order // block
    inverse, lowest, highest = 1 / scales, -zeros, np.float32(2**bits - 1) - zeros
    errors = np.empty_like(weights[:_LAZY])
    steps, moved = np.empty_like(weights[0]), np.empty_like(weights[0])
    for begin in range(0, len(order), _LAZY):
        end = min(begin + _LAZY, len(order))
        for first in range(begin, end, _NEAR):
            last = min(first + _NEAR, end)
            for i in range(first, last):
                of, error = grid[i], errors[i - begin]
                np.multiply(weights[i], inverse[of], out=steps)
                np.rint(steps, out=steps)
                np.maximum(steps, lowest[of], out=steps)
                np.minimum(steps, highest[of], out=steps)
                np.add(steps, zeros[of], out=codes[order[i]], casting="unsafe")
                steps *= scales[of]
                np.subtract(weights[i], steps, out=error)
                for j in range(i + 1, last):
                    weights[j] -= np.multiply(error, shares[i, j], out=moved)
            near = errors[first - begin : last - begin]
            weights[last:end] -= shares[first:last, last:end].T @ near
        weights[end:] -= shares[begin:end, end:].T @ errors[: end - begin]


# --- the grid of a block ----------------------------------------------------------------------


def _heavy(importance: np.ndarray | None, width: int, block: int) -> np.ndarray:
    """Return weights of squared errors as float32 of shape (K / block, block)."""
    each = np.ones(width, np.float32) if importance is None else importance
    return np.pad(np.asarray(each, np.float32), (0, -width % block)).reshape(-1, block)


def _search(
    blocks: np.ndarray, bits: int, heavy: np.ndarray, kind: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best scales, as they are stored, and zeros of blocks, float32.

    `blocks` has shape (K / block, block, n), and both results (K / block, n).
    """
    scales = np.empty((blocks.shape[0], blocks.shape[2]), np.float32)
    zeros = np.empty_like(scales)
    at_once = max(1, _ROWS // blocks.shape[2])
    for begin in range(0, len(blocks), at_once):
        part = slice(begin, begin + at_once)
        scales[part], zeros[part] = _search_few(blocks[part], bits, heavy[part, None], kind)
    return scales, zeros


def _search_few(
    blocks: np.ndarray, bits: int, heavy: np.ndarray, kind: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Try scales below the range of each block, and refit each by least squares to its steps."""
    most = np.float32(2**bits - 1)
    low, high = np.minimum(blocks.min(axis=1), 0), np.maximum(blocks.max(axis=1), 0)
    best = np.full_like(low, -np.inf)
    scales, zeros = np.empty_like(low), np.empty_like(low)
    steps, product = np.empty_like(blocks), np.empty_like(blocks)
    for shrink in _SHRINKS:
        scale = _as_stored((high - low) * np.float32(shrink / most), kind)
        zero = np.clip(np.rint((most - (low + high) / scale) / 2), 0, most)
        np.multiply(blocks, (1 / scale)[:, None], out=steps)
        np.rint(steps, out=steps)
        np.maximum(steps, -zero[:, None], out=steps)
        np.minimum(steps, (most - zero)[:, None], out=steps)
        above = np.matmul(heavy, np.multiply(steps, blocks, out=product))[:, 0]
        below = np.matmul(heavy, np.multiply(steps, steps, out=product))[:, 0]
        np.divide(above, below, out=scale, where=(below > 0) & (above > 0))
        scale = _as_stored(scale, kind)
        explained = (2 * above - below * scale) * scale  # of the weighted squares of the block
        better = explained > best
        for kept, tried in ((best, explained), (scales, scale), (zeros, zero)):
            np.copyto(kept, tried, where=better)
    return scales, zeros


def _scale_type(matrix: np.ndarray, bits: int) -> np.dtype:
    """Return float16, or float32 for a matrix of very small or large weights."""
    least, most = _HALF_SCALES
    largest = max(float(matrix.max(initial=0)), -float(matrix.min(initial=0))) / (1 << bits - 1)
    return np.dtype(np.float16 if least <= largest <= most else np.float32)


def _as_stored(scales: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Return scales as `kind` stores them, in float32, none of them zero."""
    stored: np.ndarray = (
        np.maximum(scales, _SMALLEST[kind.itemsize]).astype(kind).astype(np.float32)
    )
    return stored
