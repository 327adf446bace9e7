"""Store the angles of rotary embeddings for all positions, so that no step computes them.

    before   positions -> Cos, Sin -> RotaryEmbedding -> GroupQueryAttention
    after    GroupQueryAttention, which turns queries and keys by stored rows of cosines and sines

Tables are measured by running the part of the graph that makes them. Angles that depend on the
length of the text (dynamic scaling) are left as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from edgecap.graph.cost.input_sizes import RunSize
from edgecap.graph.cost.tensors import attribute
from edgecap.graph.fusion.edit import drop_dead, retain
from edgecap.graph.fusion.evaluate import NotRunnable, run_subgraph
from edgecap.graph.fusion.flow import Flow

# Widths of heads and of tables that GroupQueryAttention takes are multiples of these.
HEAD_STEP, TABLE_STEP = 16, 8
MOST_POSITIONS = 1 << 17  # of tables, which every variant stores
ROOM = 128  # rows behind the positions: a mask may cover free positions, too
_SAME_ANGLE = 1e-6  # sums of vectors of other lengths differ in the last bit
_NEAR = 3  # positions of the runs that show whether an angle depends on the length


class _Turn(NamedTuple):
    """Name the tables and the form that a RotaryEmbedding turns by."""

    cosines: str
    sines: str
    interleaved: int
    part: int


def store_angles(model: Any, positions: int) -> int:
    """Store the angles of `positions` in place, and return the layers whose attention turns.

    More than `MOST_POSITIONS` are not stored.
    """
    if positions > MOST_POSITIONS:
        return 0
    positions += ROOM
    flow = Flow(model)
    turns = {
        n.output[0]: n
        for n in flow.nodes
        if n.op_type == "RotaryEmbedding" and n.domain == "com.microsoft"
    }
    tables: dict[tuple[str, str], bool] = {}
    for node in turns.values():
        names = (node.input[2], node.input[3])
        if names not in tables:
            tables[names] = _store(flow, names, positions)
    stored = {name: n for name, n in turns.items() if tables[n.input[2], n.input[3]]}
    layers = [n for n in flow.nodes if n.op_type == "GroupQueryAttention"]
    joined = [n for n in layers if _join(flow, n, stored)]
    done = {name for node in joined for name in node.input[:2]}
    for node in turns.values():
        if node.output[0] in stored.keys() - done:
            _look_up(flow, node)
    drop_dead(model)
    return len(joined)


def _store(flow: Flow, names: tuple[str, str], positions: int) -> bool:
    """Store tables in place of two computed tensors; return False if they are no tables."""
    from onnx import numpy_helper

    if all(name in flow.stored for name in names):
        return False  # tables already
    try:
        whole = run_subgraph(flow, list(names), {}, RunSize(1, positions, 0))
        least = min(_NEAR, positions)
        for past in {0, positions - least}:
            part = run_subgraph(flow, list(names), {}, RunSize(1, least, past))
            if not all(
                table.shape[0] == positions
                and np.allclose(table[past : past + least], rows, rtol=0, atol=_SAME_ANGLE)
                for table, rows in zip(whole, part, strict=True)
            ):
                return False
    except NotRunnable:
        return False
    for name, table in zip(names, whole, strict=True):
        array = np.ascontiguousarray(table, np.float32)
        flow.model.graph.initializer.append(numpy_helper.from_array(array, _table_name(name)))
    return True


def _table_name(name: str) -> str:
    return f"{name}/stored"


def _join(flow: Flow, attention: Any, turns: dict[str, Any]) -> bool:
    """Let attention turn its queries and keys; return False if it cannot."""
    pair = [turns[name] for name in attention.input[:2] if name in turns]
    if attribute(attention, "do_rotary", 0) or len(attention.input) > 7 or len(pair) < 2:
        return False
    width = (flow.shape(attention.input[0]) or (0,))[-1] // attribute(attention, "num_heads", 1)
    forms = {_turn_of(node) for node in pair}
    form = forms.pop()
    angles = (flow.shape(form.cosines) or (0, 0))[1]
    if forms or not width or width % HEAD_STEP or not angles or angles % TABLE_STEP:
        return False
    for at, node in enumerate(pair):
        attention.input[at] = node.input[0]
    attention.input.extend(map(_table_name, form[:2]))
    changed = {"do_rotary": 1, "rotary_interleaved": form.interleaved}
    retain(attention.attribute, [a for a in attention.attribute if a.name not in changed])
    for name, value in changed.items():
        attention.attribute.add(name=name, type=2, i=value)
    return True


def _turn_of(node: Any) -> _Turn:
    form = (attribute(node, name, 0) for name in ("interleaved", "rotary_embedding_dim"))
    return _Turn(node.input[2], node.input[3], *form)


def _look_up(flow: Flow, node: Any) -> None:
    """Let a RotaryEmbedding look up the positions of the run in the tables."""
    if not any(i.name == "position_ids" for i in flow.model.graph.input):
        return
    node.input[1] = "position_ids"
    node.input[2], node.input[3] = _table_name(node.input[2]), _table_name(node.input[3])
