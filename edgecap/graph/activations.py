"""Open graphs to look inside: with tensors as outputs, or stored tensors as inputs.

Weights stay on the disk. `watch_products` finds activations that quantize badly:

    input of a product with a stored matrix -> Abs -> ReduceMax over its last axis

The results are the only outputs: a number a row, so that even a large model returns little.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgecap.graph.last_logits import stored_tensors
from edgecap.graph.onnx_file import open_graph
from edgecap.graph.weight_locations import InMemoryGraph, in_memory

if TYPE_CHECKING:
    import onnx

_PRODUCTS = frozenset(("MatMul", "Gemm", "FusedMatMul"))
_NAMELESS = "onnx::"  # begins names that exporters count up
_AXES_AS_INPUT = 18  # opset from which ReduceMax takes its axes as an input


class WatchedGraph(NamedTuple):
    """A graph whose outputs are largest absolute values of rows, and the product of each output."""

    graph: InMemoryGraph
    nodes: tuple[str, ...]


def graph_with_outputs(path: Path, names: Sequence[str]) -> InMemoryGraph:
    """Return a graph of an ONNX file that has the named tensors as its only outputs.

    The runtime leaves out what they do not need, such as the head.
    """
    from onnx import TensorProto, helper

    model = open_graph(path, weights=False)
    present = {o.name: o for o in model.graph.output}
    outputs = [
        present.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
    ]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    return in_memory(model, path)


def graph_with_overridable(path: Path, names: Iterable[str]) -> InMemoryGraph:
    """Return a graph whose stored tensors `names` are optional inputs."""
    from onnx import helper

    model = open_graph(path, weights=False)
    wanted = set(names)
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims))
        for t in model.graph.initializer
        if t.name in wanted
    )
    return in_memory(model, path)


def watch_products(path: Path) -> WatchedGraph:
    """Return a graph that answers with the largest absolute value of each row before each product.

    Each output has shape (..., rows, 1); products that share an input have one. Weights stay on the
    disk. Raises Unreadable if the file is not ONNX.
    """
    model = open_graph(path, weights=False)
    names = _watched(model.graph)
    del model.graph.output[:]
    for number, tensor in enumerate(names):
        _add_output(model, tensor, f"edgecap_watched/{number}")
    return WatchedGraph(in_memory(model, path), tuple(names.values()))


def _watched(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the name of a product for each tensor that is multiplied with a stored matrix."""
    stored, names = stored_tensors(graph), dict[str, str]()
    for node in graph.node:
        if node.op_type in _PRODUCTS and node.input[0] not in stored and node.input[1] in stored:
            names.setdefault(node.input[0], _readable(node))
    return names


def _readable(node: onnx.NodeProto) -> str:
    """Return the name of a product, or of its input where that of the product says nothing."""
    named = node.name and not node.name.startswith(_NAMELESS)
    return str(node.name if named else node.input[0])


def _add_output(model: onnx.ModelProto, tensor: str, name: str) -> None:
    """Add the largest absolute value of each row of a tensor as an output."""
    import onnx
    from onnx import helper

    graph = model.graph
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    axes = [f"{name}/axes"] if opset >= _AXES_AS_INPUT else []
    graph.initializer.extend(helper.make_tensor(a, onnx.TensorProto.INT64, [1], [-1]) for a in axes)
    attribute = {} if axes else {"axes": [-1]}
    graph.node.extend(
        [
            helper.make_node("Abs", [tensor], [f"{name}/abs"]),
            helper.make_node("ReduceMax", [f"{name}/abs", *axes], [name], **attribute),
        ]
    )
    graph.output.append(onnx.ValueInfoProto(name=name))  # the runtime infers its type
