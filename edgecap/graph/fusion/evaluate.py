"""Run a small part of a graph, cut out at chosen tensors, with onnx's own reference evaluator.

What a part computes is determined by running it: its form, which changes with every version of an
exporter, then does not matter. Shapes are those of a run, so that no weight is ever needed.
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

LARGEST_NUMBER = 1_000_000  # larger whole numbers mean "to the end" of an axis
MAX_COMPARED_VALUES = 1 << 24  # larger stored tensors are compared by name


class NotRunnable(Exception):
    """The part needs tokens or weights, or the reference evaluator cannot run it."""


def subgraph(flow: Flow, targets: Iterable[str], cut: Collection[str]) -> list[Any]:
    """Return the nodes that lead from the tensors `cut` to the `targets`, ending at Shape."""
    queue, places = list(targets), set()
    while queue:
        name = queue.pop()
        at = flow.position.get(name)
        if at is not None and name not in cut and at not in places:
            places.add(at)
            queue.extend(() if flow.nodes[at].op_type == "Shape" else flow.inputs_of[at])
    return [flow.nodes[at] for at in sorted(places)]


def structure_digest(
    flow: Flow, targets: Iterable[str], cut: Collection[str]
) -> tuple[str, tuple[str, ...]]:
    """Return a digest equal for parts that differ by names alone, and the part's names in order.

    Shapes are those of a run of PRIME_SIZES: parts of one digest compute the same in every run.
    """
    order: dict[str, int] = {}
    digest = sha256()
    for name in cut:
        order[name] = len(order)
        digest.update(f"{flow.shape(name)} ".encode())
    for node in subgraph(flow, targets, cut):
        new_names = [
            name
            for name in (*flow.inputs_of[flow.index_of(node)], *node.output)
            if name not in order
        ]
        order |= {name: len(order) + at for at, name in enumerate(new_names)}
        digest.update(_form(flow, node, order))
        digest.update(b"".join(_origin(flow, name) for name in new_names))
    return digest.hexdigest(), tuple(order)


def _form(flow: Flow, node: Any, order: Mapping[str, int]) -> bytes:
    """Encode a node with numbers for names; names taken by its subgraphs stay."""
    size = flow.shape(node.input[0]) if node.op_type == "Shape" else None
    names = [[order[name] if name else -1 for name in side] for side in (node.input, node.output)]
    attributes = (a.SerializeToString(deterministic=True) for a in node.attribute)
    return b"".join((f"{node.domain} {node.op_type} {names} {size} ".encode(), *attributes))


def _origin(flow: Flow, name: str) -> bytes:
    """Encode the values of a stored tensor, or the name of a tensor without producer."""
    from onnx import TensorProto, numpy_helper

    stored = flow.stored.get(name)
    if (
        stored is None
        or stored.data_location == TensorProto.EXTERNAL
        or math.prod(stored.dims) > MAX_COMPARED_VALUES
    ):
        return b"" if name in flow.position else name.encode()
    array = numpy_helper.to_array(stored)
    return b"".join((f"{array.dtype} {array.shape} ".encode(), array.tobytes()))


def run_subgraph(
    flow: Flow, targets: list[str], inputs: Mapping[str, np.ndarray], run: RunSize
) -> list[np.ndarray]:
    """Compute the tensors `targets` from the tensors `inputs`.

    Masks and positions are those of a run without padding. Raise NotRunnable.
    """
    from onnx.reference import ReferenceEvaluator

    try:
        feeds = {**_plain_inputs(flow, run), **inputs}
        nodes = subgraph(flow, targets, inputs.keys())
        shapes = {n.output[0]: _shape_of(flow, n, run) for n in nodes if n.op_type == "Shape"}
        model = _model(
            flow, [n for n in nodes if n.op_type != "Shape"], {**feeds, **shapes}, targets
        )
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return [
                np.asarray(a) for a in ReferenceEvaluator(model).run(targets, {**feeds, **shapes})
            ]
    except NotRunnable:
        raise
    except Exception as error:  # of many kinds, from numpy and onnx
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


def _model(flow: Flow, nodes: list[Any], feeds: Mapping[str, Any], targets: list[str]) -> Any:
    from onnx import TensorProto, helper

    used = {name for node in nodes for name in names_used(node)}
    stored = [flow.stored[n] for n in sorted(used & flow.stored.keys())]
    known = {*feeds, *(t.name for t in stored), *(o for n in nodes for o in n.output)}
    inputs = {i.name for i in flow.model.graph.input}
    if (used & inputs) - known or any(t.data_location == TensorProto.EXTERNAL for t in stored):
        raise NotRunnable("it needs the tokens or the weights")
    inputs_info = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in feeds]
    outputs = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in targets]
    graph = helper.make_graph(nodes, "part", inputs_info, outputs, stored)
    return helper.make_model(
        graph, opset_imports=flow.model.opset_import, ir_version=flow.model.ir_version
    )


def largest_number(flow: Flow, targets: list[str], cut: Collection[str]) -> int:
    """Return the largest whole number stored in a part: no window in it is longer."""
    names = {name for node in subgraph(flow, targets, cut) for name in names_used(node)}
    tensors = [flow.tensor(name) for name in names]
    stored = [t.value for t in tensors if t.constant and t.value is not None]
    numbers = [float(x) for array in stored if array.dtype.kind in "iuf" for x in array.reshape(-1)]
    return int(max((abs(x) for x in numbers if abs(x) < LARGEST_NUMBER), default=0))
