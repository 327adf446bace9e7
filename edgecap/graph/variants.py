"""fp16, int8 and int4 variants of an fp32 graph, with ONNX Runtime's own tools.

fp16   every weight; norms, softmax and rotary angles stay in fp32, as in the transformers classes
int8   MatMulInteger with dynamic activations, signed weights per output channel, gathered tables per
       row; x86 without VNNI needs the session option `engine.EXACT_INT8` not to saturate
int4   MatMulNBits, blocks of 32, accuracy level 4 (int8 activations); gathered tables in the same blocks

Gathered tables are those of tokens and of learned positions. A tied token table is stored once in
every variant: quantised as the LM head, gathered from there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecap.errors import UsageError
from edgecap.graph.read import LARGEST_PROTO, open_graph, weight_bytes, write_graph
from edgecap.graph.ties import drop_unused, untie

if TYPE_CHECKING:
    import onnx

BLOCK = 32
RECIPES = {
    "fp16": "float16 weights; norms, softmax and rotary angles fp32; v1",
    "int8": "dynamic int8, signed weights per channel, gathered tables per row; v3",
    "int4": "MatMulNBits block 32, symmetric, accuracy level 4, gathered tables in blocks; v1",
}

# Kept in fp32 beside the library's own list: squares overflow at 256, angles need 20 bits.
_FP32_OPS = ("Pow", "ReduceMean", "ReduceSum", "Sqrt", "Reciprocal", "Softmax", "Cos", "Sin", "LayerNormalization")


def make_variant(source: Path, precision: str, folder: Path) -> list[str]:
    """Writes the variant of an fp32 graph into `folder`; returns the names of its files.

    Raises UsageError where a tool that makes it is not installed.
    """
    return write_graph(_MAKERS[precision](open_graph(source)), folder)


# --- fp16 -------------------------------------------------------------------------------------


def _fp16(model: onnx.ModelProto) -> Any:
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    _name_nodes(model)
    half = convert_float_to_float16(
        _with_shapes(model),
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_FP32_OPS],
        node_block_list=[*_angles(model), *_norms(model)],
        keep_io_types=False,
        disable_shape_infer=True,
    )
    _drop_repeated_casts(half)
    _drop_round_trips(half)
    return half


def _drop_repeated_casts(model: onnx.ModelProto) -> None:
    """The converter adds one cast for every use of a value; all but the first are the same again."""
    seen: set[str] = set()
    for node in list(model.graph.node):
        if node.op_type == "Cast" and node.output[0] in seen:
            model.graph.node.remove(node)
        seen.update(node.output)


def _drop_round_trips(model: onnx.ModelProto) -> None:
    """fp32 -> fp16 -> fp32 between two nodes that both stay in fp32 would round what they pass on."""
    narrowed = {
        n.output[0]: n.input[0]
        for n in model.graph.node
        if n.op_type == "Cast" and n.name.endswith("_cast_to_fp16_node")
    }
    widened = {
        n.output[0]: narrowed[n.input[0]]
        for n in model.graph.node
        if n.op_type == "Cast" and n.name.endswith("_cast_to_fp32_node") and n.input[0] in narrowed
    }
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name in widened:
                node.input[i] = widened[name]
    _drop_dead_nodes(model.graph, {*widened, *narrowed})


def _drop_dead_nodes(graph: onnx.GraphProto, candidates: set[str]) -> None:
    for _ in range(2):  # a widening cast first, then the narrowing one that fed it
        used = {i for n in graph.node for i in n.input} | {o.name for o in graph.output}
        for node in [n for n in graph.node if n.output[0] in candidates - used]:
            graph.node.remove(node)


def _norms(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that scale by a mean square: from ReduceMean to the product with the input."""
    uses: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            uses.setdefault(name, []).append(node)
    queue = [n for n in model.graph.node if n.op_type == "ReduceMean"]
    found: dict[str, None] = {}
    while queue:
        node = queue.pop()
        for user in uses.get(node.output[0], []):
            if user.op_type in ("Add", "Sqrt", "Div", "Reciprocal", "Mul", "Sub"):
                found[user.name] = None
                if user.op_type in ("Add", "Sqrt", "Reciprocal") or node.op_type == "Sqrt":
                    queue.append(user)
    return list(found)


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Shape inference also beyond protobuf's 2 GiB, where it needs files."""
    import onnx

    if weight_bytes(model) <= LARGEST_PROTO:
        return onnx.shape_inference.infer_shapes(model)
    with tempfile.TemporaryDirectory() as scratch:
        write_graph(model, Path(scratch))
        inferred = Path(scratch) / "inferred.onnx"
        onnx.shape_inference.infer_shapes_path(str(Path(scratch) / "model.onnx"), str(inferred))
        return onnx.load(str(inferred))


def _angles(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that lead to a Cos or Sin: positions times frequencies need fp32."""
    made_by = {o: n for n in model.graph.node for o in n.output}
    queue = [n for n in model.graph.node if n.op_type in ("Cos", "Sin")]
    seen: dict[str, None] = {}
    while queue:
        node = queue.pop()
        if node.name not in seen:
            seen[node.name] = None
            queue.extend(made_by[i] for i in node.input if i in made_by)
    return list(seen)


def _name_nodes(model: onnx.ModelProto) -> None:
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"


# --- int8 -------------------------------------------------------------------------------------


def _int8(model: onnx.ModelProto) -> Any:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    tables = untie(model)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "quantised.onnx"
        quantize_dynamic(
            _as_input(model, Path(scratch)),
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=weight_bytes(model) > LARGEST_PROTO,
            extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True},
        )
        quantised = open_graph(target)
    heads = {table: head for head, table in tables.items()}
    for node in _table_gathers(quantised):
        _gather_int8(quantised, node, heads.get(node.input[0]))
    return _tidy(quantised)


def _gather_int8(model: onnx.ModelProto, node: onnx.NodeProto, head: str | None) -> None:
    """Gathers 8-bit rows with their scales and zero points: from the LM head's matrix where it is the same table."""
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
            0, helper.make_node("Transpose", [f"{table}_rows"], [matrix.name], name=f"{table}/head", perm=[1, 0])
        )
    else:
        rows, scales = _quantise_rows(numpy_helper.to_array(arrays[table]))
        zeros = np.zeros(rows.shape[:1], np.int8)
    graph.initializer.append(numpy_helper.from_array(rows, f"{table}_rows"))
    for part, values in (("scales", scales), ("zeros", zeros)):
        column = values.astype(np.float32).reshape(-1, 1)
        graph.initializer.append(numpy_helper.from_array(column, f"{table}_{part}"))
    ids, out, own = node.input[1], node.output[0], f"{node.name or table}/int8"
    _replace(
        graph,
        node,
        [
            helper.make_node("Gather", [f"{table}_rows", ids], [f"{own}/rows"], name=f"{own}/rows", axis=0),
            helper.make_node("Gather", [f"{table}_scales", ids], [f"{own}/scales"], name=f"{own}/scales", axis=0),
            helper.make_node("Gather", [f"{table}_zeros", ids], [f"{own}/zeros"], name=f"{own}/zeros", axis=0),
            helper.make_node("Cast", [f"{own}/rows"], [f"{own}/float"], name=f"{own}/float", to=TensorProto.FLOAT),
            helper.make_node("Sub", [f"{own}/float", f"{own}/zeros"], [f"{own}/centred"], name=f"{own}/centred"),
            helper.make_node("Mul", [f"{own}/centred", f"{own}/scales"], [out], name=f"{own}/scaled"),
        ],
    )


def _quantise_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scales = np.maximum(np.abs(table).max(axis=1), 1e-12) / 127
    return np.round(table / scales[:, None]).astype(np.int8), scales.astype(np.float32)


# --- int4 -------------------------------------------------------------------------------------


def _int4(model: onnx.ModelProto) -> Any:
    try:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    except ImportError as error:
        raise UsageError(f"making int4 needs {error.name}: pip install 'edgecap[export]'") from error

    _gemm_to_matmul(model)
    tables = untie(model)
    quantizer = MatMulNBitsQuantizer(
        model, block_size=BLOCK, is_symmetric=True, accuracy_level=4, op_types_to_quantize=("MatMul",)
    )
    quantizer.process()
    quantised = quantizer.model.model
    heads = {table: head for head, table in tables.items()}
    for node in _table_gathers(quantised):
        _gather_int4(quantised, node, heads.get(node.input[0]))
    return _tidy(quantised)


def _gather_int4(model: onnx.ModelProto, node: onnx.NodeProto, head: str | None) -> None:
    """GatherBlockQuantized over the same bytes as MatMulNBits, whose matrix (N, K/32, 16) is (N, K/2)."""
    from onnx import helper, numpy_helper

    graph, table = model.graph, node.input[0]
    arrays = {t.name: t for t in graph.initializer}
    rows, width = arrays[table].dims
    if width % BLOCK:
        return  # blocks would straddle rows: the table stays as it is
    shape = np.array([rows, width // 2], np.int64)
    packed, scales = f"{head}_Q4", f"{head}_scales"
    if packed not in arrays:
        packed, scales = f"{table}_Q4", f"{table}_scales"
        blocks, factors = _quantise_blocks(numpy_helper.to_array(arrays[table]))
        graph.initializer.extend([numpy_helper.from_array(blocks, packed), numpy_helper.from_array(factors, scales)])
    graph.initializer.append(numpy_helper.from_array(shape, f"{table}_shape"))
    name = node.name or table
    _replace(
        graph,
        node,
        [
            helper.make_node("Reshape", [packed, f"{table}_shape"], [f"{table}_packed"], name=f"{name}/packed"),
            helper.make_node(
                "GatherBlockQuantized",
                [f"{table}_packed", node.input[1], scales],
                [node.output[0]],
                name=f"{name}/int4",
                domain="com.microsoft",
                gather_axis=0,
                quantize_axis=1,
                block_size=BLOCK,
                bits=4,
            ),
        ],
    )


def _quantise_blocks(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MatMulNBits' symmetric 4-bit blocks along the rows: shapes (N, K/32, 16) uint8 and (N, K/32)."""
    from onnxruntime.quantization.matmul_nbits_quantizer import quantize_matmul_4bits

    rows, width = table.shape
    packed = np.zeros((rows, width // BLOCK, BLOCK // 2), np.uint8)
    scales = np.zeros((rows, width // BLOCK), np.float32)
    zeros = np.zeros((rows, (width // BLOCK + 1) // 2), np.uint8)
    quantize_matmul_4bits(packed, np.ascontiguousarray(table.T, np.float32), scales, zeros, BLOCK, rows, width, True)
    return packed, scales


def _gemm_to_matmul(model: onnx.ModelProto) -> None:
    """Writes x W + b as MatMul and Add where Gemm does no more than that: the quantiser knows only MatMul."""
    from onnx import helper, numpy_helper

    graph = model.graph
    arrays = {t.name: t for t in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "Gemm" and n.input[1] in arrays]:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if attributes.get("transA") or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
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
        nodes = [helper.make_node("MatMul", [node.input[0], weight], [product], name=f"{node.name}/matmul")]
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}/bias"))
        _replace(graph, node, nodes)
    drop_unused(graph)


# --- common to both ---------------------------------------------------------------------------


def _table_gathers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Gathers of rows from a stored table of floats: the embeddings."""
    floats = {t.name for t in model.graph.initializer if t.data_type == 1 and len(t.dims) == 2}
    return [n for n in model.graph.node if n.op_type == "Gather" and n.input[0] in floats and _axis(n) == 0]


def _axis(node: onnx.NodeProto) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "axis"), 0)


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> None:
    at = list(graph.node).index(node)
    graph.node.remove(node)
    for offset, new in enumerate(nodes):
        graph.node.insert(at + offset, new)


def _tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnx import helper

    drop_unused(model.graph)
    if not any(o.domain == "com.microsoft" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def _as_input(model: onnx.ModelProto, scratch: Path) -> Any:
    """The quantiser takes a graph in memory only below 2 GiB."""
    if weight_bytes(model) <= LARGEST_PROTO:
        return model
    write_graph(model, scratch)
    return scratch / "model.onnx"


_MAKERS: dict[str, Callable[[Any], Any]] = {"fp16": _fp16, "int8": _int8, "int4": _int4}
