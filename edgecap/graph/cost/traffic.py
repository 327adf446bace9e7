"""Bytes that a node reads and writes: of stored tensors, of the KV cache, of activations.

A stored tensor is read as it is stored, whatever the graph makes of it at load time. Tables are
read by rows: of Gather, of rotary tables, of the experts that tokens are sent to (at most tokens x
k).
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
# Operators that write new positions behind the past and copy nothing.
IN_PLACE = frozenset({*ATTENTION_SIZES, "TensorScatter"})
_EXPERTS = {"MoE": (2, 3, 4, 5, 6, 7), "QMoE": (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)}

Fraction = tuple[int, int]  # numerator and denominator


class InputRead(NamedTuple):
    """One input that a node reads; `share` is the part read, `rows` marks a part of it."""

    tensor: Tensor
    share: Fraction
    rows: bool

    def of(self, whole: int) -> int:
        """Return the share of a number of bytes, rounded up, at most all."""
        part, all_of = self.share
        return min(whole, -(-whole * part // all_of)) if all_of else 0


def moves_nothing(step: NodeStep) -> bool:
    """Return True if a node moves no bytes in a run: a view, or work done at load time."""
    return step.folded or (step.node.op_type in _NO_BYTES and step.node.domain in ONNX_DOMAINS)


def input_reads(step: NodeStep) -> Iterator[InputRead]:
    """Yield what a node reads of each of its inputs."""
    for index, tensor in enumerate(step.inputs):
        if tensor is not None:
            share = _share(step, index)
            yield InputRead(tensor, share or (1, 1), share is not None)


def _share(step: NodeStep, index: int) -> Fraction | None:
    """Return the part of an input that is read, or None if it is read whole."""
    rule = _PARTIAL_READS.get(step.node.op_type)
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
    """Return the rule of Gather: as many rows of the axis as there are indices."""

    def share(node: Any, inputs: Any, outputs: Any, tensor: Tensor) -> Fraction:
        return inputs[1].numbers, tensor.shape[attribute(node, name, 0)] if tensor.shape else 1

    return share


def _as_written(node: Any, inputs: Any, outputs: Any, tensor: Tensor) -> Fraction:
    """Return as many numbers as the node writes."""
    return outputs[0].numbers if outputs[0] else 0, tensor.numbers


def _row_per_token(node: Any, inputs: Any, outputs: Any, tensor: Tensor) -> Fraction | None:
    """Return the share of a rotary table (positions, width): one row a token.

    A table with other axes has a row for each token and is read whole.
    """
    if tensor.shape is None or len(tensor.shape) != 2 or not inputs[0].shape:
        return None
    shape = inputs[0].shape
    tokens = shape[0] * shape[2] if len(shape) == 4 else math.prod(shape[:2])
    return tokens, tensor.shape[0]


def _row_per_id(node: Any, inputs: Any, outputs: Any, tensor: Tensor) -> Fraction | None:
    """Return the share of an embedding table: one row an id."""
    return inputs[0].numbers, tensor.shape[0] if tensor.shape else 1


def _chosen_experts(node: Any, inputs: Any, outputs: Any, tensor: Tensor) -> Fraction | None:
    """Return the share of the experts that tokens are sent to."""
    tokens = math.prod((inputs[0].shape or ())[:-1])
    return tokens * attribute(node, "k", 1), tensor.shape[0] if tensor.shape else 1


_PARTIAL_READS: dict[str, tuple[tuple[int, ...], TrafficRule]] = {
    "Gather": ((0,), _indexed("axis")),
    "GatherBlockQuantized": ((0, 2, 3), _indexed("gather_axis")),
    **dict.fromkeys(("GatherElements", "GatherND", "Slice"), ((0,), _as_written)),
    "GroupQueryAttention": ((7, 8), _row_per_token),
    "RotaryEmbedding": ((1, 2, 3), _row_per_token),
    "EmbedLayerNormalization": ((2, 3, 4), _row_per_id),
    **{op: (at, _chosen_experts) for op, at in _EXPERTS.items()},
}


# --- the cache --------------------------------------------------------------------------------


def new_positions(graph: Any, tensors: Any, run: RunSize) -> dict[str, int]:
    """Return bytes of the positions that a run adds to the cache, by tensor that becomes it."""
    pasts = {p: i.name for i in graph.input if is_cache(i.name) for p in present_of(i.name)}
    names = [o.name for o in graph.output if o.name in pasts or o.name.startswith("present")]
    added = {n: _added(tensors.get(n), tensors.get(pasts.get(n, "")), run) for n in names}
    return _with_views(graph, added)


def _added(present: Tensor | None, past: Tensor | None, run: RunSize) -> int:
    if present is None or present.shape is None:
        return 0
    grown = present.bytes - (past.bytes if past else 0)
    if grown or past is None or not past.shape or not past.numbers:
        return max(0, grown)
    length = past.shape[-2]  # a buffer of fixed length that the run writes into
    return present.bytes // length * min(run.sequence, length)


def _with_views(graph: Any, cache_outputs: dict[str, int]) -> dict[str, int]:
    """Return the same with the tensors that these are mere views of, in branches too."""
    added = dict(cache_outputs)
    for node in reversed(graph.node):
        for at, name in enumerate(node.output):
            if name in added and node.op_type in VIEWS and node.input:
                added[node.input[0]] = added[name]
            elif name in added and node.op_type == "If":
                for branch in (a.g for a in node.attribute):
                    added |= _with_views(branch, {branch.output[at].name: added[name]})
    return added
