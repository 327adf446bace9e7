"""A prediction for a model that was not run, with the models that it rests on."""

from __future__ import annotations

import msgspec

from edgecap.analysis.predicting.device import DevicePrediction
from edgecap.record import Estimate


class HeldOut(msgspec.Struct, frozen=True):
    """A model of the series: measured bits per token, and those predicted from the others."""

    name: str
    flops_per_token: float
    nll_bits_per_token: float
    predicted_bits_per_token: float | None
    error_bits: float | None


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was not run, with 95 % intervals.

    Intervals join the error of the law, from leaving out each record, with resampled documents.
    `law_bits` is the first part alone, half the interval of the bits per token on these very
    documents; None if no `degrees` of freedom are left after the fit, so that the interval is that
    of the documents. `bias_fitted` means that no bias was given. `error_bits` is the root mean
    square error of the models left out.
    """

    name: str
    model_type: str
    assumed: bool
    parameters: int
    weight_bytes: int | None
    flops_per_token: float
    corpus: str
    protocol: str
    context: int
    documents: int
    precision: str
    bias_bits: float
    bias_fitted: bool
    information_capacity: Estimate
    gain_bits_per_token: Estimate
    nll_bits_per_token: Estimate
    bits_per_byte: Estimate
    text_bits_per_token: float
    degrees: int
    law_bits: float | None
    error_bits: float | None
    device: DevicePrediction
    series: tuple[HeldOut, ...]
    cautions: tuple[str, ...]
