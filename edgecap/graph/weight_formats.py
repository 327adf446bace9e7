"""Name the format in which a graph stores each matrix, and count the bits of a weight.

Matrices in blocks are inputs of MatMulNBits, or of DequantizeLinear in front of a MatMul.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import onnx


_UNSIGNED = (2, 21)  # TensorProto: UINT8, UINT4


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
    widened = dequantized_blocks(model)
    numbers, codes = 0, set[str]()
    for node in graph.node:
        if node.op_type == "MatMulNBits" and node.input[1] not in codes:
            given = {a.name: a.i for a in node.attribute}
            formats[node.name or node.output[0]] = _format(node, given)
            numbers += given["K"] * given["N"]
            codes.update(casts.get(name, name) for name in node.input[1:4])
        elif node.op_type == "MatMul" and node.input[1] in widened:
            blocks = widened[node.input[1]]
            if blocks.codes not in codes:
                formats[node.name or node.output[0]] = str(blocks)
                numbers += math.prod(stored[blocks.codes].dims)
                codes.update(casts.get(name, name) for name in blocks.tensors)
    rest = [t for t in stored.values() if t.name not in codes and len(t.dims) > 1]
    of_rows = _of_rows(graph, casts)
    numbers += sum(math.prod(t.dims) for t in rest if t.name not in of_rows)
    size = sum(_bytes(stored[name]) for name in codes if name in stored)
    size += sum(_bytes(t) for t in rest)
    return WeightFormats(formats, 8 * size / numbers if numbers else None)


class DequantizedBlocks(NamedTuple):
    """A matrix that DequantizeLinear widens.

    `tensors` are codes, scales and zero points, which signed codes are not counted to have.
    """

    tensors: tuple[str, ...]
    bits: int
    block: int
    zero_points: bool

    @property
    def codes(self) -> str:
        """Return the tensor with the codes."""
        return self.tensors[0]

    def __str__(self) -> str:
        return _name(self.bits, self.block, self.zero_points)


def dequantized_blocks(model: onnx.ModelProto) -> dict[str, DequantizedBlocks]:
    """Return the stored matrices that are dequantized in blocks, by the tensor that is made."""
    stored = {t.name: t for t in model.graph.initializer}
    made: dict[str, DequantizedBlocks] = {}
    for node in model.graph.node:
        block = next((a.i for a in node.attribute if a.name == "block_size"), 0)
        if node.op_type == "DequantizeLinear" and block and node.input[0] in stored:
            tensors, codes = tuple(name for name in node.input if name), stored[node.input[0]]
            shifted = len(tensors) > 2 and codes.data_type in _UNSIGNED
            made[node.output[0]] = DequantizedBlocks(tensors, _bits(codes), block, shifted)
        elif node.op_type in ("Transpose", "Cast") and node.input[0] in made:
            made[node.output[0]] = made[node.input[0]]
    return made


def _of_rows(graph: onnx.GraphProto, casts: dict[str, str]) -> set[str]:
    """Return the stored scales and zero points of rows that are gathered: one for each block."""
    gathers = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Gather"}
    scales = {n.input[0] for n in graph.node if n.op_type == "Unsqueeze"} & gathers.keys()
    return {casts.get(gathers[name], gathers[name]) for name in scales}


def _format(node: onnx.NodeProto, given: dict[str, int]) -> str:
    points = len(node.input) > 3 and bool(node.input[3])
    return _name(given.get("bits", 4), given["block_size"], points)


def _name(bits: int, block: int, zero_points: bool) -> str:
    return f"{bits} bits, blocks of {block}{', zero points' if zero_points else ''}"


def _bytes(tensor: onnx.TensorProto) -> int:
    return int(math.prod(tensor.dims) * _bits(tensor) / 8)


def _bits(tensor: onnx.TensorProto) -> int:
    from onnx import helper

    narrow = {"INT4": 4, "UINT4": 4}.get(type(tensor).DataType.Name(tensor.data_type))
    return narrow or 8 * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
