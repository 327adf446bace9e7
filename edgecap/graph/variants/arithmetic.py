"""Compute a variant in half precision: activations, products and KV cache in fp16 or bf16.

Weights in blocks stay as they are, with scales in the type of the activations. Norms without an
operator of their own keep their sums in fp32, as in the transformers classes. Angles of rotary
embeddings come from tables of all positions (`store_angles`), so that no fp32 is left in a step,
and no step waits for a number that the device computed for the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgecap.graph.fusion.edit import declare_types, drop_identities
from edgecap.graph.fusion.flow import Flow
from edgecap.graph.fusion.store_angles import store_angles
from edgecap.graph.last_logits import count_on_host
from edgecap.graph.variants.bf16 import narrowed
from edgecap.graph.variants.blocks.nodes import set_accuracy
from edgecap.graph.variants.fp16 import make_fp16

if TYPE_CHECKING:
    import onnx

ARITHMETIC = {
    "fp32": "products in fp32; v1",
    "fp16": "products, activations and cache in fp16, angles from tables; v2",
    "bf16": "products, activations and cache in bf16, angles from tables; v2",
}
_IN_ACTIVATION_TYPE = 0  # accuracy level of MatMulNBits: the type of the activations
_FLOAT, _HALF, _BFLOAT = 1, 10, 16  # TensorProto's types


def compute_in(arithmetic: str, model: onnx.ModelProto, positions: int | None) -> Any:
    """Return the model with its products in `arithmetic`, a key of `ARITHMETIC`, or as it is if "".

    `positions` are the model's, or None if unknown: then angles are computed in each step.
    """
    if not arithmetic:
        return model
    set_accuracy(model.graph, _IN_ACTIVATION_TYPE)
    if arithmetic == "fp32":
        return model
    count_on_host(model)
    if positions:
        store_angles(model, positions)
    declare_types(Flow(model))
    floats = [t for t in model.graph.initializer if t.data_type == _FLOAT]
    exact = {t.name: narrowed(t) for t in floats} if arithmetic == "bf16" else {}
    half = make_fp16(model)
    drop_identities(Flow(half))  # casts of scales
    return _as_bf16(half, exact) if exact else half


def _as_bf16(model: onnx.ModelProto, exact: dict[str, onnx.TensorProto]) -> onnx.ModelProto:
    """Turn each fp16 of a graph into bf16; stored tensors are those rounded from fp32."""
    graph = model.graph
    for tensor in [t for t in graph.initializer if t.data_type == _HALF]:
        tensor.CopyFrom(exact.get(tensor.name) or _widened(tensor))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == _HALF:
            value.type.tensor_type.elem_type = _BFLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _HALF:
                attribute.i = _BFLOAT
            if attribute.HasField("t") and attribute.t.data_type == _HALF:
                attribute.t.CopyFrom(_widened(attribute.t))
    _widen_logits(graph)
    return model


def _widen_logits(graph: onnx.GraphProto) -> None:
    """Let a graph answer in fp32, which programs can read."""
    from onnx import helper

    logits = next((o for o in graph.output if o.name == "logits"), None)
    if logits is None or logits.type.tensor_type.elem_type != _BFLOAT:
        return
    narrow = "edgecap_logits_bf16"
    for node in graph.node:
        for names in (node.input, node.output):
            for at in [at for at, name in enumerate(names) if name == logits.name]:
                names[at] = narrow
    graph.node.append(helper.make_node("Cast", [narrow], ["logits"], name=narrow, to=_FLOAT))
    logits.type.tensor_type.elem_type = _FLOAT


def _widened(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return an fp16 tensor in bf16 under its own name."""
    from onnx import numpy_helper

    numbers = numpy_helper.to_array(tensor).astype(np.float32)
    return narrowed(numpy_helper.from_array(numbers, tensor.name))
