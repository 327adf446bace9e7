"""Distance of an exported graph from the model as its own framework computes it.

Both read the same passages of text in fp32: short samples, one stretch that is longer than every
window and beyond the length of pretraining, and tokens that are decoded behind a cache. The result
is the mean divergence KL(framework || graph) of each part in bits per token.

A model with random weights predicts almost the same for every text, so that mistakes of an export
do not show in bits. Where predictions are flatter than those of any trained model, the check is
also made on sharpened ones: the logits of both are multiplied by the same factor. Rounding in fp32
stays a million times below the limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from edgecap.errors import UsageError
from edgecap.protocols import Engine, Floats, Ids

MAX_BITS = 1e-4  # rounding in fp32 gives 1e-7 and less
SHORT, LONG, DECODING = "short text", "long text", "decoding"
SAMPLES, SAMPLE_TOKENS, LEAST_TOKENS, STEPS = 2, 128, 4, 8
LONG_TOKENS = 256  # of the stretch where nothing depends on the length
BEYOND, COMPARED = 128, 64  # positions read beyond a window, and compared at the end
FLAT, SHARP = 0.5, 10.0  # spread of a position's logits in nats: no trained model has less, set to


class Reference(Protocol):
    """A model as its own framework computes it."""

    vocabulary: int

    def logits(self, ids: Ids, last: int | None = None) -> Floats:
        """Return the logits after each id, shape (n, vocabulary), or after the `last` ids."""

    def logits_after(self, past: Ids, ids: Ids) -> list[Floats]:
        """Return the logits after each of `ids`, decoded one by one after `past`."""


class Passage(NamedTuple):
    """Ids to read at once, of which the `last` positions are compared, or to decode behind them."""

    part: str
    ids: Ids
    last: int | None = None
    decoded: Ids | None = None


class PassageLogits(NamedTuple):
    """Logits of a passage, shape (n, vocabulary), in float32."""

    passage: Passage
    logits: Floats


class PartDistance(NamedTuple):
    """Mean divergence of a part in bits per token, and that of sharpened predictions."""

    bits: float
    sharpened: float


def short_passages(stream: Ids, border: int, decodes: bool) -> list[Passage]:
    """Return samples from a stream of ids, shape (n,), and tokens to decode behind one.

    They end before `border`, the length at which the model begins to compute in another way.
    """
    size = max(LEAST_TOKENS, min(SAMPLE_TOKENS, len(stream) // SAMPLES, border))
    samples = [Passage(SHORT, stream[i * size : (i + 1) * size]) for i in range(SAMPLES)]
    if not decodes:
        return samples
    half = size // 2
    return [*samples, Passage(DECODING, stream[:half], decoded=stream[half:size][:STEPS])]


def long_length(windows: Sequence[int], original: int | None, positions: int | None) -> int:
    """Return the positions of the long stretch: beyond each window, and twice the original."""
    lengths = [LONG_TOKENS, *(w + BEYOND for w in windows), 2 * original if original else 0]
    return min(max(lengths), positions or max(lengths))


def long_passages(stream: Ids, length: int, decodes: bool) -> list[Passage]:
    """Return a stretch of `length` ids, and tokens to decode behind it."""
    ids = np.resize(stream, length)
    last = min(COMPARED, length)
    if not decodes:
        return [Passage(LONG, ids, last)]
    return [
        Passage(LONG, ids, last),
        Passage(DECODING, ids[:-STEPS], decoded=ids[-STEPS:]),
    ]


def reference_answers(model: Reference, passages: Sequence[Passage]) -> list[PassageLogits]:
    """Return the logits of a framework's model. Raise UsageError if they are not numbers."""
    answers = [PassageLogits(p, _reference_logits(model, p).astype(np.float32)) for p in passages]
    if not all(np.isfinite(a.logits).all() for a in answers):
        raise UsageError(
            "transformers computes NaN or infinity from the weights of this folder: they are "
            "damaged, or the model needs another config"
        )
    return answers


def _reference_logits(model: Reference, passage: Passage) -> Floats:
    if passage.decoded is None:
        return model.logits(passage.ids, passage.last)
    return np.concatenate(model.logits_after(passage.ids, passage.decoded))


def distance_by_part(answers: Sequence[PassageLogits], engine: Engine) -> dict[str, PartDistance]:
    """Return the distance of a graph from the answers by part.

    Of several passages of one part the furthest counts; NaN and infinity count as infinity.
    """
    parts = dict[str, PartDistance]()
    for passage, logits in answers:
        distance = _distance(logits, _graph_logits(engine, passage))
        before = parts.get(passage.part, distance)
        parts[passage.part] = max(before, distance, key=lambda d: (d.sharpened, d.bits))
    return parts


def _graph_logits(engine: Engine, passage: Passage) -> Floats:
    if passage.decoded is None:
        return engine.log_probabilities(passage.ids, passage.last) * math.log(2)
    rows = np.concatenate(engine.log_probabilities_after(passage.ids, passage.decoded))
    return rows * math.log(2)


def _distance(expected: Floats, actual: Floats) -> PartDistance:
    """Return the distance of two arrays of logits, shape (n, vocabulary).

    Some graphs pad the vocabulary: only ids that both have are compared.
    """
    width = min(expected.shape[1], actual.shape[1])
    p, q = expected[:, :width].astype(np.float64), actual[:, :width]
    spread = max(float(p.std(axis=1).mean()), 1e-30)
    bits = _mean_divergence(p, q)
    return PartDistance(bits, bits if spread >= FLAT else _mean_divergence(p, q, SHARP / spread))


def _mean_divergence(p: Floats, q: Floats, factor: float = 1.0) -> float:
    """Return the mean KL(p || q) of logits times a factor, over positions, in bits."""
    p, q = _log_softmax(factor * p), _log_softmax(factor * q)
    bits = float((np.exp(p) * (p - q)).sum(axis=1).mean()) / math.log(2)
    return max(bits, 0.0) if math.isfinite(bits) else math.inf


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def check_fidelity(parts: dict[str, PartDistance], exporter: str) -> None:
    """Raise UsageError if the graph is another model than the framework's."""
    different = {part: d for part, d in parts.items() if max(d) > MAX_BITS}
    if not different:
        return
    described = ", ".join(f"{part} {_describe(d)}" for part, d in different.items())
    same = [part for part in parts if part not in different]
    agrees = f" ({' and '.join(same)} agree)" if same else ""
    other = "genai" if exporter == "optimum" else "optimum"
    raise UsageError(
        f"the graph that {exporter} exported is not the model: it differs from transformers in "
        f"fp32 by more than {MAX_BITS:g} bits a token: {described}{agrees}; "
        f"try --exporter {other}"
    )


def _describe(distance: PartDistance) -> str:
    if distance.bits > MAX_BITS:
        return f"{distance.bits:.2g}"
    return f"{distance.sharpened:.2g} with predictions sharpened, which are flat as random ones"
