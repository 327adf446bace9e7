"""int8s: QDQ with one range for each activation, calibrated on token ids.

Weights are signed, with a scale for each output channel; activations are unsigned, with a zero
point. Results of products stay fp32, so that neither logits nor residuals are rounded; the runtime
fuses the nodes between (MatMulIntegerToFloat). Tables are those of `int8_dynamic`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecap.errors import UsageError
from edgecap.graph.last_logits import KEEP
from edgecap.graph.onnx_file import LARGEST_PROTO, open_graph, weight_bytes
from edgecap.graph.tied_weights import untie_weights
from edgecap.graph.variants.int8_dynamic import gather_int8
from edgecap.graph.variants.rewrites import (
    as_input,
    gemm_to_matmul,
    name_nodes,
    table_gathers,
    tidy,
)
from edgecap.protocols import Ids

if TYPE_CHECKING:
    import onnx


def make_int8_static(model: onnx.ModelProto, samples: Sequence[Ids]) -> Any:
    """Quantize weights and activations to int8, with ranges from `samples`, each of shape (n,).

    Raises UsageError without samples.
    """
    if not any(len(sample) for sample in samples):
        raise UsageError(
            "int8s needs texts to find the ranges of activations on: give token ids as samples"
        )
    gemm_to_matmul(model)
    name_nodes(model)
    heads = {table: head for head, table in untie_weights(model).items()}
    quantized = _quantized(model, [feeds(model, sample) for sample in samples if len(sample)])
    for node in table_gathers(quantized):
        gather_int8(quantized, node, heads.get(node.input[0]))
    return tidy(quantized)


def _quantized(model: onnx.ModelProto, runs: list[dict[str, np.ndarray]]) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as scratch, _silent():
        target = Path(scratch) / "quantized.onnx"
        quantize_static(
            as_input(model, Path(scratch)),
            target,
            _Reader(runs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=_between_activations(model),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=weight_bytes(model) > LARGEST_PROTO,
            extra_options={
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
            },
        )
        return open_graph(target)


def _between_activations(model: onnx.ModelProto) -> list[str]:
    """Return names of products without a stored matrix.

    They are those of attention, and of positions with rotary frequencies, whose range would be that
    of the longest sample.
    """
    stored = {t.name for t in model.graph.initializer if len(t.dims) == 2}
    return [n.name for n in model.graph.node if n.op_type == "MatMul" and n.input[1] not in stored]


class _Reader:
    """Feeds of the calibration runs, as the runtime's calibrator reads them."""

    def __init__(self, runs: list[dict[str, np.ndarray]]) -> None:
        self._runs = iter(runs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the feeds of the next run, None after the last."""
        return next(self._runs, None)


@contextmanager
def _silent() -> Iterator[None]:
    """Silence the library's advice to preprocess the graph, which goes to the root logger."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def feeds(model: onnx.ModelProto, ids: Ids) -> dict[str, np.ndarray]:
    """Return the inputs of one prefill of ids of shape (n,), from an empty cache.

    All logits are asked for: the ranges of the head's input are those of all positions.
    """
    from onnx import helper

    known = {
        "input_ids": ids[None],
        "attention_mask": np.ones((1, len(ids)), np.int64),
        "position_ids": np.arange(len(ids))[None],
        "token_type_ids": np.zeros((1, len(ids)), np.int64),
    }
    stored = {t.name for t in model.graph.initializer}.difference(KEEP)
    inputs = [i for i in model.graph.input if i.name not in stored]
    kinds = {i.name: helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in inputs}
    return {
        i.name: known.get(i.name, np.zeros(_empty(i), kinds[i.name])).astype(kinds[i.name])
        for i in inputs
    }


def _empty(info: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Return the shape of a past of no positions."""
    dims = info.type.tensor_type.shape.dim
    return tuple(d.dim_value or int("batch" in d.dim_param) for d in dims)
