"""Measure the second moments of the activations that stored matrices are multiplied with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from edgecap.graph.variants.blocks.rounding import Moments
from edgecap.protocols import Ids

# Runs the graph on one sample and returns the named tensors, each of shape (1, n, K).
Observe = Callable[[Sequence[str], Ids], Iterable[np.ndarray]]

_MOST_ROWS = 512  # of a matrix whose error is measured
SEGMENT = 512  # inputs whose mean products are kept; errors move within a segment


def measure_moments(
    sources: dict[str, int], samples: Sequence[Ids], observe: Observe
) -> dict[str, Moments]:
    """Return the moments of tensors over all positions of the samples, each of shape (n,).

    `sources` holds the width K of each tensor.
    """
    sums = {
        name: [np.zeros((n, n), np.float32) for n in _segments(k)] for name, k in sources.items()
    }
    positions = 0
    for sample in samples:
        positions += len(sample)
        for name, tensor in zip(sources, observe(list(sources), sample), strict=True):
            _add(sums[name], np.asarray(tensor, np.float32).reshape(-1, sources[name]))
    for segments in sums.values():
        for products in segments:
            products /= max(positions, 1)
    return {
        name: Moments(np.concatenate([np.diagonal(p) for p in segments]), segments)
        for name, segments in sums.items()
    }


def affordable(samples: Sequence[Ids], weights: int, flops: float, least: int) -> list[Ids]:
    """Return samples, spread over all, that matrices of as many weights can be run on.

    `flops` limits the work, but at least `least` tokens remain.
    """
    tokens = max(least, flops / (2 * max(weights, 1)))
    longest = max((len(s) for s in samples), default=1)
    count = max(1, min(len(samples), int(tokens / max(longest, 1))))
    return list(samples[:: max(1, len(samples) // count)][:count])


def scale_moments(moments: Moments, factors: np.ndarray) -> Moments:
    """Return the moments of activations that are divided by `factors`, shape (K,)."""
    segments, begin = [], 0
    for products in moments.segments:
        part = factors[begin : begin + len(products)]
        segments.append(products / np.outer(part, part))
        begin += len(products)
    return Moments(moments.diagonal / factors**2, segments)


def relative_error(exact: np.ndarray, rounded: np.ndarray, moments: Moments) -> float:
    """Return the mean square error of a product over the mean square of the product.

    Both matrices have shape (N, K); rows at equal distances stand for many.
    """
    step = -(-len(exact) // _MOST_ROWS)
    exact, rounded = exact[::step], rounded[::step]
    error = _mean_square(rounded - exact, moments)
    return error / max(_mean_square(exact, moments), 1e-30)


def _mean_square(matrix: np.ndarray, moments: Moments) -> float:
    total, begin = 0.0, 0
    for products in moments.segments:
        part = matrix[:, begin : begin + len(products)]
        total += float(np.einsum("ij,ij->", part @ products, part))
        begin += len(products)
    return total


def _add(segments: list[np.ndarray], rows: np.ndarray) -> None:
    begin = 0
    for products in segments:
        part = rows[:, begin : begin + len(products)]
        products += part.T @ part
        begin += len(products)


def _segments(width: int) -> list[int]:
    return [min(SEGMENT, width - begin) for begin in range(0, width, SEGMENT)]
