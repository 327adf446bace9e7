"""Write block weights into a graph in the runtime's own operators.

MatMulNBits multiplies, and GatherBlockQuantized reads tables. `standard` writes the same weights in
standard operators.

Scales lie in the file as float16. The operators take them in the type of the activations, so a Cast
stands in front, which the runtime folds when it loads the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgecap.graph.variants.blocks.rounding import BlockWeights
from edgecap.graph.variants.rewrites import replace_node

if TYPE_CHECKING:
    import onnx

INT8_ACTIVATIONS = 4  # accuracy level: activations in int8, a scale for each block


def write_contrib(
    graph: onnx.GraphProto,
    name: str,
    weights: BlockWeights,
    width: int,
    products: list[onnx.NodeProto],
    gathers: list[onnx.NodeProto],
) -> None:
    """Put blocks in the place of a matrix of `width` inputs, and of a table, in their nodes."""
    stored = store_blocks(graph, name, weights)
    for node in products:
        replace_node(graph, node, [matmul_node(node, stored, weights, width)])
    for node in gathers:
        replace_node(graph, node, gather_nodes(graph, node, stored, weights))


def store_blocks(graph: onnx.GraphProto, name: str, weights: BlockWeights) -> list[str]:
    """Store a quantized matrix, and return the inputs of MatMulNBits behind the activations."""
    from onnx import helper, numpy_helper

    rows, groups = weights.scales.shape
    codes = weights.codes.reshape(rows, groups, weights.block)
    arrays = {"codes": pack(codes, weights.bits), "scales": weights.scales}
    middle = 1 << weights.bits - 1
    if not (weights.zeros == middle).all():
        arrays["zeros"] = pack(weights.zeros, weights.bits)
    for part, array in arrays.items():
        graph.initializer.append(numpy_helper.from_array(array, f"{name}_{part}"))
    widened = f"{name}_scales"
    if weights.scales.dtype == np.float16:
        widened = f"{name}_scales_float"
        cast = helper.make_node("Cast", [f"{name}_scales"], [widened], name=widened, to=1)
        graph.node.insert(0, cast)
    return [f"{name}_codes", widened, *([f"{name}_zeros"] if "zeros" in arrays else [])]


def matmul_node(node: onnx.NodeProto, stored: list[str], weights: BlockWeights, width: int) -> Any:
    """Return a MatMulNBits in place of a MatMul by a matrix of `width` inputs."""
    from onnx import helper

    return helper.make_node(
        "MatMulNBits",
        [node.input[0], *stored],
        list(node.output),
        name=node.name,
        domain="com.microsoft",
        K=width,
        N=len(weights.codes),
        bits=weights.bits,
        block_size=weights.block,
        accuracy_level=INT8_ACTIVATIONS,
    )


def set_accuracy(graph: onnx.GraphProto, level: int) -> None:
    """Set the accuracy level of all products of weights in blocks."""
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            for attribute in node.attribute:
                if attribute.name == "accuracy_level":
                    attribute.i = level


def gather_nodes(
    graph: onnx.GraphProto, node: onnx.NodeProto, stored: list[str], weights: BlockWeights
) -> list[Any]:
    """Return nodes in place of a Gather of rows of a table, over the bytes that a product shares.

    The operator's table has shape (N, K in bytes).
    """
    from onnx import helper, numpy_helper

    name, rows = node.name or node.output[0], len(weights.codes)
    shape = np.array([rows, -1], np.int64)
    graph.initializer.append(numpy_helper.from_array(shape, f"{name}/shape"))
    flat = {"codes": stored[0], "zeros": stored[2]} if len(stored) > 2 else {"codes": stored[0]}
    reshaped = [
        helper.make_node("Reshape", [source, f"{name}/shape"], [f"{name}/{part}"], f"{name}/{part}")
        for part, source in flat.items()
    ]
    inputs = [f"{name}/codes", node.input[1], stored[1]]
    gather = helper.make_node(
        "GatherBlockQuantized",
        [*inputs, *([f"{name}/zeros"] if "zeros" in flat else [])],
        [node.output[0]],
        name=f"{name}/blocks",
        domain="com.microsoft",
        gather_axis=0,
        quantize_axis=1,
        block_size=weights.block,
        bits=weights.bits,
    )
    return [*reshaped, gather]


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack codes along the last axis, the first of two 4-bit codes in the low half of a byte."""
    if bits == 8:
        return codes
    padded = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    packed: np.ndarray = padded[..., ::2] | padded[..., 1::2] << 4
    return packed


def unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """Return the codes that `pack` packed, an even number of them."""
    if bits == 8:
        return packed
    codes = np.stack([packed & 15, packed >> 4], axis=-1)
    return codes.reshape(*packed.shape[:-1], -1)
