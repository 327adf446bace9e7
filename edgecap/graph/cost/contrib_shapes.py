"""Output shapes of ONNX Runtime's own operators (com.microsoft), which onnx does not know.

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
    """Return the outputs of a node; None if it has no row or needs a shape that is not known."""
    rule = RULES.get(node.op_type)
    try:
        outputs = rule(node, inputs) if rule else None
    except (UnknownShape, IndexError, ValueError, ZeroDivisionError):
        # The inputs do not fit the operator.
        return None
    return None if outputs is None else [*outputs, *[None] * len(node.output)][: len(node.output)]


def _kind(inputs: Inputs, index: int = 0) -> int:
    tensor = inputs[index]
    if tensor is None:
        raise UnknownShape
    return tensor.kind


def _same(node: Any, inputs: Inputs) -> Outputs:
    return [Tensor(_kind(inputs), required_shape(inputs, 0))]


def _typed_by(index: int) -> ShapeRule:
    """Return the rule for the shape of the first input with the type of another."""
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


def _quantized(node: Any, inputs: Inputs) -> Outputs:
    """Return the output of com.microsoft's QuantizeLinear: type of the zero point, else uint8."""
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
    """Return a product whose columns are an attribute: MatMulNBits and MatMulBnb4.

    MatMulFpQ4 gives them as the value of an input.
    """
    columns = attribute(node, "N", None)
    if columns is None:
        sizes = inputs[2].value if inputs[2] is not None else None
        columns = int(sizes[1]) if sizes is not None else None
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
    """Return the shapes of both factors after the transpositions that the operator does itself."""
    return (
        _transposed(
            required_shape(inputs, left),
            attribute(node, "transA", 0),
            attribute(node, "transBatchA", 0),
        ),
        _transposed(
            required_shape(inputs, right),
            attribute(node, "transB", 0),
            attribute(node, "transBatchB", 0),
        ),
    )


def _transposed(shape: Shape, last: int, batch: int) -> Shape:
    if batch and len(shape) > 2:
        shape = (*shape[1:-1], shape[0], shape[-1])
    return (*shape[:-2], shape[-1], shape[-2]) if last and len(shape) > 1 else shape


def product_shape(left: Shape, right: Shape) -> Shape:
    """Return the shape of a matrix product by numpy's rules. Raise ValueError if it has none."""
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


def _quantized_gemm(node: Any, inputs: Inputs) -> Outputs:
    left, right = operands(node, inputs, 0, 3)
    scaled = len(inputs) > 8 and inputs[8] is not None
    return [Tensor(_kind(inputs, 8) if scaled else 1, (left[0], right[1]))]


def _gathered_blocks(node: Any, inputs: Inputs) -> Outputs:
    """Return rows of packed numbers, as wide as numbers fit into the quantized axis."""
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
    size = attention_size(node, inputs)
    present = [_present(size, inputs, at) for at in (3, 4)]
    return [_merged(size, inputs), *present, Tensor(_kind(inputs), _scores(size))]


def _multi_head(past_at: int) -> ShapeRule:
    def rule(node: Any, inputs: Inputs) -> Outputs:
        size = attention_size(node, inputs)
        present = [
            _present(size, inputs, past_at),
            _present(size, inputs, past_at + 1, size.value_dim),
        ]
        return [_merged(size, inputs), *present, Tensor(_kind(inputs), _scores(size))]

    return rule


def _projecting(past_at: int, kind_at: int = 0) -> ShapeRule:
    """Return the rule for a cache in one tensor: (2, batch, heads, positions, width)."""

    def rule(node: Any, inputs: Inputs) -> Outputs:
        if node.op_type == "Attention" and node.domain != "com.microsoft":
            return []
        size = attention_size(node, inputs)
        kind = _kind(inputs, kind_at)
        shape = (
            2,
            size.batch,
            size.heads,
            max(size.positions, _length(inputs, past_at, 3)),
            size.head_dim,
        )
        return [Tensor(kind, _merged(size, inputs).shape), Tensor(kind, shape)]

    return rule


def _packed(node: Any, inputs: Inputs) -> Outputs:
    size = attention_size(node, inputs)
    return [Tensor(_kind(inputs), (required_shape(inputs, 0)[0], size.heads * size.value_dim))]


def _merged(size: AttentionSize, inputs: Inputs) -> Tensor:
    return Tensor(_kind(inputs), (size.batch, size.queries, size.heads * size.value_dim))


def _scores(size: AttentionSize) -> Shape:
    return (size.batch, size.heads, size.queries, size.positions)


def _present(size: AttentionSize, inputs: Inputs, past_at: int, width: int = 0) -> Tensor:
    """Return the cache after the run; a longer buffer keeps its length, and its own width."""
    past = inputs[past_at] if past_at < len(inputs) else None
    shape = (
        required_shape(inputs, past_at) if past is not None else (0, 0, 0, width or size.head_dim)
    )
    length = max(size.positions, shape[2])
    return Tensor(
        past.kind if past else _kind(inputs), (size.batch, size.kv_heads, length, shape[3])
    )


def _length(inputs: Inputs, at: int, axis: int) -> int:
    tensor = inputs[at] if at < len(inputs) else None
    return tensor.shape[axis] if tensor is not None and tensor.shape is not None else 0


def _rotated_pair(node: Any, inputs: Inputs) -> Outputs:
    return [Tensor(_kind(inputs, at), required_shape(inputs, at)) for at in (1, 3)]


_SAME_SHAPE = (
    "BiasAdd BiasGelu BiasSoftmax BitmaskDropout FastGelu Gelu GroupNormalization "
    "MeanVarianceNormalization MoE QMoE QLinearLeakyRelu QLinearSigmoid QLinearSoftmax "
    "QuickGelu RotaryEmbedding ScaledSiLU Trilu Inverse"
)
RULES: dict[str, ShapeRule] = {
    **dict.fromkeys(_SAME_SHAPE.split(), _same),
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
    "QGemm": _quantized_gemm,
    "QLinearAdd": _broadcast(3, 0),
    "QLinearMul": _broadcast(3, 0),
    "QuantizeLinear": _quantized,
    "SimplifiedLayerNormalization": _norm,
    "SkipLayerNormalization": _skip_norm,
    "SkipSimplifiedLayerNormalization": _skip_norm,
    "TransposeMatMul": _product(),
}
