"""Every way to split documents by difficulty, and the one to take: within a limit, or the most below chance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec

from edgecap.analysis.routing.sides import RoutedPair, difficulty

SHARES = (0.0, 0.10, 0.25, 0.50, 0.75, 1.0)  # of the bytes, that are shown
_NOTHING = 1e-12  # bits per byte, of rounding


class Split(msgspec.Struct, frozen=True):
    """The documents above `threshold` bits per byte go on to the large model: that share of the bytes, so many documents.

    `random_` is the same share of the bytes drawn at random, which nobody has to judge: expected values.
    """

    share: float
    documents: int
    threshold: float
    bits_per_byte: float
    cost_per_kb: float
    random_bits_per_byte: float
    random_cost_per_kb: float


class RoutingVerdict(NamedTuple):
    """What to do, why, and the split where it is one."""

    word: str
    reason: str
    best: Split | None = None


def splits_of(pair: RoutedPair) -> list[Split]:
    """Every split at a border between documents of different difficulty, from none to all."""
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
            cost_per_kb=pair.low.cost_per_kb + pair.large.cost * tokens[k] / kilobytes,
            random_bits_per_byte=_mix(
                pair.low.bits_per_byte, pair.high.bits_per_byte, sent[k] / total
            ),
            random_cost_per_kb=_mix(pair.low.cost_per_kb, pair.high.cost_per_kb, sent[k] / total),
        )
        for k in range(len(hard) + 1)
        if k in (0, len(hard)) or hard[k - 1] > hard[k]
    ]


def _threshold(hard: Sequence[float], k: int) -> float:
    """Half way between the last that goes and the first that stays; none is above the hardest, all are above nothing."""
    if k == 0:
        return hard[0]
    return (hard[k - 1] + hard[k]) / 2 if k < len(hard) else 0.0


def _mix(small: float, large: float, share: float) -> float:
    return (1 - share) * small + share * large


def shown(splits: Sequence[Split]) -> tuple[Split, ...]:
    """The splits nearest to the shares that are shown, each once."""
    return tuple(dict.fromkeys(_nearest(splits, share) for share in SHARES)) if splits else ()


def _nearest(splits: Sequence[Split], share: float) -> Split:
    return min(splits, key=lambda s: abs(s.share - share))


def decide(splits: Sequence[Split], pair: RoutedPair, at_most: float | None) -> RoutingVerdict:
    """What to do, of the splits from none to all."""
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
    return _knee(splits, pair) if at_most is None else _cheapest(splits, pair, at_most)


def _cheapest(splits: Sequence[Split], pair: RoutedPair, at_most: float) -> RoutingVerdict:
    """The cheapest split within the limit, unless the large model alone is cheaper."""
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
    words = f"the cheapest split within {at_most:g} bits per byte"
    if _gain(best, pair) <= _NOTHING:
        words += "; documents drawn at random are within it for less, since nobody judges them"
    return RoutingVerdict("split", words, best)


def _knee(splits: Sequence[Split], pair: RoutedPair) -> RoutingVerdict:
    """The split that gains most over chance, if any does."""
    best = max(splits, key=lambda s: _gain(s, pair))
    if _gain(best, pair) <= _NOTHING:
        return RoutingVerdict(
            "no gain", "at the same cost, documents drawn at random do as well as the hardest ones"
        )
    return RoutingVerdict(
        "split", "it gains most over documents drawn at random for the same cost", best
    )


def _gain(split: Split, pair: RoutedPair) -> float:
    """Bits per byte below a random share, which nobody judges, of the same cost."""
    dearer = pair.high.cost_per_kb - pair.low.cost_per_kb
    share = min(1.0, (split.cost_per_kb - pair.low.cost_per_kb) / dearer) if dearer > 0 else 1.0
    return _mix(pair.low.bits_per_byte, pair.high.bits_per_byte, share) - split.bits_per_byte
