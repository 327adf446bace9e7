"""Rewrite matrices, tables and their nodes: changes that several variants share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecap.graph.onnx_file import LARGEST_PROTO, import_contrib, weight_bytes, write_graph
from edgecap.graph.tied_weights import drop_unused

if TYPE_CHECKING:
    import onnx


def table_gathers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the Gather nodes that read rows of a stored float table: the embeddings."""
    floats = {t.name for t in model.graph.initializer if t.data_type == 1 and len(t.dims) == 2}
    return [
        n
        for n in model.graph.node
        if n.op_type == "Gather" and n.input[0] in floats and _axis(n) == 0
    ]


def _axis(node: onnx.NodeProto) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "axis"), 0)


def replace_node(graph: onnx.GraphProto, node: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> None:
    """Replace a node by several, in its place."""
    at = list(graph.node).index(node)
    graph.node.remove(node)
    for offset, new in enumerate(nodes):
        graph.node.insert(at + offset, new)


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop unused tensors and declare the operator domain of ONNX Runtime."""
    drop_unused(model.graph)
    import_contrib(model)
    return model


def name_nodes(model: onnx.ModelProto) -> None:
    """Name nodes without a name: tools tell nodes apart by names."""
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"


def as_input(model: onnx.ModelProto, scratch: Path) -> Any:
    """Return the graph as the quantizer takes it: in memory below 2 GiB, else as a file."""
    if weight_bytes(model) <= LARGEST_PROTO:
        return model
    write_graph(model, scratch)
    return scratch / "model.onnx"


def gemm_to_matmul(model: onnx.ModelProto) -> None:
    """Replace Gemm by MatMul and Add if it is x W + b: the quantizer knows only MatMul."""
    from onnx import helper, numpy_helper

    graph = model.graph
    arrays = {t.name: t for t in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "Gemm" and n.input[1] in arrays]:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if (
            attributes.get("transA")
            or attributes.get("alpha", 1.0) != 1.0
            or attributes.get("beta", 1.0) != 1.0
        ):
            continue
        weight = node.input[1]
        if attributes.get("transB"):
            weight = f"{weight}_t"
            if weight not in arrays:
                flipped = np.ascontiguousarray(numpy_helper.to_array(arrays[node.input[1]]).T)
                arrays[weight] = numpy_helper.from_array(flipped, weight)
                graph.initializer.append(arrays[weight])
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.output[0]}_product" if biased else node.output[0]
        nodes = [
            helper.make_node(
                "MatMul", [node.input[0], weight], [product], name=f"{node.name}/matmul"
            )
        ]
        if biased:
            nodes.append(
                helper.make_node(
                    "Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}/bias"
                )
            )
        replace_node(graph, node, nodes)
    drop_unused(graph)
