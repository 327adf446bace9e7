"""Mean Kullback-Leibler divergence of a variant's predictions from fp32's, in bits per token.

Both are executed on short samples of the corpus. A variant whose divergence is more than half that
of the uniform distribution is garbage. An encoder predicts no tokens: the directions of its outputs
are compared instead.

A variant may be further from fp32 when it reads a text in one run than when it decodes, or the
other way round: dynamic quantization has one scale for all activations of a run. So the last
quarter of each sample is also decoded, token by token, behind a cache of the first three quarters
that the variant fills in one run, as in use. The reference need not be decoded: in fp32 both
ways give the same predictions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from edgecap.errors import EdgecapError
from edgecap.protocols import Engine, Floats, Ids
from edgecap.record import WidestActivation

SAMPLE_TOKENS = 128
LEAST_COSINE = 0.5
DECODED_SHARE = 1 / 4  # of a sample
_TINY = 1e-30
_CHUNK = 1 << 17  # numbers that a core's cache holds with their temporaries
STEPS, DEFAULT_VOCABULARY = 8, 16  # tokens decoded for comparison; ids of an unknown vocabulary


class Garbage(EdgecapError):
    """The variant's predictions have little to do with those of fp32."""


class Divergence(NamedTuple):
    """KL(fp32 || variant) and, as a yardstick, KL(fp32 || uniform), in bits per token.

    `decoded_bits` is that of the decoded tokens, `prefilled_bits` of the same tokens in one run.
    Both are None if none were decoded: the variant has no cache, or all samples are too short.
    """

    bits: float
    uniform_bits: float
    decoded_bits: float | None
    prefilled_bits: float | None


def measure_divergence(reference: Engine, variant: Engine, samples: Sequence[Ids]) -> Divergence:
    """Return the mean divergence over all positions of all samples, each of shape (n,).

    Raises Garbage if the variant returns NaN, infinity, or nonsense.
    """
    rows, decoded = [], []
    for sample in samples:
        expected = reference.log_probabilities(sample)
        rows.append(divergence_rows(expected, variant.log_probabilities(sample)))
        decoded.append(_decoded_rows(expected, variant, sample))
    bits, entropy = np.concatenate(rows, axis=1).mean(axis=1)
    divergence = Divergence(
        float(bits),
        math.log2(max(reference.vocabulary, 2)) - float(entropy),
        _mean(decoded),
        _mean([r[0, r.shape[1] - len(d) :] for r, d in zip(rows, decoded, strict=True)]),
    )
    if not all(math.isfinite(b) for b in (divergence.bits, divergence.decoded_bits or 0.0)):
        raise Garbage("the variant's probabilities hold NaN or infinity")
    if divergence.bits > max(1.0, divergence.uniform_bits / 2):
        raise Garbage(
            f"the variant's predictions are garbage: {divergence.bits:.2f} bits per token "
            f"from fp32; the uniform distribution is {divergence.uniform_bits:.2f} bits away"
        )
    return divergence


def _decoded_rows(expected: Floats, variant: Engine, sample: Ids) -> Floats:
    """Return the divergence of the sample's last quarter, decoded behind the rest, shape (m,)."""
    count = int(DECODED_SHARE * len(sample)) if variant.has_cache else 0
    if not count:
        return np.zeros(0)
    steps = variant.log_probabilities_after(sample[:-count], sample[-count:])
    rows: Floats = divergence_rows(expected[-count:], np.concatenate(steps))[0]
    return rows


def _mean(parts: Sequence[Floats]) -> float | None:
    values = np.concatenate(parts)
    return float(values.mean()) if len(values) else None


def find_widest(engine: Engine, nodes: Sequence[str], sample: Ids) -> WidestActivation | None:
    """Return the product with the widest input for a sample of shape (n,); None without products.

    The engine's outputs are the largest absolute value of each row in front of each of `nodes`, as
    `graph.activations` makes them.
    """
    found = [
        WidestActivation(
            node=node,
            largest=float(rows.max()),
            typical=float(np.median(rows)),
            position=int(rows.argmax()),
        )
        for node, rows in zip(nodes, engine.outputs(sample), strict=True)
    ]
    return max(found, key=lambda w: w.largest / max(w.typical, _TINY), default=None)


def measure_cosine(reference: Engine, variant: Engine, samples: Sequence[Ids]) -> float | None:
    """Return the mean cosine over the rows of all samples, each of shape (n,).

    Of several outputs, the one furthest from fp32 counts. None if no output has more than one
    number per row: one number has no direction. Raises Garbage if the variant returns NaN,
    infinity, or another direction.
    """
    pairs = [list(zip(reference.outputs(s), variant.outputs(s), strict=True)) for s in samples]
    outputs = [[_cosines(p, q) for p, q in output] for output in zip(*pairs, strict=True)]
    lowest = min(
        (float(np.concatenate(rows).mean()) for rows in outputs if rows[0].size), default=None
    )
    if lowest is not None and lowest < LEAST_COSINE:
        raise Garbage(
            "the variant's outputs are garbage: "
            f"their mean cosine with those of fp32 is {lowest:.2f}"
        )
    return lowest


def _cosines(p: Floats, q: Floats) -> Floats:
    """Return the cosine of each row, shape (rows,); shape (0,) if a row is one number."""
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        raise Garbage("the outputs hold NaN or infinity")
    lengths = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
    cosines: Floats = (p * q).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return cosines if p.shape[1] > 1 else cosines[:0]


def sample_answers(engine: Engine) -> list[Floats]:
    """Return log2 p of the token after each of some random ids, each of shape (n, vocabulary).

    The first is read in one pass; the others are decoded behind a cache.
    """
    rng = np.random.default_rng(4)
    ids = rng.integers(0, engine.vocabulary or DEFAULT_VOCABULARY, SAMPLE_TOKENS, dtype=np.int64)
    half = SAMPLE_TOKENS // 2
    return [
        engine.log_probabilities(ids),
        *engine.log_probabilities_after(ids[:half], ids[half : half + STEPS]),
    ]


def max_divergence(p: Sequence[Floats], q: Sequence[Floats]) -> float:
    """Return the largest mean divergence KL(p || q) of the pairs, in bits per token.

    NaN and infinity count as largest.
    """
    means = [float(divergence_rows(a, b)[0].mean()) for a, b in zip(p, q, strict=True)]
    return max(means, key=lambda bits: (not math.isfinite(bits), bits))


def divergence_rows(p: Floats, q: Floats) -> Floats:
    """Return KL(p || q) and the entropy of p by position, shape (2, n).

    `p` and `q` are log2 probabilities, shape (n, vocabulary).
    """
    step = max(1, _CHUNK // max(p.shape[1], 1))
    parts = [_sums(p[i : i + step], q[i : i + step]) for i in range(0, len(p), step)]
    return np.concatenate(parts, axis=1) if parts else np.zeros((2, 0))


def _sums(p: Floats, q: Floats) -> Floats:
    weights = np.exp2(p)
    finite = np.where(weights > 0, p, 0.0)
    return np.stack(
        [
            (weights * (finite - np.where(weights > 0, q, 0.0))).sum(axis=1),
            -(weights * finite).sum(axis=1),
        ]
    )


def take_samples(
    texts: Iterable[str],
    documents: int,
    encode: Callable[[str], list[int]],
    start: int | None,
    length: int,
    most: int,
) -> list[Ids]:
    """Return the first `length` tokens of up to `most` texts, spread over all `documents`.

    Each sample has shape (n,) and begins with the `start` token, if there is one. Empty texts are
    skipped.
    """
    step = max(1, documents // most)
    chosen = itertools.islice((t for t in texts if t), 0, most * step, step)
    rows = [([] if start is None else [start]) + encode(t[: 8 * length]) for t in chosen]
    return [np.array(row[:length], np.int64) for row in rows]
