"""A predicted model size: its needs and costs, and how well the series predicts itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import click

from edgecap import units
from edgecap.analysis.predicting import DevicePrediction, HeldOut, Prediction
from edgecap.names import printable
from edgecap.record import Absent, Estimate
from edgecap.report.format import table, wrapped
from edgecap.report.terminal.candidates import in_lines
from edgecap.units import si, size


def predicted(prediction: Prediction, width: int = 100) -> str:
    """Return the prediction, the errors of leaving each size out, and cautions."""
    parts = [
        _title(prediction),
        _method(prediction, width),
        "",
        _bits(prediction, width),
        "",
        _device(prediction, width),
    ]
    parts += [
        "",
        click.style("Each size of the series, predicted from the others", bold=True),
        _series(prediction, width),
    ]
    cautions = [wrapped(f"caution: {printable(c)}", width, "yellow") for c in prediction.cautions]
    return "\n".join([*parts, *(["", *cautions] if cautions else [])])


def _title(prediction: Prediction) -> str:
    stored = (
        f", {size(prediction.weight_bytes)} of weights in {prediction.precision}"
        if prediction.weight_bytes
        else ""
    )
    head = click.style(f"{printable(prediction.name)}, predicted", bold=True)
    return (
        f"{head}  {units.count(prediction.parameters)} parameters{stored}, "
        f"{si(prediction.flops_per_token, 'FLOP')} a token"
    )


def _method(prediction: Prediction, width: int) -> str:
    origin = "fitted" if prediction.bias_fitted else "given"
    text = (
        f"From {_records(prediction)}, {prediction.precision}: information capacity with the bias "
        f"{prediction.bias_bits:.2f} ({origin}), text {printable(prediction.corpus)}, "
        f"{prediction.documents} documents, protocol "
        f"{prediction.protocol}, window {prediction.context}. The tokenizer is taken to be that "
        "of the series "
        f"({prediction.text_bits_per_token:.2f} bits of text a token)."
    )
    return wrapped(text, width, None)


def _records(prediction: Prediction) -> str:
    return "1 record" if len(prediction.series) == 1 else f"{len(prediction.series)} records"


def _bits(prediction: Prediction, width: int) -> str:
    given = (
        ("bits a token", prediction.nll_bits_per_token, 3),
        ("bits per byte", prediction.bits_per_byte, 4),
        ("bits gained a token", prediction.gain_bits_per_token, 3),
        ("information capacity", prediction.information_capacity, 4),
    )
    rows = [_row(words, value, partial(_rounded, places=places)) for words, value, places in given]
    text = table(["text", "predicted", "95 % interval"], rows, width)
    if prediction.law_bits is None:
        return text
    return (
        f"{text}\nfor other documents of this kind; for these documents: within "
        f"{prediction.law_bits:.3f} bits a token"
    )


def _rounded(value: float, places: int) -> str:
    return f"{value:.{places}f}"


def _row(words: str, value: Estimate, shown: Callable[[float], str]) -> list[str]:
    if value.low is None or value.high is None:
        return [words, shown(value.value), "none"]
    return [words, shown(value.value), f"{shown(value.low)}..{shown(value.high)}"]


def _device(prediction: Prediction, width: int) -> str:
    device = prediction.device
    seconds, joules = partial(si, unit="s"), partial(si, unit="J")
    prompt = "" if isinstance(device.prefill_tokens, Absent) else f" of {device.prefill_tokens}"
    given = (
        ("decode, a token", device.decode_s, seconds),
        (f"prefill{prompt}", device.prefill_s, seconds),
        ("decode energy, a token", device.decode_j, joules),
    )
    where = f"{printable(device.machine)}, {device.provider}, {device.precision}"
    rows = [
        _row(words, value, shown) for words, value, shown in given if isinstance(value, Estimate)
    ]
    lines = [table([where, "predicted", "95 % interval"], rows, width)] if rows else []
    if isinstance(device.attainable_s, float) and isinstance(device.starts_s, float):
        lines.append(wrapped(_law(device, device.attainable_s, device.starts_s), width, None))
    missing = [(words, value.reason) for words, value, _ in given if isinstance(value, Absent)]
    if len(missing) == len(given) and len({reason for _, reason in missing}) == 1:
        missing = [("seconds and joules", missing[0][1])]
    return "\n".join(
        [*lines, *[wrapped(printable(f"no {words}: {why}"), width, None) for words, why in missing]]
    )


def _law(device: DevicePrediction, attainable_s: float, starts_s: float) -> str:
    allowed = f"the peaks allow a decoded token in {si(attainable_s, 's')}"
    counted = (
        f"its {device.operators:.0f} operators"
        if isinstance(device.operators, float)
        else "its operators"
    )
    starts = f"starting {counted} takes {si(starts_s, 's')}"
    if not isinstance(device.efficiency, float):
        return f"{allowed}; {starts}, and the width of the models does not show in their seconds"
    reached = f"{100 * device.efficiency:.2g} % of the peaks"
    return (
        f"{allowed}; the series reaches {reached}"
        if starts_s == 0
        else f"{allowed}; {starts}, beyond which the series reaches {reached}"
    )


def _series(prediction: Prediction, width: int) -> str:
    text = table(
        ["model", "FLOP a token", "bits a token", "predicted", "error"],
        list(map(_held_out, prediction.series)),
        width,
    )
    if prediction.error_bits is None:
        return f"{text}\nnot enough records to leave one out"
    return f"{text}\nroot mean square of the errors: {prediction.error_bits:.3f} bits a token"


def _held_out(one: HeldOut) -> list[str]:
    predicted_texts = (
        ["", ""]
        if one.predicted_bits_per_token is None or one.error_bits is None
        else [f"{one.predicted_bits_per_token:.3f}", f"{one.error_bits:+.3f}"]
    )
    return [
        in_lines(one.name),
        si(one.flops_per_token),
        f"{one.nll_bits_per_token:.3f}",
        *predicted_texts,
    ]
