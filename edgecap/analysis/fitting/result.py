"""What a fit says: the bias with its interval, spreads and ranks, the card that carries it to a corpus, and records under it."""

from __future__ import annotations

import msgspec

from edgecap import __version__
from edgecap.analysis.score import score
from edgecap.analysis.warnings.quality import FOREIGN_BIAS
from edgecap.record import Absent, Cell, Estimate, Measurement, Profile
from edgecap.text.bias_card import Card, CardModel


class FittedModel(msgspec.Struct, frozen=True):
    """A model of the series: places by capacity with the old bias, none where the records had several, and the new.

    `bias_without` is the bias fitted without this model, None where two or fewer would be left.
    """

    name: str
    weights_sha256: str
    tokenizer_sha256: str
    created_utc: str
    tokens: int
    flops_per_token: float
    gain_bits_per_token: float
    information_capacity: float
    rank_with_zero: int
    rank_recorded: int | None
    rank_fitted: int
    bias_without: float | None


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """The bias of one corpus, bits a token, with the 95 % interval over documents; open where nothing bounds it.

    Spreads are coefficients of variation, as shares: without bias, with the one of the records, with the fitted one,
    and with an endless one. `exact`: two models, whose capacities one bias makes equal. `agreement` is Kendall's tau
    of the ranks with the old and the new bias, None of two.
    """

    corpus: str
    sha256: str
    protocol: str
    context: int
    stride: int | None
    documents: int
    precision: str
    criterion: str
    bias_bits: Estimate
    information_capacity: Estimate
    exact: bool
    recorded_bias_bits: float | None
    spread_with_zero: float
    spread_recorded: float | None
    spread_fitted: float
    spread_endless: float
    agreement: float | None
    models: tuple[FittedModel, ...]
    cautions: tuple[str, ...]


def make_card(found: Fit) -> Card:
    """The card of a corpus that carries a fitted bias."""
    return Card(
        corpus=found.corpus,
        sha256=found.sha256,
        bias_bits=found.bias_bits.value,
        low=found.bias_bits.low,
        high=found.bias_bits.high,
        criterion=found.criterion,
        spread_with_zero=found.spread_with_zero,
        spread_fitted=found.spread_fitted,
        protocol=found.protocol,
        context=found.context,
        stride=found.stride,
        precision=found.precision,
        edgecap=__version__,
        models=tuple(
            CardModel(**{name: getattr(m, name) for name in CardModel.__struct_fields__})
            for m in found.models
        ),
    )


def apply_bias(record: Profile, bias_bits: float) -> Profile:
    """The record with the scores that its measurements have under a bias of their own; nothing that was measured changes."""
    replace = msgspec.structs.replace
    spec = (
        record.spec if record.spec.bias_bits is None else replace(record.spec, bias_bits=bias_bits)
    )
    return replace(
        record,
        spec=spec,
        corpus=replace(record.corpus, bias_bits=bias_bits),
        cells=tuple(_rescored(cell, record, bias_bits) for cell in record.cells),
    )


def _rescored(cell: Cell, record: Profile, bias_bits: float) -> Cell:
    if not isinstance(cell.outcome, Measurement) or isinstance(cell.score, Absent):
        return cell
    scored = score(cell.outcome, record.flops, bias_bits, cell.score.roofline_ratio)
    cautions = tuple(c for c in cell.cautions if c.code != FOREIGN_BIAS)
    return msgspec.structs.replace(cell, score=scored, cautions=cautions)
