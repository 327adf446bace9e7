"""int8: MatMulInteger with activations quantized at run time, signed weights per output channel.

Gathered tables have a scale for each row; a tied one is the LM head's matrix, stored once. x86
without VNNI needs the session option `sessions.EXACT_INT8`, so that sums do not saturate.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecap.graph.onnx_file import LARGEST_PROTO, open_graph, weight_bytes
from edgecap.graph.tied_weights import untie_weights
from edgecap.graph.variants.rewrites import as_input, replace_node, table_gathers, tidy

if TYPE_CHECKING:
    import onnx


def make_int8_dynamic(model: onnx.ModelProto) -> Any:
    """Quantize weights to int8, and activations at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    tables = untie_weights(model)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "quantized.onnx"
        quantize_dynamic(
            as_input(model, Path(scratch)),
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=weight_bytes(model) > LARGEST_PROTO,
            extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
        )
        quantized = open_graph(target)
    heads = {table: head for head, table in tables.items()}
    for node in table_gathers(quantized):
        gather_int8(quantized, node, heads.get(node.input[0]))
    return tidy(quantized)


def gather_int8(model: onnx.ModelProto, node: onnx.NodeProto, head: str | None) -> None:
    """Gather 8-bit rows with their scales and zero points.

    A tied table is gathered from the matrix of the LM head.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, table = model.graph, node.input[0]
    arrays = {t.name: t for t in graph.initializer}
    matrix = arrays.get(f"{head}_quantized") if head else None
    if matrix is not None:
        rows = np.ascontiguousarray(numpy_helper.to_array(matrix).T)
        scales = np.broadcast_to(numpy_helper.to_array(arrays[f"{head}_scale"]), rows.shape[:1])
        zeros = np.broadcast_to(numpy_helper.to_array(arrays[f"{head}_zero_point"]), rows.shape[:1])
        graph.initializer.remove(matrix)
        graph.node.insert(
            0,
            helper.make_node(
                "Transpose", [f"{table}_rows"], [matrix.name], name=f"{table}/head", perm=[1, 0]
            ),
        )
    else:
        rows, scales = _quantize_rows(numpy_helper.to_array(arrays[table]))
        zeros = np.zeros(rows.shape[:1], np.int8)
    graph.initializer.append(numpy_helper.from_array(rows, f"{table}_rows"))
    for part, values in (("scales", scales), ("zeros", zeros)):
        column = values.astype(np.float32).reshape(-1, 1)
        graph.initializer.append(numpy_helper.from_array(column, f"{table}_{part}"))
    ids, out, own = node.input[1], node.output[0], f"{node.name or table}/int8"
    replace_node(
        graph,
        node,
        [
            helper.make_node(
                "Gather", [f"{table}_rows", ids], [f"{own}/rows"], name=f"{own}/rows", axis=0
            ),
            helper.make_node(
                "Gather", [f"{table}_scales", ids], [f"{own}/scales"], name=f"{own}/scales", axis=0
            ),
            helper.make_node(
                "Gather", [f"{table}_zeros", ids], [f"{own}/zeros"], name=f"{own}/zeros", axis=0
            ),
            helper.make_node(
                "Cast", [f"{own}/rows"], [f"{own}/float"], name=f"{own}/float", to=TensorProto.FLOAT
            ),
            helper.make_node(
                "Sub", [f"{own}/float", f"{own}/zeros"], [f"{own}/centred"], name=f"{own}/centred"
            ),
            helper.make_node(
                "Mul", [f"{own}/centred", f"{own}/scales"], [out], name=f"{own}/scaled"
            ),
        ],
    )


def _quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scales = np.maximum(np.abs(table).max(axis=1), 1e-12) / 127
    return np.round(table / scales[:, None]).astype(np.int8), scales.astype(np.float32)
