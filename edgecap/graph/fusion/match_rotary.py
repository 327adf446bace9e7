"""Finds rotary embeddings between projections and attention, and measures how they turn.

Between two tensors of the same shape (batch, heads, sequence, width) data passes together with two
tensors of positions: one is 1 at position 0, the cosines, the other 0, the sines. Run on random
numbers, the part must agree with RotaryEmbedding's definition (ONNX Runtime, docs/ContribOperators.md):
rotated halves or neighbours, the whole width or its first part.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from edgecap.graph.cost.input_sizes import RunSize
from edgecap.graph.cost.tensors import Tensor
from edgecap.graph.fusion.evaluate import NotRunnable, run_subgraph, structure_digest, subgraph
from edgecap.graph.fusion.flow import Flow

_RUN = RunSize(2, 3, 5)
_START = RunSize(1, 1, 0)
ROTARY_RESULTS = ("Add", "Concat", "Sub")


class RotaryMatch(NamedTuple):
    """`source` is turned by angles whose `cosines` and `sines` are given for each of `part` numbers of a head."""

    source: str
    cosines: str
    sines: str
    part: int
    interleaved: bool


MeasuredRotary = dict[
    str, tuple[RotaryMatch | None, tuple[str, ...]]
]  # of parts that are alike, with the names in one of them


def find_rotary(flow: Flow, name: str, measured: MeasuredRotary) -> RotaryMatch | None:
    """How a tensor (batch, heads, sequence, width) was turned; None where it was not, or in no known way.

    What is alike is measured once and noted in `measured`.
    """
    if name not in flow.maker:
        return None
    turned = name
    if flow.maker[name].op_type == "Transpose":  # turned before heads and sequence change places
        turned = flow.maker[name].input[0]
    if turned not in flow.maker or flow.maker[turned].op_type not in ROTARY_RESULTS:
        return None
    source = next(flow.narrows(turned), None)
    if source is None or flow.shape(source) is None or flow.shape(source) != flow.shape(turned):
        return None
    return _once(flow, source, turned, turned != name, measured)


def _once(
    flow: Flow, source: str, turned: str, moved: bool, measured: MeasuredRotary
) -> RotaryMatch | None:
    alike, names = structure_digest(flow, [turned], [source])
    key = f"{alike}{moved}"
    if key not in measured:
        measured[key] = _judged(flow, source, turned, moved), names
    turn, others = measured[key]
    if turn is None or names == others:
        return turn
    cosines, sines = (names[others.index(angle)] for angle in (turn.cosines, turn.sines))
    return turn._replace(source=source, cosines=cosines, sines=sines)


def _judged(flow: Flow, source: str, turned: str, moved: bool) -> RotaryMatch | None:
    angles = _angles(flow, source, turned)
    try:
        return _measured(flow, source, turned, angles, moved) if len(angles) == 2 else None
    except NotRunnable:
        return None


def _angles(flow: Flow, source: str, turned: str) -> list[str]:
    """Tensors of positions that the part takes: neither data nor stored nor of one number."""
    nodes = subgraph(flow, [turned], [source])
    return sorted(
        {
            name
            for node in nodes
            if node.output[0] in flow.data
            for name in node.input
            if name and name not in flow.data and _is_of_positions(flow.tensor(name))
        }
    )


def _is_of_positions(tensor: Tensor) -> bool:
    return not tensor.constant and len(tensor.shape or ()) > 2


def _measured(
    flow: Flow, source: str, turned: str, angles: list[str], moved: bool
) -> RotaryMatch | None:
    at_start = dict(zip(angles, run_subgraph(flow, angles, {}, _START), strict=True))
    cosines = next((a for a in angles if at_start[a].min() > 0), "")
    sines = next((a for a in angles if not at_start[a].any()), "")
    if not cosines or not sines:
        return None
    values = dict(zip(angles, run_subgraph(flow, angles, {}, _RUN), strict=True))
    part = values[cosines].shape[-1]
    for interleaved in (False, True):
        turn = RotaryMatch(source, cosines, sines, part, interleaved)
        if all(_is_doubled(v, interleaved) for v in values.values()) and _agrees(
            flow, turn, turned, values, moved
        ):
            return turn
    return None


def _is_doubled(values: Any, interleaved: bool) -> bool:
    """Whether each angle is there twice: beside itself, or half the width apart."""
    half = values.shape[-1] // 2
    pair = (
        (values[..., ::2], values[..., 1::2])
        if interleaved
        else (values[..., :half], values[..., half:])
    )
    return pair[0].shape == pair[1].shape and bool(np.allclose(*pair, atol=1e-6))


def _agrees(
    flow: Flow, turn: RotaryMatch, turned: str, values: dict[str, Any], moved: bool
) -> bool:
    shape = flow.tensor(turn.source, _RUN).shape
    heads = np.random.default_rng(1).standard_normal(shape, np.float32) if shape else np.zeros(())
    found = run_subgraph(flow, [turned], {turn.source: heads}, _RUN)[0]
    if moved:
        heads, found = heads.swapaxes(1, 2), found.swapaxes(1, 2)
    rows = [_rows(values[name], _RUN) for name in (turn.cosines, turn.sines)]
    return (
        rows[0] is not None
        and rows[1] is not None
        and np.allclose(found, reference_rotary(turn, heads, *rows), atol=1e-4)
    )


def _rows(values: Any, run: RunSize) -> Any:
    """(batch or 1, 1, sequence, part) of angles in any order of their axes; None where they are not by position."""
    size = values.shape[-1]
    for batch in (run.batch, 1):
        if values.size == batch * run.sequence * size:
            return values.reshape(batch, 1, run.sequence, size)
    return None


def reference_rotary(turn: RotaryMatch, heads: Any, cosines: Any, sines: Any) -> Any:
    """RotaryEmbedding's definition: (batch, heads, sequence, width) turned by angles (batch, 1, sequence, part)."""
    first, half = heads[..., : turn.part], turn.part // 2
    if turn.interleaved:
        across = np.stack([-first[..., 1::2], first[..., ::2]], axis=-1).reshape(first.shape)
    else:
        across = np.concatenate([-first[..., half:], first[..., :half]], axis=-1)
    return np.concatenate([first * cosines + across * sines, heads[..., turn.part :]], axis=-1)
