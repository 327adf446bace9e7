"""Fit the bias b of a corpus: on a series of models, (G + b) / log2 N is most constant. Pure.

`series` selects the cells, `bias` computes, `result` holds the fit; see docs/method.md, section Fit
and predict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from edgecap import stats
from edgecap.analysis.fitting.bias import (
    CRITERION,
    best_bias,
    capacities,
    is_determined,
    kendall_tau,
    leave_one_out_biases,
    limit_spread,
    ranks,
    spread,
)
from edgecap.analysis.fitting.result import Fit, FittedModel, apply_bias, make_card
from edgecap.analysis.fitting.series import (
    Series,
    SeriesModel,
    one_series,
    series_by_corpus,
    two_corpora_message,
)
from edgecap.errors import UsageError
from edgecap.record import Estimate, Profile

if TYPE_CHECKING:
    from edgecap.stats import Floats

__all__ = [
    "CRITERION",
    "Fit",
    "FittedModel",
    "Series",
    "make_card",
    "fit",
    "fit_series",
    "one_series",
    "fit_bias",
    "apply_bias",
]
WIDE = 2.0  # ratio of capacities at the ends of the interval, from which b is badly determined
HARDLY = 0.5  # share of the spread under an infinite bias, from which no bias fits


def fit(records: Sequence[Profile], precision: str = "fp32") -> list[Fit]:
    """Fit a bias for each corpus of the records, from their cells of one precision.

    Raises UsageError if fewer than two models share a corpus, if models were not scored alike, or
    if no bias makes their capacities constant.
    """
    series_list = series_by_corpus(records, precision)
    single = next((s for s in series_list if len(s.points) < 2), None)
    if single is not None:
        raise UsageError(_too_few_message(single, series_list))
    return [fit_series(series, precision) for series in series_list]


def _too_few_message(single: Series, series_list: Sequence[Series]) -> str:
    model = single.points[0]
    if len(series_list) > 1:
        return two_corpora_message(series_list)
    note = f" ({single.notes[0]})" if single.notes else ""
    return (
        f"a bias needs at least two models of a series, this is one: {model.name}{note}; "
        "give records of others"
    )


def fit_series(series: Series, precision: str) -> Fit:
    """Fit the bias of one series. Raises UsageError if none makes the capacities constant."""
    first, work, gains = series.points[0], series.work, series.gains
    bias = fit_bias(series)
    drawn = series.drawn_gains
    draws = None if drawn is None else best_bias(work, drawn)
    interval = _interval(bias, work, drawn, draws)
    mean = float(capacities(work, gains, bias).mean())
    recorded_biases = {p.record.corpus.bias_bits for p in series.points}
    recorded = recorded_biases.pop() if len(recorded_biases) == 1 else None
    old, new = capacities(work, gains, recorded or 0.0), capacities(work, gains, bias)
    result = Fit(
        corpus=first.record.corpus.name,
        sha256=first.record.corpus.sha256,
        protocol=first.text.protocol,
        context=first.text.context,
        stride=first.text.stride,
        documents=len(first.text.per_document),
        precision=precision,
        criterion=CRITERION,
        bias_bits=interval,
        information_capacity=_mean_capacity(mean, work, drawn, draws, interval),
        exact=len(series.points) == 2,
        recorded_bias_bits=recorded,
        spread_with_zero=spread(capacities(work, gains, 0.0)),
        spread_recorded=None if recorded is None else spread(old),
        spread_fitted=0.0 if len(series.points) == 2 else spread(new),
        spread_endless=limit_spread(work),
        agreement=None if len(new) == 2 else kendall_tau(old.tolist(), new.tolist()),
        models=_fitted_models(series, recorded, bias),
        cautions=series.notes,
    )
    return msgspec.structs.replace(
        result,
        cautions=(
            *series.notes,
            *_cautions(result, gains, _undetermined_share(work, drawn, draws)),
        ),
    )


def fit_bias(series: Series) -> float:
    """Return the bias of least spread.

    Raises UsageError if the models are of one size or the larger ones gain no more.
    """
    work, gains = series.work, series.gains
    bias = best_bias(work, gains)
    if float(work.max() - work.min()) < 1e-9:
        raise UsageError(
            f"all models cost {series.points[0].flops.per_token:g} FLOPs per token: "
            "a bias needs two sizes"
        )
    if not is_determined(work, gains, bias):
        gained = ", ".join(f"{p.name} {p.text.gain_bits_per_token:.3f}" for p in series.points)
        raise UsageError(
            "no bias makes these capacities constant, because larger models do not gain more "
            f"bits per token ({gained}): give records of one series"
        )
    return float(bias)


# --- intervals --------------------------------------------------------------------------------


def _undetermined_share(work: Floats, drawn: Floats | None, draws: Floats | None) -> float:
    """Return the share of resamplings without a best bias: larger models gain no more."""
    import numpy as np

    if drawn is None or draws is None:
        return 0.0
    return float(np.mean(~is_determined(work, drawn, draws)))


def _interval(bias: float, work: Floats, drawn: Floats | None, draws: Floats | None) -> Estimate:
    """Return the bias with its interval; open if too many resamplings give no bias."""
    return stats.interval(bias, None if _undetermined_share(work, drawn, draws) > 0.025 else draws)


def _mean_capacity(
    mean: float, work: Floats, drawn: Floats | None, draws: Floats | None, bias: Estimate
) -> Estimate:
    """Return the mean capacity, each resampling with its own bias."""
    if drawn is None or draws is None or bias.low is None:
        return Estimate(value=mean, low=None, high=None)
    return stats.interval(mean, capacities(work, drawn, draws).mean(-1))


# --- models and cautions ----------------------------------------------------------------------


def _fitted_models(series: Series, recorded: float | None, bias: float) -> tuple[FittedModel, ...]:
    work, gains = series.work, series.gains
    zero, old, new = (capacities(work, gains, b) for b in (0.0, recorded or 0.0, bias))
    # Capacities of two models are equal by construction and differ by rounding only.
    places = [1] * len(new) if len(new) == 2 else ranks(new.tolist())
    before: list[int | None] = [None] * len(old) if recorded is None else [*ranks(old.tolist())]
    rows = zip(
        series.points,
        new,
        ranks(zero.tolist()),
        before,
        places,
        leave_one_out_biases(work, gains),
        strict=True,
    )
    return tuple(_fitted_model(p, float(capacity), *rest) for p, capacity, *rest in rows)


def _fitted_model(
    p: SeriesModel,
    capacity: float,
    zero: int,
    recorded: int | None,
    fitted: int,
    bias_without: float | None,
) -> FittedModel:
    source = p.record.source
    return FittedModel(
        name=p.name,
        weights_sha256=source.weights_sha256,
        tokenizer_sha256=source.tokenizer_sha256,
        created_utc=p.record.created_utc,
        tokens=p.text.tokens,
        flops_per_token=p.flops.per_token,
        gain_bits_per_token=p.text.gain_bits_per_token,
        information_capacity=capacity,
        rank_with_zero=zero,
        rank_recorded=recorded,
        rank_fitted=fitted,
        bias_without=bias_without,
    )


def _cautions(result: Fit, gains: Floats, undetermined: float) -> list[str]:
    """List what makes the bias less certain than its number looks."""
    warnings = []
    if result.exact:
        warnings.append(
            "two models: one bias makes their capacities equal, "
            "which does not show that they are; add a third"
        )
    if result.recorded_bias_bits is None:
        warnings.append("the records have different biases: the old ranks are those without bias")
    low, high = result.bias_bits.low, result.bias_bits.high
    if undetermined > 0.025:
        warnings.append(
            f"in {100 * undetermined:.0f} % of the resamplings larger models do not gain more: "
            "the bias is not bounded"
        )
    elif low is None or high is None:
        warnings.append("one document: nothing to resample, so the bias has no interval")
    elif not float(gains.mean()) + high < WIDE * (float(gains.mean()) + low):
        warnings.append(
            f"badly determined: across its interval ({low:.2f}..{high:.2f}) "
            f"the capacity changes by a factor of {WIDE:g} or more"
        )
    if result.spread_fitted > HARDLY * result.spread_endless:
        warnings.append(
            "hardly any bias makes these capacities constant: an infinite one leaves a spread of "
            f"{100 * result.spread_endless:.2f} %"
        )
    return warnings
