"""Predict another size of a series before it is run: bits, capacity, FLOPs, seconds and joules.

`bits` holds the capacity law, `leave_one_out` its error, `device` the roofline, `caveats` the
limits. The tokenizer is assumed to be that of the series, so that a token carries as many bytes.
See docs/method.md, section Fit and predict. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from edgecap import stats
from edgecap.analysis.fitting import Series, fit_bias, one_series
from edgecap.analysis.predicting.bits import CapacityLaw, fit_law, law_half_width, predict_left_out
from edgecap.analysis.predicting.caveats import find_caveats
from edgecap.analysis.predicting.device import DevicePrediction, predict_device
from edgecap.analysis.predicting.result import HeldOut, Prediction
from edgecap.analysis.score import document_columns, domains
from edgecap.errors import UsageError
from edgecap.model import flops
from edgecap.record import Architecture, Estimate, Profile

if TYPE_CHECKING:
    from edgecap.stats import Floats

__all__ = ["DevicePrediction", "HeldOut", "Prediction", "predict"]
MOST_BIAS = 1000.0  # bits per token: no token carries so many


def predict(
    records: Sequence[Profile],
    model: Architecture,
    name: str,
    precision: str = "fp32",
    provider: str | None = None,
    bias_bits: float | None = None,
) -> Prediction:
    """Predict a model of this architecture from the records of a series.

    Raises UsageError if the records are not of one series, are fewer than two models without a
    given bias, or if the model has fewer positions than FLOPs are averaged over.
    """
    series = one_series(records, precision, provider)
    _check_request(series, model, name, bias_bits)
    first, work, gains = series.points[0], series.work, series.gains
    counted = flops.count_flops(
        model, first.flops.context, first.flops.prefill_tokens, first.flops.own_position
    )
    work_at = math.log2(counted.per_token)
    law = fit_law(work, gains, bias_bits)
    half = law_half_width(work, gains, work_at, bias_bits)
    predicted, degrees = (
        predict_left_out(work, gains, bias_bits),
        len(work) - (2 if bias_bits is None else 1),
    )
    stored = flops.storage_precision(precision)
    result = Prediction(
        name=name,
        model_type=model.model_type,
        assumed=model.assumed,
        parameters=flops.parameters(model).total,
        weight_bytes=flops.weight_bytes(model, stored) if stored in flops.STORED else None,
        flops_per_token=counted.per_token,
        corpus=first.record.corpus.name,
        protocol=first.text.protocol,
        context=first.text.context,
        documents=len(first.text.per_document),
        precision=precision,
        bias_bits=float(law.bias),
        bias_fitted=bias_bits is None,
        **_predict_bits(series, law, work_at, half, bias_bits),
        text_bits_per_token=first.text.text_bits_per_token,
        degrees=max(0, degrees),
        law_bits=half,
        error_bits=None
        if predicted is None
        else float(math.sqrt(((gains - predicted) ** 2).mean())),
        device=predict_device(series.points, model, counted.per_token),
        series=_held_out(series, predicted),
        cautions=(),
    )
    return msgspec.structs.replace(
        result, cautions=(*series.notes, *find_caveats(result, series, model))
    )


def _check_request(series: Series, model: Architecture, name: str, bias_bits: float | None) -> None:
    first = series.points[0]
    if bias_bits is not None and not abs(bias_bits) <= MOST_BIAS:
        raise UsageError(
            f"--bias {bias_bits:g}: give bits per token, at most {MOST_BIAS:g} either way"
        )
    if bias_bits is None and len(series.points) < 2:
        note = f" ({series.notes[0]})" if series.notes else ""
        raise UsageError(
            f"a series has at least two models, this is one: {first.name}{note}; "
            "give records of others, or --bias"
        )
    if bias_bits is None:
        fit_bias(series)
    if model.positions is not None and model.positions < first.flops.context:
        raise UsageError(
            f"{name} has {model.positions} positions, "
            f"and the FLOPs of the records are means over {first.flops.context}"
        )


# --- bits -------------------------------------------------------------------------------------


def _predict_bits(
    series: Series, law: CapacityLaw, at: float, half: float | None, bias_bits: float | None
) -> dict[str, Estimate]:
    """Return gain, bits per token and byte, and capacity, each with both errors.

    `half` is the error of the law in bits per token.
    """
    text, gain = series.points[0].text, float(law.gain(at))
    needed, tokens_per_byte = text.text_bits_per_token - gain, text.tokens / text.bytes
    drawn = _bit_draws(series, at, bias_bits)
    capacity = (gain + float(law.bias)) / at
    return {
        "gain_bits_per_token": _combine_errors(gain, drawn["gain"], half),
        "nll_bits_per_token": _combine_errors(needed, drawn["needed"], half, 0.0),
        "bits_per_byte": _combine_errors(
            needed * tokens_per_byte, drawn["bits_per_byte"], half, 0.0, tokens_per_byte
        ),
        "information_capacity": _combine_errors(capacity, drawn["capacity"], half, None, 1 / at),
    }


def _bit_draws(series: Series, at: float, bias_bits: float | None) -> dict[str, Floats | None]:
    """Return the same from each resampling of the documents, which changes bytes per token too."""
    gains = series.drawn_gains
    if gains is None:
        return dict.fromkeys(("gain", "needed", "bits_per_byte", "capacity"))
    text = series.points[0].text
    sums = stats.bootstrap_sums(document_columns(text), strata=domains(text))
    tokens = sums[:, 2].clip(1)
    law = fit_law(series.work, gains, bias_bits)
    gain = law.gain(at)
    needed = gains[:, 0] + sums[:, 1] / tokens - gain
    return {
        "gain": gain,
        "needed": needed,
        "bits_per_byte": needed * 8 * tokens / sums[:, 0].clip(1),
        "capacity": law.capacity,
    }


def _combine_errors(
    value: float,
    draws: Floats | None,
    half: float | None,
    least: float | None = None,
    scale: float = 1.0,
) -> Estimate:
    """Combine two independent errors: the root of the sum of their squares, on either side.

    `least` bounds the interval from below: beyond it the law has ended, which is a caveat.
    """
    inner = stats.interval(value, draws)
    half_scaled = 0.0 if half is None else half * scale
    if inner.low is None or inner.high is None:
        bounds = (None, None) if half is None else (value - half_scaled, value + half_scaled)
    else:
        bounds = (
            value - math.hypot(half_scaled, value - inner.low),
            value + math.hypot(half_scaled, inner.high - value),
        )
    low, high = bounds
    if low is not None and least is not None:
        low = min(value, max(least, low))
    return Estimate(value=value, low=low, high=high)


def _held_out(series: Series, predicted: Floats | None) -> tuple[HeldOut, ...]:
    rows = []
    for n, point in enumerate(series.points):
        text, gain = point.text, None if predicted is None else float(predicted[n])
        needed = None if gain is None else text.text_bits_per_token - gain
        error = None if needed is None else needed - text.nll_bits_per_token
        rows.append(
            HeldOut(point.name, point.flops.per_token, text.nll_bits_per_token, needed, error)
        )
    return tuple(rows)
