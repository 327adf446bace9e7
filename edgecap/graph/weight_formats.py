"""Name the format in which a graph stores each matrix, and count the bits of a weight."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import onnx


class WeightFormats(NamedTuple):
    """Formats by matrix, of those that are stored in blocks, and mean stored bits of a weight.

    `bits` counts scales and zero points, and matrices and tables in all formats.
    """

    by_matrix: dict[str, str]
    bits: float | None


def weight_formats(model: onnx.ModelProto) -> WeightFormats:
    """Return the formats of a graph, whose weights need not be loaded."""
    graph = model.graph
    stored = {t.name: t for t in graph.initializer}
    formats: dict[str, str] = {}
    casts = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Cast"}
    numbers, codes = 0, set[str]()
    for node in graph.node:
        if node.op_type == "MatMulNBits" and node.input[1] not in codes:
            given = {a.name: a.i for a in node.attribute}
            formats[node.name or node.output[0]] = _format(node, given)
            numbers += given["K"] * given["N"]
            codes.update(casts.get(name, name) for name in node.input[1:4])
    rest = [t for t in stored.values() if t.name not in codes and len(t.dims) > 1]
    numbers += sum(math.prod(t.dims) for t in rest)
    size = sum(_bytes(stored[name]) for name in codes if name in stored)
    size += sum(_bytes(t) for t in rest)
    return WeightFormats(formats, 8 * size / numbers if numbers else None)


def _format(node: onnx.NodeProto, given: dict[str, int]) -> str:
    points = ", zero points" if len(node.input) > 3 and node.input[3] else ""
    return f"{given.get('bits', 4)} bits, blocks of {given['block_size']}{points}"


def _bytes(tensor: onnx.TensorProto) -> int:
    from onnx import helper

    bits = {"INT4": 4, "UINT4": 4}.get(type(tensor).DataType.Name(tensor.data_type))
    size = bits / 8 if bits else helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims) * size)
