"""What makes a prediction weaker than its numbers look, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.analysis.fitting.series import Series, SeriesModel
from edgecap.analysis.metrics import cost_cautions
from edgecap.analysis.predicting.device import possible_gpus
from edgecap.analysis.predicting.result import Prediction
from edgecap.record import Architecture, Estimate
from edgecap.units import size

FAR = 4.0  # times the FLOPs of the largest, or fewer than those of the smallest: a caution
FEW = 4  # models: fewer are a weak basis
SHAPE = (
    2.0  # times the depth or width that the series has: beyond it seconds are a guess, and told so
)


def find_caveats(found: Prediction, series: Series, model: Architecture) -> list[str]:
    """What makes the prediction weaker than its numbers look."""
    said, k = [], len(series.points)
    if found.degrees == 0:
        said.append(
            f"{k} {'record leaves' if k == 1 else 'records leave'} nothing to test the law with: "
            "the interval holds the choice of documents alone, not the error of the law"
        )
    elif k < FEW:
        said.append(
            f"{k} records are few: they leave {found.degrees} degree{'s' * (found.degrees > 1)} of freedom, hence a wide interval"
        )
    least, most = series.points[0].flops.per_token, series.points[-1].flops.per_token
    if found.flops_per_token > FAR * most or found.flops_per_token < least / FAR:
        edge, word = (most, "largest") if found.flops_per_token > most else (least, "smallest")
        said.append(
            f"far from the series: {found.flops_per_token / edge:.2g} times the FLOPs of the {word}, "
            "beyond which nothing shows that the law holds"
        )
    said += _of_records(found, series, model)
    if found.nll_bits_per_token.value <= 0:
        said.append("the law ends before this size: it would need no bits at all")
    shape = series.points[-1].record.source.architecture
    if isinstance(shape, Architecture) and shape.vocabulary != model.vocabulary:
        said.append(
            f"the config has a vocabulary of {model.vocabulary}, the series one of {shape.vocabulary}: with another "
            "tokenizer its tokens carry other numbers of bytes"
        )
    if found.assumed:
        said.append("edgecap does not know this model type: it was read by standard field names")
    return said


def _of_records(found: Prediction, series: Series, model: Architecture) -> list[str]:
    """What the machine, the shapes and the cautions of the records say against the prediction."""
    said, shapes = [], [p.record.source.architecture for p in series.points]
    known = [s for s in shapes if isinstance(s, Architecture)]
    same = next((p for p, s in zip(series.points, shapes, strict=True) if s == model), None)
    if same is not None:
        said.append(
            f"{same.name} has this architecture, and was measured: {same.text.nll_bits_per_token:.3f} bits a token"
        )
    if isinstance(found.device.decode_s, Estimate):
        said += [t for what, at, had in _shapes(model, known) if (t := _beyond(what, at, had))]
        room = _memory(series.points[-1])
        if found.weight_bytes and found.weight_bytes > room:
            said.append(
                f"its weights ({size(found.weight_bytes)}) do not fit into the memory ({size(room)}): seconds and joules "
                "are those of a machine that has it"
            )
        said += [t for p in series.points if (t := _told(p))]
    return said


def _shapes(model: Architecture, known: Sequence[Architecture]) -> list[tuple[str, int, list[int]]]:
    return [
        ("layers", model.depth, [s.depth for s in known]),
        ("numbers wide", model.hidden, [s.hidden for s in known]),
    ]


def _beyond(what: str, at: int, had: Sequence[int]) -> str:
    if not had or min(had) / SHAPE <= at <= SHAPE * max(had):
        return ""
    among = f"{min(had)}" if min(had) == max(had) else f"{min(had)} to {max(had)}"
    return f"it has {at} {what}, the series {among}: what operators of that shape reach was not measured, seconds may be far off"


def _memory(point: SeriesModel) -> int:
    return max(
        (board.memory_bytes for board in possible_gpus(point)),
        default=point.record.machine.memory_bytes,
    )


def _told(point: SeriesModel) -> str:
    """The cautions of a record that weaken its seconds and joules, by their codes."""
    codes = cost_cautions(point.cell)
    return (
        f"the record of {point.name} is cautioned: {', '.join(codes)} (edgecap show --details)"
        if codes
        else ""
    )
