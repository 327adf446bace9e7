"""Turn the law of a series round: what gained bits are worth in FLOPs a token.

    G + b = c log2 N                            models of a series on a text (arXiv 2511.08066)
    effective_flops = 2^((G + b) / c)           FLOPs a token of a model that gains as many bits
    compute-equivalent gain = 2^(dG / c)        of one model over another; b cancels

The last is the factor of compute that has the same effect on quality (arXiv 2312.07413), here
compute of a token. The slope c is local: bits a doubling differ between small and large models, and
between texts. Outside the series an interval spans the slopes that are known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgecap import stats
from edgecap.analysis.published import published_series
from edgecap.errors import UsageError
from edgecap.record import Absent, Estimate, Law, Profile
from edgecap.spec import DEFAULT_CORPUS
from edgecap.text.bias_card import (
    LARGEST_SLOPE,
    LEAST_SLOPE,
    BiasCard,
    card_path,
    law_of_card,
    open_card,
)
from edgecap.text.corpus import BUNDLED
from edgecap.units import si, significant

if TYPE_CHECKING:
    from edgecap.stats import Floats, Quantity

REACH = 2.0  # times the FLOPs of the largest model, and below the smallest, for which a law holds
PUBLISHED = "Qwen3"  # its slope is known from 0.6 to 8 B parameters
_SEED = stats.SEED + 7
_NORMAL_95 = 1.96  # standard deviations
_MOST_DOUBLINGS = math.log2(1e290)  # of FLOPs that can still be divided by seconds


class Slopes(NamedTuple):
    """Slopes that may hold, bits a doubling: the one of a series, or all that are known."""

    values: tuple[Estimate, ...]

    @property
    def middle(self) -> float:
        """Return the geometric mean of the extremes."""
        values = [slope.value for slope in self.values]
        return math.sqrt(min(values) * max(values))

    def draws(self) -> Floats:
        """Return draws of each slope, shape (k, 1, DRAWS); of one slope, shape (DRAWS,)."""
        import numpy as np

        drawn = [_draws(slope) for slope in self.values]
        return drawn[0] if len(drawn) == 1 else np.array(drawn)[:, None]


@lru_cache(maxsize=8)
def _draws(slope: Estimate) -> Floats:
    import numpy as np

    spread = 0.0
    if slope.low is not None and slope.high is not None and 0 < slope.low < slope.high:
        low, high = max(slope.low, LEAST_SLOPE), min(slope.high, LARGEST_SLOPE)
        spread = math.log(high / low) / (2 * _NORMAL_95)
    normal = np.random.default_rng(_SEED).standard_normal(stats.DRAWS)
    draws: Floats = slope.value * np.exp(spread * normal)
    return draws


def law_of(record: Profile) -> Law | Absent:
    """Return the law of a record's text; of an older record, that of the bundled card."""
    law, card = record.corpus.law, _bundled_card()
    is_bundled = (record.corpus.sha256, record.corpus.bias_bits) == (card.sha256, card.bias_bits)
    return _bundled_law() if isinstance(law, Absent) and is_bundled else law


def law_conditions(law: Law | Absent) -> dict[str, object]:
    """Return what two laws share if their effective FLOPs are on one scale, as run conditions.

    Numbers have six digits, as those of one card may differ in the last bits between machines. A
    law without a bias lacks that condition.
    """
    if isinstance(law, Absent):
        return {"law": "none", "bias of the law": None}
    slope, bias = law.slope, law.bias_bits
    ends = [
        "unknown" if end is None else significant(end, _DIGITS) for end in (slope.low, slope.high)
    ]
    sizes = [si(flops, "FLOP", _DIGITS) for flops in (law.smallest_flops, law.largest_flops)]
    return {
        "law": f"{significant(slope.value, _DIGITS)} bits a doubling ({' to '.join(ends)}), "
        f"of {' to '.join(sizes)} a token",
        "bias of the law": None if isinstance(bias, Absent) else f"{bias:.{_DIGITS}g} bits",
    }


_DIGITS = 6


def with_law(record: Profile, card: Path) -> Profile:
    """Return a record with the law of a card, as `open_law` returns it."""
    replace, law = msgspec.structs.replace, open_law(card, record.corpus.sha256)
    return replace(record, corpus=replace(record.corpus, law=law))


def open_law(card: Path, sha256: str) -> Law:
    """Return the law of a card for a text of this hash; only its slope if the card has another.

    Raises UsageError if there is no such card, or if it has no law, or an absurd slope.
    """
    found = open_card(card)
    law = law_of_card(found, whole=found.sha256 == sha256)
    if isinstance(law, Absent):
        raise UsageError(f"{card} has no law: {law.reason}")
    return law


def slopes_for(law: Law | Absent, flops: Sequence[float]) -> Slopes:
    """Return the slopes that may hold for models of these FLOPs a token."""
    if isinstance(law, Law) and all(_reaches(law, n) for n in flops):
        return Slopes((law.slope,))
    return _with_known(law.slope if isinstance(law, Law) else None)


@lru_cache(maxsize=8)
def _with_known(slope: Estimate | None) -> Slopes:
    """Return a slope, if there is one, beside those that are known."""
    return Slopes(tuple(dict.fromkeys((*([slope] if slope else []), *known_slopes()))))


def extrapolation(law: Law, flops: float) -> float:
    """Return by what factor FLOPs a token lie outside the series of a law, or 1."""
    return max(law.smallest_flops / flops, flops / law.largest_flops, 1.0)


def _reaches(law: Law, flops: float) -> bool:
    return flops > 0 and extrapolation(law, flops) <= REACH


@lru_cache(maxsize=1)
def known_slopes() -> tuple[Estimate, ...]:
    """Return the slopes of the bundled series and of a published one, each on its own text."""
    law = _bundled_law()
    published = [model.information_capacity for model in published_series()[PUBLISHED]]
    mean = sum(published) / len(published)
    own = (law.slope,) if isinstance(law, Law) else ()
    return (*own, Estimate(value=mean, low=min(published), high=max(published)))


@lru_cache(maxsize=1)
def _bundled_law() -> Law | Absent:
    return law_of_card(_bundled_card())


@lru_cache(maxsize=1)
def _bundled_card() -> BiasCard:
    return open_card(card_path(BUNDLED / f"{DEFAULT_CORPUS}.jsonl"))


# --- bits in FLOPs ----------------------------------------------------------------------------


def effective_flops(gain: Quantity, law: Law | Absent, flops_per_token: float) -> Quantity | Absent:
    """Return the FLOPs a token of a model of the series that gains as many bits, with draws of c.

    The line of the law turns about the middle of its series, where its slope does not matter.
    Documents are not drawn: the law was fitted on the same ones, which moves it as they move.
    """
    if isinstance(law, Absent):
        return law
    if isinstance(law.bias_bits, Absent):
        return law.bias_bits
    middle = math.log2(law.smallest_flops * law.largest_flops) / 2
    beyond = law.bias_bits - law.slope.value * middle
    reached = middle + (gain[0] + beyond) / law.slope.value
    if not abs(reached) < _MOST_DOUBLINGS:
        return _TOO_FAR
    slopes = slopes_for(law, (flops_per_token, 2.0**reached))
    reached = middle + (gain[0] + beyond) / slopes.middle
    if not abs(reached) < _MOST_DOUBLINGS:
        return _TOO_FAR
    value = 2.0**reached
    if gain[1] is None:
        return value, None
    return value, factors(middle + (gain[0] + beyond) / slopes.draws())


_TOO_FAR = Absent(reason="the bits lie too far outside the law of the series")


def factors(doublings: Any) -> Any:
    """Return 2 to the power of doublings, from 1e-290 to 1e290 so that none is infinite."""
    import numpy as np

    return np.exp2(np.clip(doublings, -_MOST_DOUBLINGS, _MOST_DOUBLINGS))


def doublings(baseline: Quantity, candidate: Quantity, slopes: Slopes) -> Quantity:
    """Return log2 of the compute-equivalent gain of a candidate from bits gained, with draws.

    Of quantities of m cells (see `draws`), draws have shape (m, DRAWS), under k slopes
    (k, m, DRAWS).
    """
    value = (candidate[0] - baseline[0]) / slopes.middle
    if baseline[1] is None or candidate[1] is None:
        return value, None
    return value, (candidate[1] - baseline[1]) / slopes.draws()
