"""How far a variant's predictions are from fp32's: mean Kullback-Leibler divergence, bits a token.

Measured as both are executed, on short samples of the corpus. A variant half way to knowing nothing
(the divergence of the uniform distribution) is garbage, not a variant. An encoder predicts nothing that could
diverge: the directions of its outputs are compared instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from edgecap.errors import EdgecapError
from edgecap.protocols import Engine, Floats, Ids

SAMPLES = 4
SAMPLE_TOKENS = 128
LEAST_COSINE = 0.5
STEPS, SMALLEST = 8, 16  # tokens decoded for comparison; ids where the vocabulary is not known


class Garbage(EdgecapError):
    """A variant whose predictions have little to do with those of fp32."""


class Divergence(NamedTuple):
    """Bits a token: KL(fp32 || variant), and KL(fp32 || uniform) as a yardstick."""

    bits: float
    uniform_bits: float


def measure_divergence(reference: Engine, variant: Engine, samples: Sequence[Ids]) -> Divergence:
    """Mean over all positions of all samples, each of shape (n,).

    Raises Garbage where the variant answers NaN, infinity, or nonsense.
    """
    rows = [_rows(reference.log_probabilities(s), variant.log_probabilities(s)) for s in samples]
    bits, entropy = np.concatenate(rows, axis=1).mean(axis=1)
    found = Divergence(float(bits), math.log2(max(reference.vocabulary, 2)) - float(entropy))
    if not math.isfinite(found.bits):
        raise Garbage("the variant's probabilities hold NaN or infinity")
    if found.bits > max(1.0, found.uniform_bits / 2):
        raise Garbage(
            f"the variant's predictions are garbage: {found.bits:.2f} bits a token from fp32; "
            f"knowing nothing would be {found.uniform_bits:.2f}"
        )
    return found


def measure_cosine(reference: Engine, variant: Engine, samples: Sequence[Ids]) -> float | None:
    """Mean cosine over the rows of all samples, each of shape (n,); of several outputs that which is furthest away.

    None where no output has more than one number a row: one has no direction. Raises Garbage where the variant
    answers NaN, infinity, or something else.
    """
    pairs = [list(zip(reference.answers(s), variant.answers(s), strict=True)) for s in samples]
    outputs = [[_cosines(p, q) for p, q in output] for output in zip(*pairs, strict=True)]
    found = min(
        (float(np.concatenate(rows).mean()) for rows in outputs if rows[0].size), default=None
    )
    if found is not None and found < LEAST_COSINE:
        raise Garbage(
            f"the variant's outputs are garbage: their mean cosine with those of fp32 is {found:.2f}"
        )
    return found


def _cosines(p: Floats, q: Floats) -> Floats:
    """The cosine of each row, shape (rows,); none where a row is one number."""
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        raise Garbage("the outputs hold NaN or infinity")
    lengths = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
    found: Floats = (p * q).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return found if p.shape[1] > 1 else found[:0]


def sample_answers(engine: Engine) -> list[Floats]:
    """log2 p of the next token behind arbitrary ids, shapes (n, vocabulary): read at once, and behind a cache."""
    rng = np.random.default_rng(4)
    ids = rng.integers(0, engine.vocabulary or SMALLEST, SAMPLE_TOKENS, dtype=np.int64)
    half = SAMPLE_TOKENS // 2
    return [
        engine.log_probabilities(ids),
        *engine.log_probabilities_behind(ids[:half], ids[half : half + STEPS]),
    ]


def max_divergence(p: Sequence[Floats], q: Sequence[Floats]) -> float:
    """The largest of the mean divergences KL(p || q) of each pair, bits a token."""
    found = [float(_rows(a, b)[0].mean()) for a, b in zip(p, q, strict=True)]
    return max(found, key=lambda bits: (not math.isfinite(bits), bits))


def _rows(p: Floats, q: Floats) -> Floats:
    """KL(p || q) and entropy of p by position, shape (2, n); `p`, `q` are log2, shape (n, vocabulary)."""
    weights = np.exp2(p)
    safe = np.where(weights > 0, p, 0.0)
    return np.stack(
        [
            (weights * (safe - np.where(weights > 0, q, 0.0))).sum(axis=1),
            -(weights * safe).sum(axis=1),
        ]
    )


def take_samples(
    texts: Iterable[str],
    documents: int,
    encode: Callable[[str], list[int]],
    start: int | None,
    length: int = SAMPLE_TOKENS,
    most: int = SAMPLES,
) -> list[Ids]:
    """Beginnings, `length` tokens each, of up to `most` of the texts of `documents`, spread over them, as inputs of shape (n,)."""
    step = max(1, documents // most)
    chosen = itertools.islice((t for t in texts if t), 0, most * step, step)
    rows = [([] if start is None else [start]) + encode(t[: 8 * length]) for t in chosen]
    return [np.array(row[:length], np.int64) for row in rows]
