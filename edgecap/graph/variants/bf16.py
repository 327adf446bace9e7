"""bf16: weights stored in bfloat16 and widened once at load; arithmetic and cache stay fp32.

ONNX Runtime's CPU provider (1.31) has Cast, Gather, Transpose, Concat and Reshape for bfloat16, but
no MatMul, Add or Softmax. So the file is half as large, the numbers are those of bf16 weights, and
the graph runs on every provider.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

_MIN_NUMBERS = 1024  # of a tensor that is worth a Cast of its own


def make_bf16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Round every stored matrix and table to bfloat16, and widen it in front of its uses."""
    from onnx import TensorProto, helper

    graph = model.graph
    for tensor in [
        t
        for t in graph.initializer
        if t.data_type == TensorProto.FLOAT and math.prod(t.dims) >= _MIN_NUMBERS
    ]:
        narrow = narrowed(tensor)
        narrow.name = f"{tensor.name}_bf16"
        graph.initializer.remove(tensor)
        graph.initializer.append(narrow)
        graph.node.insert(
            0, helper.make_node("Cast", [narrow.name], [tensor.name], name=narrow.name, to=1)
        )
    return model


def narrowed(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return a float tensor in bfloat16, rounded to nearest, ties to even."""
    from onnx import TensorProto, numpy_helper

    bits = (
        np.ascontiguousarray(numpy_helper.to_array(tensor), np.float32)
        .view(np.uint32)
        .astype(np.uint64)
    )
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return TensorProto(
        name=tensor.name,
        data_type=TensorProto.BFLOAT16,
        dims=tensor.dims,
        raw_data=rounded.tobytes(),
    )
