"""Store the matrix of tied embeddings once.

Exporters may leave a transposed copy of the token embedding as the weight of the last MatMul. The
copy is replaced by a Transpose of the embedding, which the runtime folds when it loads the graph.
`untie_weights` is the reverse, for tools that need a constant as input of a MatMul.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


def tie_weights(model: onnx.ModelProto) -> int:
    """Replace transposed copies of gathered tables by a Transpose, and return the bytes saved."""
    from onnx import helper, numpy_helper

    graph = model.graph
    arrays = {t.name: t for t in graph.initializer}
    tables = {n.input[0] for n in graph.node if n.op_type == "Gather" and n.input[0] in arrays}
    saved = 0
    for node in [n for n in graph.node if n.op_type == "MatMul" and n.input[1] in arrays]:
        weight = arrays[node.input[1]]
        table = next(
            (arrays[t] for t in tables if list(arrays[t].dims) == list(weight.dims)[::-1]), None
        )
        if table is None or table.data_type != weight.data_type:
            continue
        if not np.array_equal(numpy_helper.to_array(table).T, numpy_helper.to_array(weight)):
            continue
        saved += numpy_helper.to_array(weight).nbytes
        name = f"{weight.name}/tied"
        transpose = helper.make_node(
            "Transpose", [table.name], [name], name=f"{table.name}/transpose", perm=[1, 0]
        )
        graph.node.insert(list(graph.node).index(node), transpose)
        node.input[1] = name
    drop_unused(graph)
    return saved


def untie_weights(model: onnx.ModelProto) -> dict[str, str]:
    """Store the result of each Transpose of a stored matrix.

    Return the new names with those of the original matrices.
    """
    from onnx import numpy_helper

    graph = model.graph
    arrays = {t.name: t for t in graph.initializer}
    originals: dict[str, str] = {}
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in arrays]:
        table = arrays[node.input[0]]
        if len(table.dims) != 2:
            continue
        matrix = np.ascontiguousarray(numpy_helper.to_array(table).T)
        graph.initializer.append(numpy_helper.from_array(matrix, node.output[0]))
        originals[node.output[0]] = table.name
        graph.node.remove(node)
    drop_unused(graph)
    return originals


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove stored tensors that no node and no output uses."""
    used = {i for n in graph.node for i in n.input} | {o.name for o in graph.output}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
