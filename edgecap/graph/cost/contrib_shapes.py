"""Shapes of what operators of ONNX Runtime (com.microsoft) give: onnx itself does not know them.

One row an operator: how its outputs follow from its inputs. Also the few of onnx's own that have no
shape inference. Source: docs/ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecap.graph.cost.attention import AttentionSize, UnknownShape, attention_size, required_shape
from edgecap.graph.cost.tensors import Inputs, Shape, Tensor, attribute

Outputs = list[Tensor | None]
ShapeRule = Callable[[Any, Inputs], Outputs]


def contrib_outputs(node: Any, inputs: Inputs) -> Outputs | None:
    """Outputs of a node by its row, None where there is no row or a shape that it needs is not known."""
    rule = RULES.get(node.op_type)
    try:
        found = rule(node, inputs) if rule else None
    except (
        UnknownShape,
        IndexError,
        ValueError,
        ZeroDivisionError,
    ):  # inputs that do not fit the operator
        return None
    return None if found is None else [*found, *[None] * len(node.output)][: len(node.output)]


def _kind(inputs: Inputs, index: int = 0) -> int:
    tensor = inputs[index]
    if tensor is None:
        raise UnknownShape
    return tensor.kind


def _same(node: Any, inputs: Inputs) -> Outputs:
    return [Tensor(_kind(inputs), required_shape(inputs, 0))]


def _typed_by(index: int) -> ShapeRule:
    """The shape of the first input, the type of another."""
    return lambda node, inputs: [Tensor(_kind(inputs, index), required_shape(inputs, 0))]


def _broadcast(*at: int) -> ShapeRule:
    def rule(node: Any, inputs: Inputs) -> Outputs:
        import numpy as np

        return [
            Tensor(
                _kind(inputs, at[-1]), np.broadcast_shapes(*[required_shape(inputs, i) for i in at])
            )
        ]

    return rule


def _quantised(node: Any, inputs: Inputs) -> Outputs:
    """com.microsoft's QuantizeLinear: the type of the zero point, else uint8."""
    point = inputs[2] if len(inputs) > 2 else None
    return [Tensor(point.kind if point else 2, required_shape(inputs, 0))]


def _skip_norm(node: Any, inputs: Inputs) -> Outputs:
    shape, kind = required_shape(inputs, 0), _kind(inputs)
    mean = Tensor(1, (*shape[:-1], 1))
    return [Tensor(kind, shape), mean, mean, Tensor(kind, shape)]


def _norm(node: Any, inputs: Inputs) -> Outputs:
    shape = required_shape(inputs, 0)
    axis = attribute(node, "axis", -1) % len(shape)
    deviation = Tensor(1, (*shape[:axis], *[1] * (len(shape) - axis)))
    return [Tensor(_kind(inputs), shape), deviation, deviation]


def _by_columns(node: Any, inputs: Inputs) -> Outputs:
    """A product whose columns are an attribute: MatMulNBits and MatMulBnb4; MatMulFpQ4 tells them as a value."""
    columns = attribute(node, "N", None)
    if columns is None:
        told = inputs[2].value if inputs[2] is not None else None
        columns = int(told[1]) if told is not None else None
    if columns is None:
        raise UnknownShape
    return [Tensor(_kind(inputs), (*required_shape(inputs, 0)[:-1], columns))]


def _product(left: int = 0, right: int = 1, typed_by: int = 0) -> ShapeRule:
    def rule(node: Any, inputs: Inputs) -> Outputs:
        return [
            Tensor(_kind(inputs, typed_by), product_shape(*operands(node, inputs, left, right)))
        ]

    return rule


def operands(node: Any, inputs: Inputs, left: int = 0, right: int = 1) -> tuple[Shape, Shape]:
    """Shapes of both factors as they are multiplied, after the transpositions that the operator does itself."""
    return (
        _turned(
            required_shape(inputs, left),
            attribute(node, "transA", 0),
            attribute(node, "transBatchA", 0),
        ),
        _turned(
            required_shape(inputs, right),
            attribute(node, "transB", 0),
            attribute(node, "transBatchB", 0),
        ),
    )


def _turned(shape: Shape, last: int, batch: int) -> Shape:
    if batch and len(shape) > 2:
        shape = (*shape[1:-1], shape[0], shape[-1])
    return (*shape[:-2], shape[-1], shape[-2]) if last and len(shape) > 1 else shape


def product_shape(left: Shape, right: Shape) -> Shape:
    """The shape of a matrix product with numpy's rules. Raises ValueError where the factors do not fit."""
    import numpy as np

    if len(right) == 1:
        return left[:-1]
    if len(left) == 1:
        return (*right[:-2], right[-1])
    if left[-1] != right[-2]:
        raise ValueError("factors do not fit")
    return (*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])


def _gemm(kind_at: int, right: int = 1) -> ShapeRule:
    def rule(node: Any, inputs: Inputs) -> Outputs:
        left, other = operands(node, inputs, 0, right)
        return [Tensor(_kind(inputs, kind_at), (left[0], other[1]))]

    return rule


def _quantised_gemm(node: Any, inputs: Inputs) -> Outputs:
    left, right = operands(node, inputs, 0, 3)
    scaled = len(inputs) > 8 and inputs[8] is not None
    return [Tensor(_kind(inputs, 8) if scaled else 1, (left[0], right[1]))]


def _gathered_blocks(node: Any, inputs: Inputs) -> Outputs:
    """Rows of packed numbers: as wide as numbers fit into the bytes of the quantised axis."""
    data, at = required_shape(inputs, 0), required_shape(inputs, 1)
    axis = attribute(node, "gather_axis", 0) % len(data)
    packed = 8 // attribute(node, "bits", 4) if _kind(inputs) in (2, 3) else 1
    wide = (*data[:-1], data[-1] * packed)
    return [Tensor(_kind(inputs, 2), (*wide[:axis], *at, *wide[axis + 1 :]))]


def _embedded(node: Any, inputs: Inputs) -> Outputs:
    batch, sequence, width = *required_shape(inputs, 0), required_shape(inputs, 2)[1]
    rows = Tensor(_kind(inputs, 2), (batch, sequence, width))
    return [rows, Tensor(6, (batch,)), rows]


# --- attention --------------------------------------------------------------------------------


def _grouped(node: Any, inputs: Inputs) -> Outputs:
    core = attention_size(node, inputs)
    present = [_present(core, inputs, at) for at in (3, 4)]
    return [_merged(core, inputs), *present, Tensor(_kind(inputs), _scores(core))]


def _multi_head(past_at: int) -> ShapeRule:
    def rule(node: Any, inputs: Inputs) -> Outputs:
        core = attention_size(node, inputs)
        present = [
            _present(core, inputs, past_at),
            _present(core, inputs, past_at + 1, core.value_dim),
        ]
        return [_merged(core, inputs), *present, Tensor(_kind(inputs), _scores(core))]

    return rule


def _projecting(past_at: int, kind_at: int = 0) -> ShapeRule:
    """Keys and values of the cache in one tensor: (2, batch, heads, positions, width)."""

    def rule(node: Any, inputs: Inputs) -> Outputs:
        if node.op_type == "Attention" and node.domain != "com.microsoft":
            return []
        core = attention_size(node, inputs)
        kind = _kind(inputs, kind_at)
        shape = (
            2,
            core.batch,
            core.heads,
            max(core.positions, _length(inputs, past_at, 3)),
            core.head_dim,
        )
        return [Tensor(kind, _merged(core, inputs).shape), Tensor(kind, shape)]

    return rule


def _packed(node: Any, inputs: Inputs) -> Outputs:
    core = attention_size(node, inputs)
    return [Tensor(_kind(inputs), (required_shape(inputs, 0)[0], core.heads * core.value_dim))]


def _merged(core: AttentionSize, inputs: Inputs) -> Tensor:
    return Tensor(_kind(inputs), (core.batch, core.queries, core.heads * core.value_dim))


def _scores(core: AttentionSize) -> Shape:
    return (core.batch, core.heads, core.queries, core.positions)


def _present(core: AttentionSize, inputs: Inputs, past_at: int, width: int = 0) -> Tensor:
    """The cache after the run; a buffer that is longer than its content keeps its length, and its own width."""
    past = inputs[past_at] if past_at < len(inputs) else None
    shape = (
        required_shape(inputs, past_at) if past is not None else (0, 0, 0, width or core.head_dim)
    )
    length = max(core.positions, shape[2])
    return Tensor(
        past.kind if past else _kind(inputs), (core.batch, core.kv_heads, length, shape[3])
    )


def _length(inputs: Inputs, at: int, axis: int) -> int:
    tensor = inputs[at] if at < len(inputs) else None
    return tensor.shape[axis] if tensor is not None and tensor.shape is not None else 0


def _rotated_pair(node: Any, inputs: Inputs) -> Outputs:
    return [Tensor(_kind(inputs, at), required_shape(inputs, at)) for at in (1, 3)]


_NAMES_OF_SAME = (
    "BiasAdd BiasGelu BiasSoftmax BitmaskDropout FastGelu Gelu GroupNormalization MeanVarianceNormalization MoE QMoE "
    "QLinearLeakyRelu QLinearSigmoid QLinearSoftmax QuickGelu RotaryEmbedding ScaledSiLU Trilu Inverse"
)
RULES: dict[str, ShapeRule] = {
    **dict.fromkeys(_NAMES_OF_SAME.split(), _same),
    "Attention": _projecting(4),
    "DecoderMaskedMultiHeadAttention": _multi_head(5),
    "DecoderMaskedSelfAttention": _projecting(4),
    "DequantizeLinear": _typed_by(1),
    "DynamicQuantizeMatMul": _product(),
    "EmbedLayerNormalization": _embedded,
    "FusedGemm": _gemm(0),
    "FusedMatMul": _product(),
    "FusedMatMulActivation": _product(),
    "GatherBlockQuantized": _gathered_blocks,
    "GemmFastGelu": _product(),
    "GemmaRotaryEmbedding": _rotated_pair,
    "GroupQueryAttention": _grouped,
    "MatMulBnb4": _by_columns,
    "MatMulFpQ4": _by_columns,
    "MatMulInteger16": lambda node, inputs: [
        Tensor(6, product_shape(required_shape(inputs, 0), required_shape(inputs, 1)))
    ],
    "MatMulIntegerToFloat": _product(typed_by=2),
    "MatMulNBits": _by_columns,
    "MultiHeadAttention": _multi_head(6),
    "PackedAttention": _packed,
    "PackedMultiHeadAttention": _packed,
    "QAttention": _projecting(8, kind_at=3),
    "QGemm": _quantised_gemm,
    "QLinearAdd": _broadcast(3, 0),
    "QLinearMul": _broadcast(3, 0),
    "QuantizeLinear": _quantised,
    "SimplifiedLayerNormalization": _norm,
    "SkipLayerNormalization": _skip_norm,
    "SkipSimplifiedLayerNormalization": _skip_norm,
    "TransposeMatMul": _product(),
}
