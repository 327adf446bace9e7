"""A decoder without work: inputs and outputs of a model, and next to no nodes between.

Running it takes the time of I/O binding, Python and the runtime, which `meters.overhead` measures.
"""

from __future__ import annotations

from typing import Any

WIDTH = 8  # of logits, keys and values
_OPSET, _IR = 18, 9


def empty_decoder(layers: int) -> bytes:
    """Return an ONNX model as bytes, with inputs and outputs of an fp32 decoder of `layers` layers.

    input_ids, attention_mask, position_ids: int64, (batch, positions); only the first is read.

    past_key_values.N.key and .value, passed on as present.N.key and .value: float, (batch, 1, past,
    WIDTH). A cache that begins empty stays empty, and no bytes are copied.

    logits: float, (batch, positions, WIDTH), one-hot: a single small node that takes any token id.
    """
    from onnx import helper

    pairs = [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    nodes = [helper.make_node("OneHot", ["input_ids", "width", "values"], ["logits"])]
    nodes += [
        helper.make_node("Identity", [f"past_key_values.{p}"], [f"present.{p}"]) for p in pairs
    ]
    graph = helper.make_graph(nodes, "empty", _inputs(pairs), _outputs(pairs), _constants())
    opsets = [helper.make_opsetid("", _OPSET)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=_IR).SerializeToString())


def _inputs(pairs: list[str]) -> list[Any]:
    from onnx import TensorProto, helper

    sizes = {
        "input_ids": "sequence_length",
        "attention_mask": "total_sequence_length",
        "position_ids": "sequence_length",
    }
    ids = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["batch_size", size])
        for n, size in sizes.items()
    ]
    return ids + [_cache_info(f"past_key_values.{p}") for p in pairs]


def _outputs(pairs: list[str]) -> list[Any]:
    from onnx import TensorProto, helper

    logits = helper.make_tensor_value_info(
        "logits", TensorProto.FLOAT, ["batch_size", "sequence_length", WIDTH]
    )
    return [logits, *(_cache_info(f"present.{p}") for p in pairs)]


def _cache_info(name: str) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(
        name, TensorProto.FLOAT, ["batch_size", 1, "past_sequence_length", WIDTH]
    )


def _constants() -> list[Any]:
    import numpy as np
    from onnx import numpy_helper

    values = np.array([0, 1], np.float32)
    return [
        numpy_helper.from_array(np.array(WIDTH, np.int64), "width"),
        numpy_helper.from_array(values, "values"),
    ]
