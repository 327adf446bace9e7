"""Card of a corpus: a JSON file beside the text with its fitted bias and how it was fitted.

`edgecap fit --write-corpus` writes it, `corpus` reads it. It names its text by hash.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from edgecap.errors import UsageError
from edgecap.storage.files import require_regular_file

CARD_SUFFIX = ".card.json"
CARD_FORMAT = 1


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

    A bound is None if nothing bounds it. `sha256` is that of the text. Spreads are coefficients of
    variation of the models' capacities.
    """

    edgecap_card: int = CARD_FORMAT
    corpus: str
    sha256: str
    bias_bits: float
    low: float | None
    high: float | None
    criterion: str
    spread_with_zero: float
    spread_fitted: float
    protocol: str
    context: int
    stride: int | None
    precision: str
    edgecap: str
    models: tuple[BiasCardModel, ...]


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
    require_regular_file(path, "the card")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read the card {path}: {error.strerror}") from error
    try:
        card = msgspec.json.decode(raw, type=BiasCard)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no card of a corpus ({error}): {_INSTEAD}") from error
    if card.edgecap_card != CARD_FORMAT or not math.isfinite(card.bias_bits):
        raise UsageError(
            f"{path} is a card of form {card.edgecap_card}, "
            f"this program reads {CARD_FORMAT}: {_INSTEAD}"
        )
    if card.sha256 != sha256:
        if part:
            return None
        raise UsageError(
            f"{path} is the card of another text "
            f"({card.sha256[:8]}, {corpus.name} is {sha256[:8]}): "
            f"{_INSTEAD}"
        )
    return card


_INSTEAD = "write it anew with edgecap fit --write-corpus, move it away, or give --bias"
