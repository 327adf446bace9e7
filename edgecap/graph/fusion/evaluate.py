"""Runs a small part of a graph, cut out at chosen tensors, with onnx's own reference evaluator.

What a part computes is found out by giving it numbers: its form, which changes with every version of
an exporter, then does not matter. Shapes are those of a run, so that no weight is ever needed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from typing import Any

import numpy as np

from edgecap.graph.cost.input_sizes import RunSize
from edgecap.graph.fusion.flow import Flow, names_used

LARGEST_NUMBER = 1_000_000  # whole numbers above it say "to the end" of an axis
MAX_COMPARED_VALUES = 1 << 24  # numbers of a stored tensor; of larger ones only the same is alike


class NotRunnable(Exception):
    """The part needs something that only a whole run has, or the reference evaluator cannot do it."""


def subgraph(flow: Flow, wanted: Iterable[str], cut: Collection[str]) -> list[Any]:
    """Nodes that lead from the tensors `cut` to those `wanted`; what only has to do with shapes ends at Shape."""
    queue, places = list(wanted), set()
    while queue:
        name = queue.pop()
        at = flow.place.get(name)
        if at is not None and name not in cut and at not in places:
            places.add(at)
            queue.extend(() if flow.nodes[at].op_type == "Shape" else flow.taken[at])
    return [flow.nodes[at] for at in sorted(places)]


def structure_digest(
    flow: Flow, wanted: Iterable[str], cut: Collection[str]
) -> tuple[str, tuple[str, ...]]:
    """A digest that is equal for parts that differ by names alone, and the part's names in an order that is theirs.

    Sizes of a run are told by SQUARE: parts of one digest compute the same in every run.
    """
    order: dict[str, int] = {}
    written = sha256()
    for name in cut:
        order[name] = len(order)
        written.update(f"{flow.shape(name)} ".encode())
    for node in subgraph(flow, wanted, cut):
        new = [name for name in (*flow.taken[flow.at(node)], *node.output) if name not in order]
        order |= {name: len(order) + at for at, name in enumerate(new)}
        written.update(_form(flow, node, order))
        written.update(b"".join(_origin(flow, name) for name in new))
    return written.hexdigest(), tuple(order)


def _form(flow: Flow, node: Any, order: Mapping[str, int]) -> bytes:
    """A node with numbers for names; what a graph inside of it takes keeps its name."""
    size = flow.shape(node.input[0]) if node.op_type == "Shape" else None
    names = [[order[name] if name else -1 for name in side] for side in (node.input, node.output)]
    attributes = (a.SerializeToString(deterministic=True) for a in node.attribute)
    return b"".join((f"{node.domain} {node.op_type} {names} {size} ".encode(), *attributes))


def _origin(flow: Flow, name: str) -> bytes:
    """The numbers of a stored tensor, and the name of what nothing makes."""
    from onnx import TensorProto, numpy_helper

    stored = flow.stored.get(name)
    if (
        stored is None
        or stored.data_location == TensorProto.EXTERNAL
        or math.prod(stored.dims) > MAX_COMPARED_VALUES
    ):
        return b"" if name in flow.place else name.encode()
    array = numpy_helper.to_array(stored)
    return b"".join((f"{array.dtype} {array.shape} ".encode(), array.tobytes()))


def run_subgraph(
    flow: Flow, wanted: list[str], given: Mapping[str, np.ndarray], run: RunSize
) -> list[np.ndarray]:
    """The tensors `wanted` from those `given`; masks and positions are those of a run without padding.

    Raises NotRunnable.
    """
    from onnx.reference import ReferenceEvaluator

    feeds = {**_plain_inputs(flow, run), **given}
    nodes = subgraph(flow, wanted, given.keys())
    shapes = {n.output[0]: _shape_of(flow, n, run) for n in nodes if n.op_type == "Shape"}
    model = _model(flow, [n for n in nodes if n.op_type != "Shape"], {**feeds, **shapes}, wanted)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return [
                np.asarray(a) for a in ReferenceEvaluator(model).run(wanted, {**feeds, **shapes})
            ]
    except Exception as error:  # numpy's and onnx's own of many kinds
        raise NotRunnable(f"{type(error).__name__}: {error}") from error


def _shape_of(flow: Flow, node: Any, run: RunSize) -> np.ndarray:
    value = flow.tensor(node.output[0], run).value
    if value is None:
        raise NotRunnable(f"the shape of {node.input[0]} is not known")
    return np.asarray(value)


def _plain_inputs(flow: Flow, run: RunSize) -> dict[str, np.ndarray]:
    from onnx import helper

    values = {
        "attention_mask": np.ones((run.batch, run.total)),
        "position_ids": np.tile(np.arange(run.past, run.total), (run.batch, 1)),
    }
    kinds = {i.name: i.type.tensor_type.elem_type for i in flow.model.graph.input}
    return {
        n: v.astype(helper.tensor_dtype_to_np_dtype(kinds[n]))
        for n, v in values.items()
        if n in kinds
    }


def _model(flow: Flow, nodes: list[Any], feeds: Mapping[str, Any], wanted: list[str]) -> Any:
    from onnx import TensorProto, helper

    used = {name for node in nodes for name in names_used(node)}
    stored = [flow.stored[n] for n in sorted(used & flow.stored.keys())]
    made = {*feeds, *(t.name for t in stored), *(o for n in nodes for o in n.output)}
    inputs = {i.name for i in flow.model.graph.input}
    if (used & inputs) - made or any(t.data_location == TensorProto.EXTERNAL for t in stored):
        raise NotRunnable("it needs the tokens or the weights")
    infos = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in feeds]
    ends = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in wanted]
    graph = helper.make_graph(nodes, "part", infos, ends, stored)
    return helper.make_model(
        graph, opset_imports=flow.model.opset_import, ir_version=flow.model.ir_version
    )


def largest_number(flow: Flow, wanted: list[str], cut: Collection[str]) -> int:
    """The largest whole number that a part has stored: no window or block in it is longer."""
    names = {name for node in subgraph(flow, wanted, cut) for name in names_used(node)}
    tensors = [flow.tensor(name) for name in names]
    stored = [t.value for t in tensors if t.constant and t.value is not None]
    numbers = [float(x) for array in stored if array.dtype.kind in "iuf" for x in array.reshape(-1)]
    return int(max((abs(x) for x in numbers if abs(x) < LARGEST_NUMBER), default=0))
