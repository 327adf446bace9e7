"""Name how a graph stores its weights, and the type that it computes in. Count bits a weight.

Matrices in blocks are inputs of MatMulNBits, or of DequantizeLinear in front of a MatMul.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from edgecap.graph.cost.tensors import attribute

if TYPE_CHECKING:
    import onnx


_INT8_LEVEL = 4  # accuracy level of MatMulNBits: activations in int8
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


def precision_of(model: onnx.ModelProto) -> str:
    """Return the precision of the weights, from operators or the type of most numbers."""
    blocks = [n for n in model.graph.node if n.op_type == "MatMulNBits"]
    if blocks:
        return _block_precision(model, blocks)
    widened = dequantized_blocks(model)
    if widened:
        return "int4" if min(b.bits for b in widened.values()) <= 4 else "int8"
    operators = {n.op_type for n in model.graph.node}
    if {"MatMulInteger", "DynamicQuantizeMatMul"} & operators:
        return "int8d"
    if "QLinearMatMul" in operators or {"QuantizeLinear", "DequantizeLinear"} <= operators:
        return "int8s"
    sizes: dict[int, int] = {}
    for tensor in model.graph.initializer:
        sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + math.prod(tensor.dims)
    known = {t: n for t, n in sizes.items() if t in _TYPES}
    return _TYPES[max(known, key=lambda t: known[t])] if known else "fp32"


def _block_precision(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> str:
    """Return the name of a block-wise precision by the fewest bits.

    Plain formats, with one block size and neither zero points nor scales in fp16, have names of
    their own if edgecap makes them. HQQ has zero points in floating point.
    """
    bits, sizes = (
        {attribute(n, name, default) for n in nodes}
        for name, default in (("bits", 4), ("block_size", 32))
    )
    floats = {t.name for t in model.graph.initializer if t.data_type in (1, 10, 16)}
    points = {name for n in nodes for name in n.input[3:4] if name}
    if min(bits) <= 4 and points & floats:
        return "int4hqq"
    is_plain = not points and len(bits) == len(sizes) == 1
    family = "int4" if min(bits) <= 4 else "int8"
    if not is_plain or any(n.input[2] not in floats for n in nodes):
        return family
    return _PLAIN_BLOCKS.get((bits.pop(), sizes.pop()), family)


# Bits and block size of plain formats.
_PLAIN_BLOCKS = {
    (4, 16): "int4b16",
    (4, 32): "int4b32",
    (4, 64): "int4b64",
    (4, 128): "int4b128",
    (8, 32): "int8w",
    (8, 128): "int8wb128",
}


_TYPES = {1: "fp32", 10: "fp16", 16: "bf16", 11: "fp64"}  # TensorProto's types
_INT8_PRODUCTS = {"MatMulInteger", "DynamicQuantizeMatMul", "QLinearMatMul", "QuantizeLinear"}


def arithmetic_of(model: onnx.ModelProto) -> str:
    """Return the type that products are computed in, as the graph asks for it.

    It is that of the activations, which the cache or else the outputs show, or int8 where these are
    quantized for the products. A provider may lack the kernels, and compute in another type.
    """
    graph = model.graph
    levels = {attribute(n, "accuracy_level", 0) for n in graph.node if n.op_type == "MatMulNBits"}
    if _INT8_LEVEL in levels or any(n.op_type in _INT8_PRODUCTS for n in graph.node):
        return "int8"
    values = sorted((*graph.input, *graph.output), key=lambda v: not v.name.startswith("past_key"))
    kinds = (v.type.tensor_type.elem_type for v in values)
    return next((_TYPES[kind] for kind in kinds if kind in _TYPES), "")


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
        block = attribute(node, "block_size", 0)
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
