"""Write block weights into a graph in standard operators, for providers that compile graphs.

    codes, scales, zeros -> DequantizeLinear in blocks -> MatMul
    codes, scales, zeros -> Gather of rows -> (codes - zeros) x scales

OpenVINO keeps weights in such products compressed. From a table that is dequantized first it
gathers rows with scales of other blocks (2025.4), so codes are gathered. Gather takes no 4-bit
types: a Cast stands in front, which is folded when the graph is loaded. Scales lie in the file as
float16.

Symmetric codes are signed, as some providers need them, and have zero points of zero. Without these
the CPU provider computes wrong products of int8 where it turns weights into unsigned ones
(`session.x64quantprecision`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgecap.errors import UsageError
from edgecap.graph.variants.blocks.nodes import pack
from edgecap.graph.variants.blocks.rounding import BlockWeights
from edgecap.graph.variants.rewrites import replace_node

if TYPE_CHECKING:
    import onnx

_FLOAT, _UINT8, _INT8, _UINT4, _INT4 = 1, 2, 3, 21, 22  # TensorProto.DataType
_OPSET, _IR = 21, 10  # of DequantizeLinear in blocks, and of 4-bit types
_LEAST_OPSET = 18  # operators of text models mean the same from here to `_OPSET`


def raise_opset(model: onnx.ModelProto) -> None:
    """Declare the opset of blocks. Raise UsageError if the graph's is too old for that alone."""
    opsets = [o for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if any(o.version < _LEAST_OPSET for o in opsets):
        raise UsageError(
            f"block weights in standard operators need a graph of opset {_LEAST_OPSET} or newer, "
            f"and this is {opsets[0].version}: export the model again"
        )
    for opset in opsets:
        opset.version = max(opset.version, _OPSET)
    model.ir_version = max(model.ir_version, _IR)


def write_standard(
    graph: onnx.GraphProto,
    name: str,
    weights: BlockWeights,
    width: int,
    products: list[onnx.NodeProto],
    gathers: list[onnx.NodeProto],
) -> None:
    """Put blocks in the place of a matrix of `width` inputs, and of a table, in their nodes.

    The matrix lies as MatMul takes it, (K, N), unless rows are gathered from it: then (N, K).
    """
    stored = _store(graph, name, weights, rows_first=bool(gathers))
    before = _dequantize(name, weights, stored, rows_first=bool(gathers))
    matrix, padding = before[-1].output[0], weights.codes.shape[1] - width
    for node in products:
        replace_node(graph, node, [*before, *_product(graph, node, matrix, padding)])
        before = []
    for node in gathers:
        replace_node(graph, node, _gather(graph, node, stored, weights))


def _store(
    graph: onnx.GraphProto, name: str, weights: BlockWeights, rows_first: bool
) -> dict[str, str]:
    """Store codes, scales and zero points, and return their tensors; scales are float32."""
    signed = _is_symmetric(weights)
    middle = np.uint8(_middle(weights) if signed else 0)
    parts = {
        "codes": weights.codes - middle,  # wraps around: two's complement
        "scales": weights.scales,
        "zeros": weights.zeros - middle,
    }
    for part, array in parts.items():
        laid = np.ascontiguousarray(array if rows_first else array.T)
        graph.initializer.append(_tensor(f"{name}_{part}", laid, weights.bits, signed))
    tensors = {part: f"{name}_{part}" for part in parts}
    if weights.scales.dtype == np.float16:
        tensors["scales"] = _cast(graph, f"{name}_scales", f"{name}_scales_float", _FLOAT)
    return tensors


def _middle(weights: BlockWeights) -> int:
    return 1 << weights.bits - 1


def _is_symmetric(weights: BlockWeights) -> bool:
    return bool((weights.zeros == _middle(weights)).all())


def _tensor(name: str, array: np.ndarray, bits: int, signed: bool) -> onnx.TensorProto:
    from onnx import helper, numpy_helper

    if array.dtype != np.uint8:
        return numpy_helper.from_array(array, name)
    kinds = (_UINT4, _INT4) if bits == 4 else (_UINT8, _INT8)
    packed = pack(array.reshape(-1) & np.uint8((1 << bits) - 1), bits)
    return helper.make_tensor(name, kinds[signed], array.shape, packed.tobytes(), raw=True)


def _cast(graph: onnx.GraphProto, source: str, result: str, kind: int) -> str:
    """Cast a stored tensor before everything else, and return the result."""
    from onnx import helper

    graph.node.insert(0, helper.make_node("Cast", [source], [result], name=result, to=kind))
    return result


def _dequantize(
    name: str, weights: BlockWeights, stored: dict[str, str], rows_first: bool
) -> list[onnx.NodeProto]:
    """Return nodes that dequantize a matrix, to shape (K padded, N)."""
    from onnx import helper

    matrix = f"{name}_float"
    nodes = [
        helper.make_node(
            "DequantizeLinear",
            list(stored.values()),
            [matrix],
            name=matrix,
            axis=1 if rows_first else 0,
            block_size=weights.block,
        )
    ]
    if rows_first:
        turned = f"{name}_transposed"
        nodes.append(helper.make_node("Transpose", [matrix], [turned], name=turned, perm=[1, 0]))
    return nodes


def _product(
    graph: onnx.GraphProto, node: onnx.NodeProto, matrix: str, padding: int
) -> list[onnx.NodeProto]:
    """Return a MatMul by a dequantized matrix, whose inputs are padded with zeros as it is."""
    from onnx import helper

    source, own = node.input[0], node.name or node.output[0]
    before = []
    if padding:
        _constants(graph, own, {"pads": [0, padding], "last": [-1]})
        inputs = [source, f"{own}/pads", "", f"{own}/last"]
        source = f"{own}/padded"
        before.append(helper.make_node("Pad", inputs, [source], name=source))
    product = helper.make_node("MatMul", [source, matrix], list(node.output), name=node.name)
    return [*before, product]


def _gather(
    graph: onnx.GraphProto, node: onnx.NodeProto, stored: dict[str, str], weights: BlockWeights
) -> list[onnx.NodeProto]:
    """Return nodes in place of a Gather of rows: (codes - zeros) x scales."""
    from onnx import helper

    own, ids = node.name or node.output[0], node.input[1]
    columns = weights.codes.shape[1]
    blocks = [columns // weights.block, weights.block]
    _constants(graph, own, {"blocks": blocks, "row": [columns], "last": [-1]})
    signed, codes = _is_symmetric(weights), stored["codes"]
    if weights.bits == 4:
        codes = _cast(graph, codes, f"{own}/bytes", _INT8 if signed else _UINT8)
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Shape", [ids], "shape", {}),
        ("Concat", [f"{own}/shape", f"{own}/blocks"], "shape_in_blocks", {"axis": 0}),
        ("Concat", [f"{own}/shape", f"{own}/row"], "shape_of_rows", {"axis": 0}),
        ("Gather", [codes, ids], "codes", {}),
        ("Cast", [f"{own}/codes"], "numbers", {"to": _FLOAT}),
        ("Reshape", [f"{own}/numbers", f"{own}/shape_in_blocks"], "steps", {}),
        ("Gather", [stored["scales"], ids], "scales", {}),
        ("Unsqueeze", [f"{own}/scales", f"{own}/last"], "scale", {}),
    ]
    centred = f"{own}/steps"
    if not signed:
        zeros = _cast(graph, stored["zeros"], f"{own}/zeros_float", _FLOAT)
        centred = f"{own}/centred"
        steps += [
            ("Gather", [zeros, ids], "zeros", {}),
            ("Unsqueeze", [f"{own}/zeros", f"{own}/last"], "zero", {}),
            ("Sub", [f"{own}/steps", f"{own}/zero"], "centred", {}),
        ]
    steps.append(("Mul", [centred, f"{own}/scale"], "weights", {}))
    nodes = [
        helper.make_node(op, inputs, [f"{own}/{out}"], name=f"{own}/{out}", **more)
        for op, inputs, out, more in steps
    ]
    inputs = [f"{own}/weights", f"{own}/shape_of_rows"]
    return [*nodes, helper.make_node("Reshape", inputs, list(node.output), name=node.name)]


def _constants(graph: onnx.GraphProto, own: str, values: dict[str, list[int]]) -> None:
    from onnx import numpy_helper

    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), f"{own}/{name}")
        for name, value in values.items()
    )
