"""Which bytes a node reads and writes: of stored tensors, of the cache, of activations.

A stored tensor is read as it is stored, whatever the graph makes of it when it is loaded. Tables are
read by rows: of Gather, of rotary tables, of the experts that tokens are sent to (at most tokens x k).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from edgecap.graph.cost.attention import ATTENTION_SIZES
from edgecap.graph.cost.input_sizes import RunSize, is_cache, present_of
from edgecap.graph.cost.shapes import ONNX_DOMAINS, VIEWS, NodeStep
from edgecap.graph.cost.tensors import Tensor, attribute

_NO_BYTES = VIEWS | {"Shape", "Size", "Constant"}
IN_PLACE = frozenset(
    {*ATTENTION_SIZES, "TensorScatter"}
)  # write new positions behind the past, and copy nothing
_EXPERTS = {"MoE": (2, 3, 4, 5, 6, 7), "QMoE": (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)}

Fraction = tuple[int, int]  # this many of that many


class InputRead(NamedTuple):
    """Bytes that a node reads of one input; `rows` says that it is a part of it."""

    tensor: Tensor
    share: Fraction
    rows: bool

    def of(self, whole: int) -> int:
        """Bytes of the share of so many bytes, at most all."""
        part, all_of = self.share
        return min(whole, -(-whole * part // all_of)) if all_of else 0


def moves_nothing(step: NodeStep) -> bool:
    """Views, and what was done when the model was loaded."""
    return step.folded or (step.node.op_type in _NO_BYTES and step.node.domain in ONNX_DOMAINS)


def input_reads(step: NodeStep) -> Iterator[InputRead]:
    """What a node reads of each of its inputs."""
    for index, tensor in enumerate(step.inputs):
        if tensor is not None:
            share = _share(step, index)
            yield InputRead(tensor, share or (1, 1), share is not None)


def _share(step: NodeStep, index: int) -> Fraction | None:
    rule = _PARTS.get(step.node.op_type)
    tensor = step.inputs[index]
    if rule is None or index not in rule[0] or tensor is None or not tensor.shape:
        return None
    try:
        return rule[1](step.node, step.inputs, step.outputs, tensor)
    except (IndexError, AttributeError):  # an input that the operator needs is not there
        return None


TrafficRule = Callable[
    [Any, Sequence[Tensor | None], Sequence[Tensor | None], Tensor], Fraction | None
]


def _indexed(name: str) -> TrafficRule:
    """As many rows as there are indices."""

    def share(node: Any, inputs: Any, outputs: Any, tensor: Tensor) -> Fraction:
        return inputs[1].numbers, tensor.shape[attribute(node, name, 0)] if tensor.shape else 1

    return share


def _as_many_as_written(node: Any, inputs: Any, outputs: Any, tensor: Tensor) -> Fraction:
    return outputs[0].numbers if outputs[0] else 0, tensor.numbers


def _a_row_a_token(node: Any, inputs: Any, outputs: Any, tensor: Tensor) -> Fraction | None:
    """Rotary tables with a row for each position, (positions, width); with a row for each token they are read whole."""
    if tensor.shape is None or len(tensor.shape) != 2 or not inputs[0].shape:
        return None
    shape = inputs[0].shape
    tokens = shape[0] * shape[2] if len(shape) == 4 else math.prod(shape[:2])
    return tokens, tensor.shape[0]


def _a_row_an_id(node: Any, inputs: Any, outputs: Any, tensor: Tensor) -> Fraction | None:
    return inputs[0].numbers, tensor.shape[0] if tensor.shape else 1


def _chosen_experts(node: Any, inputs: Any, outputs: Any, tensor: Tensor) -> Fraction | None:
    tokens = math.prod((inputs[0].shape or ())[:-1])
    return tokens * attribute(node, "k", 1), tensor.shape[0] if tensor.shape else 1


_PARTS: dict[str, tuple[tuple[int, ...], TrafficRule]] = {
    "Gather": ((0,), _indexed("axis")),
    "GatherBlockQuantized": ((0, 2, 3), _indexed("gather_axis")),
    **dict.fromkeys(("GatherElements", "GatherND", "Slice"), ((0,), _as_many_as_written)),
    "GroupQueryAttention": ((7, 8), _a_row_a_token),
    "RotaryEmbedding": ((1, 2, 3), _a_row_a_token),
    "EmbedLayerNormalization": ((2, 3, 4), _a_row_an_id),
    **{op: (at, _chosen_experts) for op, at in _EXPERTS.items()},
}


# --- the cache --------------------------------------------------------------------------------


def new_positions(graph: Any, tensors: Any, run: RunSize) -> dict[str, int]:
    """Tensors that become the cache -> the bytes of the positions that the run adds to it."""
    pasts = {p: i.name for i in graph.input if is_cache(i.name) for p in present_of(i.name)}
    names = [o.name for o in graph.output if o.name in pasts or o.name.startswith("present")]
    wanted = {n: _added(tensors.get(n), tensors.get(pasts.get(n, "")), run) for n in names}
    return _traced(graph, wanted)


def _added(present: Tensor | None, past: Tensor | None, run: RunSize) -> int:
    if present is None or present.shape is None:
        return 0
    grown = present.bytes - (past.bytes if past else 0)
    if grown or past is None or not past.shape or not past.numbers:
        return max(0, grown)
    length = past.shape[-2]  # a buffer of fixed length that the run writes into
    return present.bytes // length * min(run.sequence, length)


def _traced(graph: Any, wanted: dict[str, int]) -> dict[str, int]:
    """The same with the tensors that these are mere views of, in branches too."""
    found = dict(wanted)
    for node in reversed(graph.node):
        for at, name in enumerate(node.output):
            if name in found and node.op_type in VIEWS and node.input:
                found[node.input[0]] = found[name]
            elif name in found and node.op_type == "If":
                for branch in (a.g for a in node.attribute):
                    found |= _traced(branch, {branch.output[at].name: found[name]})
    return found
