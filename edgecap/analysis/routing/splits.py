"""Enumerate splits of documents by difficulty, and choose the cheapest or the most gainful."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec

from edgecap.analysis.routing.sides import RoutedPair, difficulty

SHARES = (0.0, 0.10, 0.25, 0.50, 0.75, 1.0)  # of the bytes, for the splits of the table
_ROUNDING = 1e-12  # bits per byte


class Split(msgspec.Struct, frozen=True):
    """A split: documents above `threshold` bits per byte go to the large model.

    `share` is their share of the bytes, `documents` their number. The `random_` fields are expected
    values of a random share of the same size, for which the small model need not judge.
    """

    share: float
    documents: int
    threshold: float
    bits_per_byte: float
    cost_per_kb: float
    random_bits_per_byte: float
    random_cost_per_kb: float


class RoutingVerdict(NamedTuple):
    """The verdict of a Route, its reason, and the split if it is one."""

    word: str
    reason: str
    best: Split | None = None


def all_splits(pair: RoutedPair) -> list[Split]:
    """Return a split at each border between difficulties, from no document to all."""
    own, other = pair.small.documents, pair.large.documents
    total, hard = pair.small.bytes, [difficulty(own[n]) for n in pair.order]
    sent = list(accumulate((own[n].bytes for n in pair.order), initial=0))
    bits = list(accumulate((other[n].nll_bits - own[n].nll_bits for n in pair.order), initial=0.0))
    tokens = list(accumulate((other[n].tokens for n in pair.order), initial=0))
    kilobytes = total / 1000
    return [
        Split(
            share=sent[k] / total,
            documents=k,
            threshold=_threshold(hard, k),
            bits_per_byte=pair.low.bits_per_byte + bits[k] / total,
            cost_per_kb=pair.low.cost_per_kb + pair.large.token_cost * tokens[k] / kilobytes,
            random_bits_per_byte=_mix(
                pair.low.bits_per_byte, pair.high.bits_per_byte, sent[k] / total
            ),
            random_cost_per_kb=_mix(pair.low.cost_per_kb, pair.high.cost_per_kb, sent[k] / total),
        )
        for k in range(len(hard) + 1)
        if k in (0, len(hard)) or hard[k - 1] > hard[k]
    ]


def _threshold(hard: Sequence[float], k: int) -> float:
    """Return the mean of the last difficulty that is routed and the first that stays.

    It is the hardest if no document is routed, and 0 if all are.
    """
    if k == 0:
        return hard[0]
    return (hard[k - 1] + hard[k]) / 2 if k < len(hard) else 0.0


def _mix(small: float, large: float, share: float) -> float:
    return (1 - share) * small + share * large


def shown_splits(splits: Sequence[Split]) -> tuple[Split, ...]:
    """Return the splits nearest to SHARES, each once."""
    return tuple(dict.fromkeys(_nearest(splits, share) for share in SHARES)) if splits else ()


def _nearest(splits: Sequence[Split], share: float) -> Split:
    return min(splits, key=lambda s: abs(s.share - share))


def decide(splits: Sequence[Split], pair: RoutedPair, at_most: float | None) -> RoutingVerdict:
    """Return the verdict on the splits, with or without a limit in bits per byte."""
    if at_most is not None and pair.low.bits_per_byte <= at_most:
        return RoutingVerdict(
            "small alone", f"it is the cheapest, and within the limit of {at_most:g} by itself"
        )
    if not splits and at_most is not None:
        return RoutingVerdict(
            "out of reach", "it is the cheapest and needs the fewest bits, yet is above that"
        )
    if not splits:
        return RoutingVerdict(
            "small alone", "it is the cheapest and needs the fewest bits: routing gains nothing"
        )
    return _best_over_random(splits, pair) if at_most is None else _cheapest(splits, pair, at_most)


def _cheapest(splits: Sequence[Split], pair: RoutedPair, at_most: float) -> RoutingVerdict:
    """Choose the cheapest split within the limit, unless the large model alone is cheaper."""
    within = [s for s in splits if s.bits_per_byte <= at_most]
    best = min(within, key=lambda s: (s.cost_per_kb, s.share), default=None)
    if pair.high.bits_per_byte <= at_most and (
        best is None or pair.high.cost_per_kb <= best.cost_per_kb
    ):
        return RoutingVerdict(
            "large alone",
            f"it is within the limit of {at_most:g}, and every split that is costs more",
        )
    if best is None:
        fewest = min(s.bits_per_byte for s in splits)
        return RoutingVerdict("out of reach", f"the best split needs {fewest:.4f} bits per byte")
    reason = f"the cheapest split within {at_most:g} bits per byte"
    if _gain(best, pair) <= _ROUNDING:
        reason += "; documents drawn at random are within it for less, since nobody judges them"
    return RoutingVerdict("split", reason, best)


def _best_over_random(splits: Sequence[Split], pair: RoutedPair) -> RoutingVerdict:
    """Choose the split that gains most over a random share of the same cost, if any does."""
    best = max(splits, key=lambda s: _gain(s, pair))
    if _gain(best, pair) <= _ROUNDING:
        return RoutingVerdict(
            "no gain", "at the same cost, documents drawn at random do as well as the hardest ones"
        )
    return RoutingVerdict(
        "split", "it gains most over documents drawn at random for the same cost", best
    )


def _gain(split: Split, pair: RoutedPair) -> float:
    """Return bits per byte below a random share of the same cost, which needs no judging."""
    difference = pair.high.cost_per_kb - pair.low.cost_per_kb
    share = (
        min(1.0, (split.cost_per_kb - pair.low.cost_per_kb) / difference) if difference > 0 else 1.0
    )
    return _mix(pair.low.bits_per_byte, pair.high.bits_per_byte, share) - split.bits_per_byte
