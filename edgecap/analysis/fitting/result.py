"""The result of a fit: bias, interval, spreads and ranks; its card, and records scored under it."""

from __future__ import annotations

import msgspec

from edgecap import __version__
from edgecap.analysis.decoding import decoding_shift
from edgecap.analysis.score import score
from edgecap.analysis.warnings.quality import FOREIGN_BIAS
from edgecap.record import Absent, Cell, Estimate, Measurement, Profile
from edgecap.text.bias_card import BiasCard, BiasCardModel, law_of_card


class FittedModel(msgspec.Struct, frozen=True):
    """A model of the series, ranked by capacity under each bias.

    `rank_recorded` is None if the records had several biases. `bias_without` is the bias fitted
    without this model, None if two or fewer would be left.
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
    """The bias of one corpus in bits per token, with its 95 % interval over documents.

    The interval is open if nothing bounds it. Spreads are coefficients of variation, as shares:
    without bias, with the recorded one, with the fitted one, and with an infinite one. `exact`
    marks two models, whose capacities one bias makes equal. `agreement` is Kendall's tau of the
    ranks under the old and the new bias, None for two models.
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


def make_card(result: Fit) -> BiasCard:
    """Return the card that carries a fitted bias to its corpus."""
    return BiasCard(
        corpus=result.corpus,
        sha256=result.sha256,
        bias_bits=result.bias_bits.value,
        low=result.bias_bits.low,
        high=result.bias_bits.high,
        slope=result.information_capacity.value,
        slope_low=result.information_capacity.low,
        slope_high=result.information_capacity.high,
        criterion=result.criterion,
        spread_with_zero=result.spread_with_zero,
        spread_fitted=result.spread_fitted,
        protocol=result.protocol,
        context=result.context,
        stride=result.stride,
        precision=result.precision,
        edgecap=__version__,
        models=tuple(
            BiasCardModel(**{name: getattr(m, name) for name in BiasCardModel.__struct_fields__})
            for m in result.models
        ),
    )


def apply_bias(record: Profile, card: BiasCard) -> Profile:
    """Return the record with scores recomputed under the bias of a card; measurements stay."""
    bias_bits = card.bias_bits
    replace = msgspec.structs.replace
    spec = (
        record.spec if record.spec.bias_bits is None else replace(record.spec, bias_bits=bias_bits)
    )
    corpus = replace(record.corpus, bias_bits=bias_bits, law=law_of_card(card))
    rebiased = replace(record, spec=spec, corpus=corpus)
    return replace(rebiased, cells=tuple(_rescore_cell(cell, rebiased) for cell in record.cells))


def _rescore_cell(cell: Cell, record: Profile) -> Cell:
    if not isinstance(cell.outcome, Measurement) or isinstance(cell.score, Absent):
        return cell
    new_score = score(
        cell.outcome,
        record.flops,
        record.corpus.bias_bits,
        cell.score.roofline_ratio,
        decoding_shift(record, cell),
        record.corpus.law,
    )
    cautions = tuple(c for c in cell.cautions if c.code != FOREIGN_BIAS)
    return msgspec.structs.replace(cell, score=new_score, cautions=cautions)
