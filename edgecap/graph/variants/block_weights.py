"""Weights in blocks with a scale for each block of inputs: int4, int8w, their block sizes, HQQ.

MatMulNBits runs at accuracy level 4 (int8 activations if the processor has them). Tables are
gathered by GatherBlockQuantized over the same bytes: the operator's matrix (N, K/block, bytes) is
(N, K in bytes). HQQ (half-quadratic quantization) moves each block's zero point to the smallest
0.7-norm of the weights' error. Its zero points are fractions, which GatherBlockQuantized cannot
take, so plain operators unpack a tied table.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecap.errors import UsageError
from edgecap.graph.tied_weights import untie_weights
from edgecap.graph.variants.rewrites import gemm_to_matmul, replace_node, table_gathers, tidy

if TYPE_CHECKING:
    import onnx


def make_block_weights(model: onnx.ModelProto, bits: int, block: int, hqq: bool = False) -> Any:
    """Quantize weights to `bits` (4 or 8), with a scale for each `block` of weights."""
    gemm_to_matmul(model)
    heads = {table: head for head, table in untie_weights(model).items()}
    quantizer = _quantizer(model, bits, block, hqq)
    with warnings.catch_warnings():
        # HQQ's torch warns of an array that it only reads.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        quantizer.process()
    quantized = quantizer.model.model
    for node in table_gathers(quantized):
        head = heads.get(node.input[0])
        if hqq and f"{head}_zero_points" in {t.name for t in quantized.graph.initializer}:
            _gather_unpacked(quantized, node, str(head), block)
        else:
            _gather_blocks(quantized, node, head, bits, block)
    return tidy(quantized)


def _quantizer(model: onnx.ModelProto, bits: int, block: int, hqq: bool) -> Any:
    try:
        from onnxruntime.quantization import matmul_nbits_quantizer as library

        if hqq:
            import torch  # noqa: F401 - the library imports it in the middle of its work
    except ImportError as error:
        raise UsageError(
            f"making this variant needs {error.name}: pip install 'edgecap[export]'"
        ) from error
    if hqq:
        config = library.HQQWeightOnlyQuantConfig(
            block_size=block, bits=bits, op_types_to_quantize=("MatMul",)
        )
        return library.MatMulNBitsQuantizer(model, algo_config=config)
    return library.MatMulNBitsQuantizer(
        model,
        bits=bits,
        block_size=block,
        is_symmetric=True,
        accuracy_level=4,
        op_types_to_quantize=("MatMul",),
    )


# --- tables -----------------------------------------------------------------------------------


def _gather_blocks(
    model: onnx.ModelProto, node: onnx.NodeProto, head: str | None, bits: int, block: int
) -> None:
    from onnx import helper, numpy_helper

    graph, table = model.graph, node.input[0]
    arrays = {t.name: t for t in graph.initializer}
    rows, width = arrays[table].dims
    if width % block:
        return  # blocks would straddle rows: leave the table as it is
    packed, scales = f"{head}_Q{bits}", f"{head}_scales"
    if packed not in arrays:
        packed, scales = f"{table}_Q{bits}", f"{table}_scales"
        numbers, factors = _quantize_blocks(numpy_helper.to_array(arrays[table]), bits, block)
        graph.initializer.extend(
            [numpy_helper.from_array(numbers, packed), numpy_helper.from_array(factors, scales)]
        )
    _as_rows(graph, table, rows, width * bits // 8)
    name = node.name or table
    attributes: dict[str, Any] = {
        "gather_axis": 0,
        "quantize_axis": 1,
        "block_size": block,
        "bits": bits,
    }
    inputs, domain = [f"{table}_packed", node.input[1], scales], "com.microsoft"
    replace_node(
        graph,
        node,
        [
            helper.make_node(
                "Reshape", [packed, f"{table}_shape"], [f"{table}_packed"], name=f"{name}/packed"
            ),
            helper.make_node(
                "GatherBlockQuantized",
                inputs,
                [node.output[0]],
                name=f"{name}/int{bits}",
                domain=domain,
                **attributes,
            ),
        ],
    )


def _as_rows(graph: onnx.GraphProto, table: str, *shape: int) -> None:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), f"{table}_shape"))


def _quantize_blocks(table: np.ndarray, bits: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantize the rows of a table in MatMulNBits' symmetric blocks.

    Returns uint8 of shape (N, K/block, block x bits / 8) and scales of shape (N, K/block).
    """
    from onnxruntime.quantization import matmul_nbits_quantizer as library

    config = library.DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=True, bits=bits)
    columns = np.ascontiguousarray(table.T, np.float32)
    packed, scales, _ = library.DefaultWeightOnlyQuantizer(config).qbits_block_quant(columns)
    return packed, scales


def _gather_unpacked(model: onnx.ModelProto, node: onnx.NodeProto, head: str, block: int) -> None:
    """Gather rows of 4-bit numbers with fp32 zero points: (q - zero) x scale, plain operators."""
    from onnx import helper, numpy_helper

    graph, own = model.graph, node.name or node.input[0]
    rows, groups, _ = next(t for t in graph.initializer if t.name == f"{head}_Q4").dims
    constants = {
        "flat": np.array([rows, groups * block // 2], np.int64),
        "by_group": np.array([rows, groups], np.int64),
        "low": np.array(15, np.uint8),
        "four": np.array(4, np.uint8),
        "last": np.array([-1], np.int64),
        "grouped": np.array([0, 0, groups, block], np.int64),
        "whole": np.array([0, 0, -1], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(v, f"{own}/{k}") for k, v in constants.items())
    ids = node.input[1]
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Reshape", [f"{head}_Q4", f"{own}/flat"], "rows", {}),
        ("Reshape", [f"{head}_scales", f"{own}/by_group"], "all_scales", {}),
        ("Reshape", [f"{head}_zero_points", f"{own}/by_group"], "all_zeros", {}),
        ("Gather", [f"{own}/rows", ids], "bytes", {"axis": 0}),
        ("Gather", [f"{own}/all_scales", ids], "scales", {"axis": 0}),
        ("Gather", [f"{own}/all_zeros", ids], "zeros", {"axis": 0}),
        ("BitwiseAnd", [f"{own}/bytes", f"{own}/low"], "even", {}),
        ("BitShift", [f"{own}/bytes", f"{own}/four"], "odd", {"direction": "RIGHT"}),
        ("Unsqueeze", [f"{own}/even", f"{own}/last"], "even_column", {}),
        ("Unsqueeze", [f"{own}/odd", f"{own}/last"], "odd_column", {}),
        ("Concat", [f"{own}/even_column", f"{own}/odd_column"], "pairs", {"axis": -1}),
        ("Reshape", [f"{own}/pairs", f"{own}/grouped"], "numbers", {}),
        ("Cast", [f"{own}/numbers"], "float", {"to": 1}),
        ("Unsqueeze", [f"{own}/zeros", f"{own}/last"], "zero", {}),
        ("Unsqueeze", [f"{own}/scales", f"{own}/last"], "scale", {}),
        ("Sub", [f"{own}/float", f"{own}/zero"], "centred", {}),
        ("Mul", [f"{own}/centred", f"{own}/scale"], "scaled", {}),
    ]
    nodes = [
        helper.make_node(op, i, [f"{own}/{out}"], name=f"{own}/{out}", **more)
        for op, i, out, more in steps
    ]
    last = helper.make_node(
        "Reshape", [f"{own}/scaled", f"{own}/whole"], [node.output[0]], name=f"{own}/hqq"
    )
    replace_node(graph, node, [*nodes, last])
