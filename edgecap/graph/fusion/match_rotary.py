"""Find rotary embeddings between projections and attention, and measure how they rotate.

Between two tensors of one shape (batch, heads, sequence, width), data is combined with two tensors
of positions: the cosines are 1 at position 0, the sines 0. Run on random numbers, the part must
agree with RotaryEmbedding's definition (ONNX Runtime, docs/ContribOperators.md): rotated halves or
neighbours, the whole width or its first part.
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
    """A tensor `source` rotated by `cosines` and `sines` of the first `part` numbers of a head."""

    source: str
    cosines: str
    sines: str
    part: int
    interleaved: bool


# Matches by structure of the part, with the names in the part that was measured.
MeasuredRotary = dict[str, tuple[RotaryMatch | None, tuple[str, ...]]]


def find_rotary(flow: Flow, name: str, measured: MeasuredRotary) -> RotaryMatch | None:
    """Return how a tensor (batch, heads, sequence, width) was rotated, or None.

    Parts of equal structure are measured once; `measured` keeps the results by structure.
    """
    if name not in flow.producer:
        return None
    rotated = name
    if flow.producer[name].op_type == "Transpose":  # rotated before heads and sequence are swapped
        rotated = flow.producer[name].input[0]
    if rotated not in flow.producer or flow.producer[rotated].op_type not in ROTARY_RESULTS:
        return None
    source = next(flow.dominators(rotated), None)
    if source is None or flow.shape(source) is None or flow.shape(source) != flow.shape(rotated):
        return None
    return _measured_once(flow, source, rotated, rotated != name, measured)


def _measured_once(
    flow: Flow, source: str, rotated: str, is_transposed: bool, measured: MeasuredRotary
) -> RotaryMatch | None:
    """Return the match, measured once for parts of equal structure."""
    digest, names = structure_digest(flow, [rotated], [source])
    key = f"{digest}{is_transposed}"
    if key not in measured:
        measured[key] = _measure_and_check(flow, source, rotated, is_transposed), names
    match, measured_names = measured[key]
    if match is None or names == measured_names:
        return match
    cosines, sines = (names[measured_names.index(angle)] for angle in (match.cosines, match.sines))
    return match._replace(source=source, cosines=cosines, sines=sines)


def _measure_and_check(
    flow: Flow, source: str, rotated: str, is_transposed: bool
) -> RotaryMatch | None:
    angles = _angles(flow, source, rotated)
    try:
        return _measure(flow, source, rotated, angles, is_transposed) if len(angles) == 2 else None
    except NotRunnable:
        return None


def _angles(flow: Flow, source: str, rotated: str) -> list[str]:
    """Return the tensors of positions that the part takes: not data, not stored, no scalars."""
    nodes = subgraph(flow, [rotated], [source])
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


def _measure(
    flow: Flow, source: str, rotated: str, angles: list[str], is_transposed: bool
) -> RotaryMatch | None:
    at_start = dict(zip(angles, run_subgraph(flow, angles, {}, _START), strict=True))
    cosines = next((a for a in angles if at_start[a].min() > 0), "")
    sines = next((a for a in angles if not at_start[a].any()), "")
    if not cosines or not sines:
        return None
    values = dict(zip(angles, run_subgraph(flow, angles, {}, _RUN), strict=True))
    part = values[cosines].shape[-1]
    for interleaved in (False, True):
        match = RotaryMatch(source, cosines, sines, part, interleaved)
        if all(_is_doubled(v, interleaved) for v in values.values()) and _agrees(
            flow, match, rotated, values, is_transposed
        ):
            return match
    return None


def _is_doubled(values: Any, interleaved: bool) -> bool:
    """Return True if each angle occurs twice: side by side, or half the width apart."""
    half = values.shape[-1] // 2
    pair = (
        (values[..., ::2], values[..., 1::2])
        if interleaved
        else (values[..., :half], values[..., half:])
    )
    return pair[0].shape == pair[1].shape and bool(np.allclose(*pair, atol=1e-6))


def _agrees(
    flow: Flow, match: RotaryMatch, rotated: str, values: dict[str, Any], is_transposed: bool
) -> bool:
    """Return True if the part agrees with the definition on random numbers."""
    shape = flow.tensor(match.source, _RUN).shape
    heads = np.random.default_rng(1).standard_normal(shape, np.float32) if shape else np.zeros(())
    result = run_subgraph(flow, [rotated], {match.source: heads}, _RUN)[0]
    if is_transposed:
        heads, result = heads.swapaxes(1, 2), result.swapaxes(1, 2)
    rows = [_rows(values[name], _RUN) for name in (match.cosines, match.sines)]
    return (
        rows[0] is not None
        and rows[1] is not None
        and np.allclose(result, reference_rotary(match, heads, *rows), atol=1e-4)
    )


def _rows(values: Any, run: RunSize) -> Any:
    """Return angles as (batch or 1, 1, sequence, part); None if they are not by position."""
    size = values.shape[-1]
    for batch in (run.batch, 1):
        if values.size == batch * run.sequence * size:
            return values.reshape(batch, 1, run.sequence, size)
    return None


def reference_rotary(match: RotaryMatch, heads: Any, cosines: Any, sines: Any) -> Any:
    """Compute RotaryEmbedding's definition.

    `heads` is (batch, heads, sequence, width), the angles (batch, 1, sequence, part).
    """
    first, half = heads[..., : match.part], match.part // 2
    if match.interleaved:
        across = np.stack([-first[..., 1::2], first[..., ::2]], axis=-1).reshape(first.shape)
    else:
        across = np.concatenate([-first[..., half:], first[..., :half]], axis=-1)
    return np.concatenate([first * cosines + across * sines, heads[..., match.part :]], axis=-1)
