"""Another size of a series, told before it is run: bits, capacity, FLOPs, seconds and joules. Pure.

`bits` holds the capacity law, `leaving` how far it may be off, `device` the roofline. The tokenizer is taken to be that
of the series, so that a token carries as many bytes. docs/method.md, section Fit and predict.
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
from edgecap.analysis.score import document_columns
from edgecap.errors import UsageError
from edgecap.model import flops
from edgecap.record import Architecture, Estimate, Profile

if TYPE_CHECKING:
    from edgecap.stats import Floats

__all__ = ["DevicePrediction", "HeldOut", "Prediction", "predict"]
MOST_BIAS = 1000.0  # bits a token: no token carries so many


def predict(
    records: Sequence[Profile],
    model: Architecture,
    name: str,
    precision: str = "fp32",
    provider: str | None = None,
    bias_bits: float | None = None,
) -> Prediction:
    """What the records of a series say of a model of this architecture.

    Raises UsageError where they are not of one series, are fewer than two models without a given bias, or where the
    model has fewer positions than FLOPs are averaged over.
    """
    series = one_series(records, precision, provider)
    _check(series, model, name, bias_bits)
    first, work, gains = series.points[0], series.work, series.gains
    counted = flops.count_flops(
        model, first.flops.context, first.flops.prefill_tokens, first.flops.own_position
    )
    at = math.log2(counted.per_token)
    law = fit_law(work, gains, bias_bits)
    half = law_half_width(work, gains, at, bias_bits)
    predicted, free = (
        predict_left_out(work, gains, bias_bits),
        len(work) - (2 if bias_bits is None else 1),
    )
    stored = flops.stored_as(precision)
    found = Prediction(
        name=name,
        model_type=model.model_type,
        assumed=model.assumed,
        parameters=flops.parameters(model).total,
        weight_bytes=flops.weight_bytes(model, stored)
        if stored in ("fp32", "fp16", "int8", "int4")
        else None,
        flops_per_token=counted.per_token,
        corpus=first.record.corpus.name,
        protocol=first.text.protocol,
        context=first.text.context,
        documents=len(first.text.per_document),
        precision=precision,
        bias_bits=float(law.bias),
        bias_fitted=bias_bits is None,
        **_bits(series, law, at, half, bias_bits),
        text_bits_per_token=first.text.text_bits_per_token,
        degrees=max(0, free),
        law_bits=half,
        error_bits=None
        if predicted is None
        else float(math.sqrt(((gains - predicted) ** 2).mean())),
        device=predict_device(series.points, model, counted.per_token),
        series=_series(series, predicted),
        cautions=(),
    )
    return msgspec.structs.replace(
        found, cautions=(*series.notes, *find_caveats(found, series, model))
    )


def _check(series: Series, model: Architecture, name: str, bias_bits: float | None) -> None:
    first = series.points[0]
    if bias_bits is not None and not abs(bias_bits) <= MOST_BIAS:
        raise UsageError(
            f"--bias {bias_bits:g}: give bits a token, at most {MOST_BIAS:g} either way"
        )
    if bias_bits is None and len(series.points) < 2:
        again = f" ({series.notes[0]})" if series.notes else ""
        raise UsageError(
            f"a series is two models and more, this is one: {first.name}{again}; give records of others, or --bias"
        )
    if bias_bits is None:
        fit_bias(series)
    if model.positions is not None and model.positions < first.flops.context:
        raise UsageError(
            f"{name} has {model.positions} positions, and the FLOPs of the records are means over {first.flops.context}"
        )


# --- bits -------------------------------------------------------------------------------------


def _bits(
    series: Series, law: CapacityLaw, at: float, half: float | None, bias_bits: float | None
) -> dict[str, Estimate]:
    """Gain, bits a token and a byte, and capacity, each with both errors; `half` is that of the law in bits a token."""
    text, gain = series.points[0].text, float(law.gain(at))
    needed, tokens_per_byte = text.text_bits_per_token - gain, text.tokens / text.bytes
    drawn = _drawn(series, at, bias_bits)
    capacity = (gain + float(law.bias)) / at
    return {
        "gain_bits_per_token": _joined(gain, drawn["gain"], half),
        "nll_bits_per_token": _joined(needed, drawn["needed"], half, 0.0),
        "bits_per_byte": _joined(
            needed * tokens_per_byte, drawn["bits_per_byte"], half, 0.0, tokens_per_byte
        ),
        "information_capacity": _joined(capacity, drawn["capacity"], half, None, 1 / at),
    }


def _drawn(series: Series, at: float, bias_bits: float | None) -> dict[str, Floats | None]:
    """The same from each resampling of the documents, whose bytes a token change too."""
    gains = series.drawn_gains
    if gains is None:
        return dict.fromkeys(("gain", "needed", "bits_per_byte", "capacity"))
    text = series.points[0].text
    sums = stats.draws_of_sums(document_columns(text))
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


def _joined(
    value: float,
    draws: Floats | None,
    half: float | None,
    least: float | None = None,
    scale: float = 1.0,
) -> Estimate:
    """Two independent errors as one: the root of the sum of their squares, on either side."""
    inner = stats.interval(value, draws)
    own = 0.0 if half is None else half * scale
    if inner.low is None or inner.high is None:
        bounds = (None, None) if half is None else (value - own, value + own)
    else:
        bounds = (
            value - math.hypot(own, value - inner.low),
            value + math.hypot(own, inner.high - value),
        )
    low, high = bounds
    if (
        low is not None and least is not None
    ):  # what lies below has ended the law, which a caution says
        low = min(value, max(least, low))
    return Estimate(value=value, low=low, high=high)


def _series(series: Series, predicted: Floats | None) -> tuple[HeldOut, ...]:
    rows = []
    for n, point in enumerate(series.points):
        text, told = point.text, None if predicted is None else float(predicted[n])
        needed = None if told is None else text.text_bits_per_token - told
        error = None if needed is None else needed - text.nll_bits_per_token
        rows.append(
            HeldOut(point.name, point.flops.per_token, text.nll_bits_per_token, needed, error)
        )
    return tuple(rows)
