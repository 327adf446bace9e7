"""Sentences on what makes a prediction less certain than its numbers look."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.analysis.fitting.series import Series, SeriesModel
from edgecap.analysis.outcomes import cost_cautions
from edgecap.analysis.predicting.device import possible_gpus
from edgecap.analysis.predicting.result import Prediction
from edgecap.record import Architecture, Estimate, Machine
from edgecap.units import size

FAR = 4.0  # times the FLOPs of the largest model, or this part of the smallest's
FEW = 4  # models: fewer are a weak basis
SHAPE = 2.0  # times the depth or width of the series: beyond it seconds are a guess


def find_caveats(prediction: Prediction, series: Series, model: Architecture) -> list[str]:
    """List what makes the prediction less certain than its numbers look."""
    caveats, k = [], len(series.points)
    if prediction.degrees == 0:
        caveats.append(
            f"{k} {'record leaves' if k == 1 else 'records leave'} nothing to test the law with: "
            "the interval covers the choice of documents alone, not the error of the law"
        )
    elif k < FEW:
        caveats.append(
            f"{k} records are few: they leave {prediction.degrees} "
            f"degree{'s' * (prediction.degrees > 1)} of freedom, hence a wide interval"
        )
    least, most = series.points[0].flops.per_token, series.points[-1].flops.per_token
    if prediction.flops_per_token > FAR * most or prediction.flops_per_token < least / FAR:
        edge, word = (most, "largest") if prediction.flops_per_token > most else (least, "smallest")
        caveats.append(
            f"far from the series: {prediction.flops_per_token / edge:.2g} times the FLOPs "
            f"of the {word}, beyond which nothing shows that the law holds"
        )
    caveats += _record_caveats(prediction, series, model)
    if prediction.nll_bits_per_token.value <= 0:
        caveats.append("the law ends before this size: it would need no bits at all")
    shape = series.points[-1].record.source.architecture
    if isinstance(shape, Architecture) and shape.vocabulary != model.vocabulary:
        caveats.append(
            f"the config has a vocabulary of {model.vocabulary}, the series one of "
            f"{shape.vocabulary}: with another tokenizer a token carries another number of bytes"
        )
    if prediction.assumed:
        caveats.append("edgecap does not know this model type: it was read by standard field names")
    return caveats


def _record_caveats(prediction: Prediction, series: Series, model: Architecture) -> list[str]:
    """List what machine, shapes and cautions of the records say against the prediction."""
    caveats, shapes = [], [p.record.source.architecture for p in series.points]
    architectures = [s for s in shapes if isinstance(s, Architecture)]
    same = next((p for p, s in zip(series.points, shapes, strict=True) if s == model), None)
    if same is not None:
        caveats.append(
            f"{same.name} has this architecture, and was measured: "
            f"{same.text.nll_bits_per_token:.3f} bits per token"
        )
    if isinstance(prediction.device.decode_s, Estimate):
        caveats += [
            text
            for what, value, values in _shapes(model, architectures)
            if (text := _shape_caveat(what, value, values))
        ]
        memory = _memory_bytes(series.points[-1])
        if prediction.weight_bytes and prediction.weight_bytes > memory:
            caveats.append(
                f"its weights ({size(prediction.weight_bytes)}) do not fit into the memory "
                f"({size(memory)}): seconds and joules are those of a machine with enough memory"
            )
        caveats += [text for p in series.points if (text := _caution_line(p))]
    return caveats


def _shapes(
    model: Architecture, architectures: Sequence[Architecture]
) -> list[tuple[str, int, list[int]]]:
    return [
        ("layers", model.depth, [s.depth for s in architectures]),
        ("numbers wide", model.hidden, [s.hidden for s in architectures]),
    ]


def _shape_caveat(what: str, value: int, values: Sequence[int]) -> str:
    if not values or min(values) / SHAPE <= value <= SHAPE * max(values):
        return ""
    series_range = (
        f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"
    )
    return (
        f"it has {value} {what}, the series {series_range}: "
        "operators of that shape were not measured, seconds may be far off"
    )


def _memory_bytes(point: SeriesModel) -> int:
    return max(
        (board.memory_bytes for board in possible_gpus(point)),
        default=_host_memory(point.record.machine),
    )


def _host_memory(machine: Machine) -> int:
    limit = machine.memory_limit_bytes
    return machine.memory_bytes if limit is None else min(limit, machine.memory_bytes)


def _caution_line(point: SeriesModel) -> str:
    """Name the cautions of a record that weaken its seconds and joules, by their codes."""
    codes = cost_cautions(point.cell)
    return (
        f"the record of {point.name} is cautioned: {', '.join(codes)} (edgecap show --details)"
        if codes
        else ""
    )
