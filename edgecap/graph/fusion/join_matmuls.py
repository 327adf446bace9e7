"""Join products of one tensor with several stored matrices into one product and a Split.

Such are query, key and value, or gate and up. Fewer and larger products keep more of the processor
busy, and a quantized variant quantizes the tensor once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecap.graph.fusion.edit import replace_nodes

SPLIT_BY_INPUT = 13  # first opset in which Split takes its sizes as an input
MAX_JOINED = 4  # larger groups are not query, key and value, nor gate and up


def join_matmuls(model: Any) -> int:
    """Join products in place, and return how many fewer there are. Weights must be loaded."""
    if max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")) < SPLIT_BY_INPUT:
        return 0
    stored = {t.name: t for t in model.graph.initializer if len(t.dims) == 2}
    groups = _groups(model.graph, stored)
    new_nodes = [node for nodes in groups for node in _joined(model.graph, nodes, stored)]
    replaced = {n.output[0] for nodes in groups for n in nodes}
    if new_nodes:
        replace_nodes(model, replaced, new_nodes)
    return len(replaced) - len(groups)


def _groups(graph: Any, stored: dict[str, Any]) -> list[list[Any]]:
    """Return products of one tensor by matrices of one type and row count used only there."""
    uses: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for node in graph.node:
        weight = stored.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None and uses[weight.name] == 1:
            groups.setdefault((node.input[0], weight.data_type, weight.dims[0]), []).append(node)
    outputs = {o.name for o in graph.output}
    return [
        g
        for g in groups.values()
        if 1 < len(g) <= MAX_JOINED and outputs.isdisjoint(n.output[0] for n in g)
    ]


def _joined(graph: Any, nodes: list[Any], stored: dict[str, Any]) -> list[Any]:
    """Return the joined product and its Split, which keeps the names of the results."""
    from onnx import helper, numpy_helper

    name = f"{nodes[0].input[1]}/joined"
    parts = [numpy_helper.to_array(stored[n.input[1]]) for n in nodes]
    graph.initializer.append(numpy_helper.from_array(np.concatenate(parts, axis=1), name))
    sizes = np.array([p.shape[1] for p in parts], np.int64)
    graph.initializer.append(numpy_helper.from_array(sizes, f"{name}/sizes"))
    whole, outputs = f"{nodes[0].output[0]}/joined", [n.output[0] for n in nodes]
    return [
        helper.make_node("MatMul", [nodes[0].input[0], name], [whole], name=f"{name}/MatMul"),
        helper.make_node("Split", [whole, f"{name}/sizes"], outputs, name=f"{name}/Split", axis=-1),
    ]
