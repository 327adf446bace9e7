"""fp16: every weight in half precision, with the runtime's own converter.

Norms, softmax and rotary angles stay in fp32, as in the transformers classes. Casts that the
converter adds twice, or there and back again, are removed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecap.graph.onnx_file import LARGEST_PROTO, weight_bytes, write_graph
from edgecap.graph.variants.rewrites import name_nodes

if TYPE_CHECKING:
    import onnx

# Kept in fp32 beside the library's own list: squares overflow at 256, angles need 20 bits.
_FP32_OPS = (
    "Pow",
    "ReduceMean",
    "ReduceSum",
    "Sqrt",
    "Reciprocal",
    "Softmax",
    "Cos",
    "Sin",
    "LayerNormalization",
)


def make_fp16(model: onnx.ModelProto) -> Any:
    """Convert weights, activations and cache to fp16."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    name_nodes(model)
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
    """Keep one of the equal casts that the converter adds for every use of a value."""
    outputs: set[str] = set()
    for node in list(model.graph.node):
        if node.op_type == "Cast" and node.output[0] in outputs:
            model.graph.node.remove(node)
        outputs.update(node.output)


def _drop_round_trips(model: onnx.ModelProto) -> None:
    """Remove fp32 -> fp16 -> fp32 between two fp32 nodes, which would round what they pass on."""
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
    """Return names of the nodes of norms: from ReduceMean to the product with the input."""
    uses: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            uses.setdefault(name, []).append(node)
    queue = [n for n in model.graph.node if n.op_type == "ReduceMean"]
    norms: dict[str, None] = {}
    while queue:
        node = queue.pop()
        for user in uses.get(node.output[0], []):
            if user.op_type in ("Add", "Sqrt", "Div", "Reciprocal", "Mul", "Sub"):
                norms[user.name] = None
                if user.op_type in ("Add", "Sqrt", "Reciprocal") or node.op_type == "Sqrt":
                    queue.append(user)
    return list(norms)


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infer shapes, through files for a graph of more than protobuf's 2 GiB."""
    import onnx

    if weight_bytes(model) <= LARGEST_PROTO:
        return onnx.shape_inference.infer_shapes(model)
    with tempfile.TemporaryDirectory() as scratch:
        write_graph(model, Path(scratch))
        inferred = Path(scratch) / "inferred.onnx"
        onnx.shape_inference.infer_shapes_path(str(Path(scratch) / "model.onnx"), str(inferred))
        return onnx.load(str(inferred))


def _angles(model: onnx.ModelProto) -> list[str]:
    """Return names of the nodes that lead to a Cos or Sin: angles need fp32."""
    producers = {o: n for n in model.graph.node for o in n.output}
    queue = [n for n in model.graph.node if n.op_type in ("Cos", "Sin")]
    names: dict[str, None] = {}
    while queue:
        node = queue.pop()
        if node.name not in names:
            names[node.name] = None
            queue.extend(producers[i] for i in node.input if i in producers)
    return list(names)
