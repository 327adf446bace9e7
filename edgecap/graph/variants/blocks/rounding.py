"""Round a matrix to 4 or 8 bits in blocks with a scale, and a zero point, for each block.

`search_blocks` tries scales that are smaller than the range of a block, and keeps the one with the
smallest weighted squared error; each is refitted by least squares. `round_with_feedback` rounds
column by column and moves the error of each column to those that are not rounded yet, so that the
products with typical activations change least (GPTQ, arXiv 2210.17323, with columns in the order of
falling activations).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

_SHRINKS = tuple(np.linspace(0.7, 1.1, 9))  # of the range of a block; 4 bits are best near 0.9
_CHUNK = 4096  # blocks that fit a core's cache with their temporaries
_HALF_SCALES = (1e-4, 6e4)  # largest scale of a matrix for which float16 is fine enough
_SMALLEST = {2: np.float32(6e-8), 4: np.float32(1e-37)}  # by bytes of a scale
_DAMPING = 0.1  # of the mean diagonal: activations of the samples stand for others
_LAZY = 32  # columns after which errors are moved to the rest of a segment
_ROWS = 512  # rounded at once, so that a segment of them fits a core's cache


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
    blocks = _in_blocks(matrix, block)
    middle = 1 << bits - 1
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    scales = _as_stored(largest / (middle - 1), _scale_type(blocks, bits))
    codes = np.clip(np.rint(blocks / scales), 1 - middle, middle - 1) + middle
    zeros = np.full(blocks.shape[:2], middle, np.uint8)
    return _weights(blocks, codes, scales, zeros, bits)


def round_searched(
    matrix: np.ndarray, bits: int, block: int, importance: np.ndarray | None = None
) -> BlockWeights:
    """Round each weight of a matrix of shape (N, K) to the nearest step of a searched grid.

    `importance` weights the squared errors of the K inputs.
    """
    blocks = _in_blocks(matrix, block)
    scales, zeros = search_blocks(matrix, bits, block, importance)
    codes = _codes(blocks, scales[..., None], zeros[..., None], bits)
    return _weights(blocks, codes, scales, zeros, bits)


def round_with_feedback(
    matrix: np.ndarray, bits: int, block: int, moments: Moments
) -> BlockWeights:
    """Round a matrix of shape (N, K) so that its products with activations change least."""
    scales, zeros = search_blocks(matrix, bits, block, moments.diagonal)
    blocks = _in_blocks(matrix, block)
    padded = blocks.reshape(len(matrix), -1)
    codes = np.repeat(zeros, block, axis=1)  # what padding keeps

    def round_part(segment: _Segment, begin: int) -> None:
        rows, part = slice(begin, begin + _ROWS), slice(segment.begin, segment.end)
        steps, points = (
            np.repeat(a[rows], block, axis=1)[:, part].T.astype(np.float32) for a in (scales, zeros)
        )
        codes[rows, part] = _feed_back(padded[rows, part].T, steps, points, segment, bits).T

    segments = list(_segments(moments))
    with ThreadPoolExecutor() as pool:
        tasks = [(s, begin) for s in segments for begin in range(0, len(matrix), _ROWS)]
        list(pool.map(round_part, *zip(*tasks, strict=True)))
    return _weights(blocks, codes, scales, zeros, bits)


class _Segment(NamedTuple):
    """Consecutive inputs from `begin` to `end`, the order to round them in, and their factor.

    The factor is the upper triangular U with U^T U = (mean products + damping)^-1, in that order.
    """

    begin: int
    end: int
    order: np.ndarray
    factor: np.ndarray


def _segments(moments: Moments) -> Iterator[_Segment]:
    begin = 0
    for products in moments.segments:
        order = np.argsort(-np.diagonal(products), kind="stable")
        factor = _inverse_factor(products[np.ix_(order, order)])
        yield _Segment(begin, begin + len(order), order, factor)
        begin += len(order)


def _feed_back(
    columns: np.ndarray, scales: np.ndarray, zeros: np.ndarray, segment: _Segment, bits: int
) -> np.ndarray:
    """Return codes of shape (n, rows) for n inputs of some rows of a matrix."""
    order, factor = segment.order, segment.factor
    weights, scales, zeros = columns[order], scales[order], zeros[order]
    codes = np.empty(weights.shape, np.uint8)
    lowest, highest = -zeros, np.float32(2**bits - 1) - zeros
    for begin in range(0, len(order), _LAZY):
        end = min(begin + _LAZY, len(order))
        errors = np.empty_like(weights[begin:end])
        for i in range(begin, end):
            error = errors[i - begin]
            np.divide(weights[i], scales[i], out=error)
            np.rint(error, out=error)
            np.clip(error, lowest[i], highest[i], out=error)
            np.add(error, zeros[i], out=codes[i], casting="unsafe")
            error *= scales[i]
            np.subtract(weights[i], error, out=error)
            error /= factor[i, i]
            weights[i + 1 : end] -= factor[i, i + 1 : end, None] * error
        weights[end:] -= factor[begin:end, end:].T @ errors
    result = np.empty_like(codes)
    result[order] = codes
    return result


def _inverse_factor(products: np.ndarray) -> np.ndarray:
    """Return the upper triangular U with U^T U = (products + damping)^-1, float32."""
    damped = products.astype(np.float64)
    mean = float(np.trace(damped)) / len(damped)
    damped[np.diag_indices_from(damped)] += _DAMPING * mean if mean > 0 else 1.0
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    return np.ascontiguousarray(factor, np.float32)


# --- the grid of a block ----------------------------------------------------------------------


def search_blocks(
    matrix: np.ndarray, bits: int, block: int, importance: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return scales (float32, as they are stored) and zeros (uint8), shape (N, K / block)."""
    blocks = _in_blocks(matrix, block)
    rows, groups, _ = blocks.shape
    flat = blocks.reshape(-1, block)
    weights = None if importance is None else _in_blocks(importance[None], block)[0]
    scales, zeros = np.empty(len(flat), np.float32), np.empty(len(flat), np.uint8)
    kind = _scale_type(blocks, bits)
    step = max(1, _CHUNK // groups) * groups  # whole rows, so that weights repeat

    def search(begin: int) -> None:
        part = slice(begin, begin + step)
        scales[part], zeros[part] = _search(flat[part], bits, weights, kind)

    with ThreadPoolExecutor() as pool:
        list(pool.map(search, range(0, len(flat), step)))
    return scales.reshape(rows, groups), zeros.reshape(rows, groups)


def _search(
    blocks: np.ndarray, bits: int, weights: np.ndarray | None, kind: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best scales and zeros of blocks, shape (n, block); `weights` repeat by rows."""
    most = np.float32(2**bits - 1)
    low = np.minimum(blocks.min(axis=1, keepdims=True), 0)
    high = np.maximum(blocks.max(axis=1, keepdims=True), 0)
    heavy = None if weights is None else np.tile(weights, (len(blocks) // len(weights), 1))
    best = np.full(len(blocks), np.inf, np.float32)
    scales, zeros = np.empty_like(best), np.empty_like(best)
    for shrink in _SHRINKS:
        scale = _as_stored((high - low) * np.float32(shrink / most), kind)
        zero = np.clip(np.rint((most - (low + high) / scale) / 2), 0, most)
        steps = _steps(blocks, scale, zero, most)
        scale = _as_stored(_refitted(blocks, steps, heavy, scale), kind)
        steps = _steps(blocks, scale, zero, most)
        error = steps * scale - blocks
        error *= error
        loss = error.sum(axis=1) if heavy is None else np.einsum("ij,ij->i", error, heavy)
        better = loss < best
        best[better], scales[better] = loss[better], scale[better, 0]
        zeros[better] = zero[better, 0]
    return scales, zeros.astype(np.uint8)


def _refitted(
    blocks: np.ndarray, steps: np.ndarray, heavy: np.ndarray | None, scale: np.ndarray
) -> np.ndarray:
    """Return the scales of least squares for given steps."""
    weighted = steps if heavy is None else steps * heavy
    above = np.einsum("ij,ij->i", weighted, blocks)[:, None]
    below = np.einsum("ij,ij->i", weighted, steps)[:, None]
    fitted = np.divide(above, below, out=scale.copy(), where=(below > 0) & (above > 0))
    return np.asarray(fitted)


def _steps(blocks: np.ndarray, scale: np.ndarray, zero: np.ndarray, most: np.float32) -> np.ndarray:
    steps: np.ndarray = blocks / scale
    np.rint(steps, out=steps)
    np.clip(steps, -zero, most - zero, out=steps)
    return steps


def _codes(blocks: np.ndarray, scales: np.ndarray, zeros: np.ndarray, bits: int) -> np.ndarray:
    codes: np.ndarray = np.clip(np.rint(blocks / scales) + zeros, 0, 2**bits - 1)
    return codes


def _scale_type(blocks: np.ndarray, bits: int) -> np.dtype:
    """Return float16, or float32 for a matrix of very small or large weights."""
    least, most = _HALF_SCALES
    largest = float(np.abs(blocks).max(initial=0)) / (1 << bits - 1)
    return np.dtype(np.float16 if least <= largest <= most else np.float32)


def _as_stored(scales: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Return scales as `kind` stores them, in float32, none of them zero."""
    stored: np.ndarray = (
        np.maximum(scales, _SMALLEST[kind.itemsize]).astype(kind).astype(np.float32)
    )
    return stored


def _in_blocks(matrix: np.ndarray, block: int) -> np.ndarray:
    """Return a matrix as float32 of shape (N, K / block, block), padded with zeros."""
    rows, width = matrix.shape
    padded = np.pad(np.asarray(matrix, np.float32), ((0, 0), (0, -width % block)))
    return padded.reshape(rows, -1, block)


def _weights(
    blocks: np.ndarray, codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray, bits: int
) -> BlockWeights:
    """Return a quantized matrix in the types that it is stored in."""
    rows, _, block = blocks.shape
    return BlockWeights(
        codes.reshape(rows, -1).astype(np.uint8),
        scales.reshape(rows, -1).astype(_scale_type(blocks, bits)),
        zeros.reshape(rows, -1).astype(np.uint8),
        bits,
        block,
    )
