"""Card of a corpus: a JSON file beside the text with its fitted bias and how it was fitted.

`edgecap fit --write-corpus` writes it, `corpus` reads it. It names its text by hash.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec

from edgecap.errors import UsageError
from edgecap.names import shortened
from edgecap.record import Absent, Estimate, Law
from edgecap.storage.files import require_regular_file

CARD_SUFFIX = ".card.json"
CARD_FORMAT = 1
LEAST_SLOPE, LARGEST_SLOPE = 0.001, 100.0  # bits a doubling; known series have 0.1 to 0.3


class BiasCardModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model that the bias was fitted on; `created_utc` names its record."""

    name: str
    weights_sha256: str
    tokenizer_sha256: str
    created_utc: str
    tokens: int
    flops_per_token: float
    gain_bits_per_token: float


class BiasCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bias of a text in bits a token with its 95 % interval, and how it was fitted.

    A bound is None if nothing bounds it. `sha256` is that of the text. `slope` is the mean of the
    models' capacities: bits a token for a doubling of their FLOPs; older cards have none. Spreads
    are coefficients of variation of the capacities.
    """

    edgecap_card: int = CARD_FORMAT
    corpus: str
    sha256: str
    bias_bits: float
    low: float | None
    high: float | None
    slope: float | None = None
    slope_low: float | None = None
    slope_high: float | None = None
    criterion: str
    spread_with_zero: float
    spread_fitted: float
    protocol: str
    context: int
    stride: int | None
    precision: str
    edgecap: str
    models: tuple[BiasCardModel, ...]


def law_of_card(card: BiasCard, whole: bool = True) -> Law | Absent:
    """Return the law of the series that a card was fitted on; of a part of its text, the slope.

    Absent if the card has no models, or a slope that no series has.
    """
    sizes = [model.flops_per_token for model in card.models]
    if len(sizes) < 2 or min(sizes) <= 1:
        return Absent(reason="the card has no series of models")
    gains = [model.gain_bits_per_token + card.bias_bits for model in card.models]
    mean = sum(g / math.log2(n) for g, n in zip(gains, sizes, strict=True)) / len(sizes)
    slope = card.slope if card.slope is not None else mean
    if not LEAST_SLOPE <= slope <= LARGEST_SLOPE:
        name = "slope" if card.slope is not None else "slope of its models"
        return Absent(reason=_slope_error(name, slope))
    return Law(
        models=f"{card.models[0].name} to {card.models[-1].name}",
        slope=Estimate(value=slope, low=card.slope_low, high=card.slope_high),
        bias_bits=card.bias_bits
        if whole
        else Absent(reason="the card is of other text, or of more"),
        smallest_flops=min(sizes),
        largest_flops=max(sizes),
    )


CARD_MARKER = '"edgecap_card"'  # near the beginning of every card


def card_path(corpus: Path) -> Path:
    """Return the path of the card of a corpus: my.jsonl has my.jsonl.card.json."""
    return corpus.with_name(f"{corpus.name}{CARD_SUFFIX}")


def encode_card(card: BiasCard) -> str:
    """Return the card as JSON text."""
    return f"{msgspec.json.format(msgspec.json.encode(card), indent=1).decode()}\n"


def read_card(corpus: Path, sha256: str, part: bool = False) -> BiasCard | None:
    """Read the card beside a corpus whose text has this hash; return None if there is none.

    A `part` of the text has another hash, and so no card. Raises UsageError if the card is damaged,
    or is for another text.
    """
    path = card_path(corpus)
    if not path.exists():
        return None
    card = open_card(path)
    if card.sha256 != sha256:
        if part:
            return None
        raise UsageError(
            f"{path} is the card of another text "
            f"({card.sha256[:8]}, {corpus.name} is {sha256[:8]}): "
            f"{_INSTEAD}"
        )
    return card


def open_card(path: Path) -> BiasCard:
    """Read a card. Raises UsageError if it is missing or damaged."""
    require_regular_file(path, "the card")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the card {path}: {error.strerror}") from error
    try:
        card = msgspec.json.decode(content, type=BiasCard)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = _wrong_slope(content) or f"it is no card of a corpus ({error})"
        raise UsageError(f"{path} cannot be used: {reason}: {_INSTEAD}") from error
    if card.edgecap_card != CARD_FORMAT or not math.isfinite(card.bias_bits):
        raise UsageError(
            f"{path} is a card of form {card.edgecap_card}, "
            f"this program reads {CARD_FORMAT}: {_INSTEAD}"
        )
    return card


def _wrong_slope(content: bytes) -> str:
    """Return what is wrong with a slope of a card that is no `BiasCard`; empty if nothing is."""
    try:
        card = json.loads(content)  # takes NaN and 1e999 too, so that they can be named
    except (ValueError, RecursionError):
        return ""
    slopes = {name: card.get(name) for name in _SLOPES} if isinstance(card, dict) else {}
    wrong = {
        name: value
        for name, value in slopes.items()
        if value is not None and not (type(value) in (int, float) and math.isfinite(value))
    }
    return next((_slope_error(name, value) for name, value in wrong.items()), "")


def _slope_error(name: str, value: object) -> str:
    return (
        f"{name} is {shortened(json.dumps(value), 40)}, "
        f"not a number from {LEAST_SLOPE:g} to {LARGEST_SLOPE:g} bits a doubling"
    )


_SLOPES = ("slope", "slope_low", "slope_high")
_INSTEAD = "write it anew with edgecap fit --write-corpus, move it away, or give --bias"
