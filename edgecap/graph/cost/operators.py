"""FLOPs of each operator, as tables with one row an operator.

Matrix work is 2 FLOPs a multiply-add. Fused attention counts the whole square of sequence x
positions, as an unfused graph computes it; a sliding window or causal mask saves nothing here.

Conventions for other work, per number of the output unless said otherwise:

    1   arithmetic of one step, and one function (exp, erf, tanh, sigmoid, cos ...); none on whole
        numbers or truth values: the arithmetic of shapes and comparisons are no FLOPs
    5   softmax (greatest, difference, exp, sum, quotient); 1 more in fused attention for the scale,
        1 for a bias
    7   LayerNormalization (mean, difference, square, sum, quotient, scale, shift), 4 in its RMS
        form (square, sum, quotient, scale); 1 more for each summand of the Skip forms
    5 3 9   Gelu by erf, QuickGelu and Swish, FastGelu and Gelu by tanh; 1 more for BiasGelu's bias
    3   a rotated number of RotaryEmbedding or of queries and keys in fused attention
    1   a number of the input of a reduction or running sum; 2 if it is squared
    5 3 2   DynamicQuantizeLinear, QuantizeLinear, DequantizeLinear (weights included,
            GatherBlockQuantized too)
    8   QLinear forms of elementwise arithmetic (two widened, one operation, one narrowed)
    5 3 2   mixtures of experts: the router's softmax, an inner number of a chosen expert, a number
            of its result
    1   a bias, a scale of the result, an activation's number of a fused matrix product

Casts, moves, selections, sorting and views do none. Widening of weights in blocks is left out,
inside MatMulNBits and in front of a MatMul: if it happens is the kernel's choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from edgecap.graph.cost.attention import (
    ATTENTION_SIZES,
    attention_size,
    optional_shape,
    required_shape,
)
from edgecap.graph.cost.contrib_shapes import operands
from edgecap.graph.cost.tensors import BITS, FLOATS, Inputs, Shape, attribute

FlopRule = Callable[[Any, Inputs, Inputs], int]


def matrix_flops(node: Any, inputs: Inputs, outputs: Inputs) -> int:
    """Return FLOPs of matrix products. Raise UnknownShape if a needed shape is not known."""
    if _is_attention(node):
        size = attention_size(node, inputs)
        square = size.batch * size.heads * size.queries * size.positions
        return 2 * square * (size.head_dim + size.value_dim) + 2 * size.projected
    count = MATRIX_FLOPS.get(node.op_type)
    return count(node, inputs, outputs) if count else 0


def other_flops(node: Any, inputs: Inputs, outputs: Inputs) -> int:
    """Return FLOPs of all else by the conventions above. Raise UnknownShape."""
    if _is_attention(node):
        size = attention_size(node, inputs)
        square = size.batch * size.heads * size.queries * size.positions
        return square * (6 + size.scores_read) + 3 * size.rotated
    count = OTHER_FLOPS.get(node.op_type)
    return count(node, inputs, outputs) if count else 0


def is_known(node: Any) -> bool:
    """Return True if the operator has a row in any table, one of no work included."""
    return _is_attention(node) or any(
        node.op_type in table for table in (MATRIX_FLOPS, OTHER_FLOPS, NO_FLOPS)
    )


def _is_attention(node: Any) -> bool:
    return node.op_type in ATTENTION_SIZES


def _size(tensors: Inputs, index: int) -> int:
    return math.prod(required_shape(tensors, index))


# --- matrix work ------------------------------------------------------------------------------


def _product(left: int = 0, right: int = 1) -> FlopRule:
    """Count a matrix product: each number of the result is a row times a column."""

    def count(node: Any, inputs: Inputs, outputs: Inputs) -> int:
        rows, _ = operands(node, inputs, left, right)
        return 2 * _size(outputs, 0) * rows[-1]

    return count


def _product_of_columns(node: Any, inputs: Inputs, outputs: Inputs) -> int:
    return 2 * _size(outputs, 0) * required_shape(inputs, 0)[-1]


def _convolution(weight: int = 1) -> FlopRule:
    def count(node: Any, inputs: Inputs, outputs: Inputs) -> int:
        return 2 * _size(outputs, 0) * math.prod(required_shape(inputs, weight)[1:])

    return count


def _transposed_convolution(node: Any, inputs: Inputs, outputs: Inputs) -> int:
    return 2 * _size(inputs, 0) * math.prod(required_shape(inputs, 1)[1:])


def _experts(node: Any, inputs: Inputs, outputs: Inputs) -> int:
    """Count tokens x k x the matrices of one expert; a packed byte holds several numbers."""
    tokens = math.prod(required_shape(inputs, 0)[:-1])
    at = (2, 4, 6) if node.op_type == "MoE" else (2, 5, 8)
    return int(
        2 * tokens * attribute(node, "k", 1) * sum(_expert_numbers(node, inputs, i) for i in at)
    )


def _expert_numbers(node: Any, inputs: Inputs, index: int) -> int:
    shape = optional_shape(inputs, index)
    if shape is None:
        return 0
    name = f"fc{(2, 5, 8).index(index) + 1}_expert_weight_bits" if node.op_type == "QMoE" else ""
    tensor = inputs[index]
    width = attribute(node, name, 0) or attribute(node, "expert_weight_bits", 4)
    packed = (
        8 // width if node.op_type == "QMoE" and tensor is not None and tensor.kind in (2, 3) else 1
    )
    return math.prod(shape[1:]) * packed


def _einsum(node: Any, inputs: Inputs, outputs: Inputs) -> int:
    """Count Einsum, two factors at a time from the left.

    2 FLOPs for each combination of labels, none without a contraction.
    """
    terms, result = _labels(node, [required_shape(inputs, i) for i in range(len(inputs))])
    sizes = {label: n for term, shape in terms for label, n in zip(term, shape, strict=True)}
    factors, total = [set(term) for term, _ in terms], 0
    while len(factors) > 1:
        joined = factors[0] | factors[1]
        remaining = joined & set(result).union(*factors[2:])
        total += 2 * math.prod(sizes[x] for x in joined) if remaining != joined else 0
        factors = [remaining, *factors[2:]]
    return total


def _labels(node: Any, shapes: list[Shape]) -> tuple[list[tuple[list[str], Shape]], list[str]]:
    left, _, right = attribute(node, "equation", b"").decode().replace(" ", "").partition("->")
    terms = [_term(term, len(shape)) for term, shape in zip(left.split(","), shapes, strict=True)]
    if right or "->" in attribute(node, "equation", b"").decode():
        dots = [label for term in terms for label in term if label.startswith(".")]
        return list(zip(terms, shapes, strict=True)), [*right.replace("...", ""), *dots]
    every = [label for term in terms for label in term]
    return list(zip(terms, shapes, strict=True)), [
        x for x in every if every.count(x) == 1 or x.startswith(".")
    ]


def _term(term: str, rank: int) -> list[str]:
    """Return the labels of a factor; an ellipsis stands for axes counted from the last one."""
    before, dots, after = term.partition("...")
    hidden = rank - len(before) - len(after) if dots else 0
    return [*before, *[f".{i}" for i in range(hidden, 0, -1)], *after]


_PRODUCTS = (
    "MatMul", "MatMulInteger", "MatMulInteger16", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    "FusedMatMul", "TransposeMatMul", "FusedMatMulActivation", "Gemm", "FusedGemm", "GemmFastGelu",
)  # fmt: skip
MATRIX_FLOPS: dict[str, FlopRule] = {
    **dict.fromkeys(_PRODUCTS, _product()),
    **dict.fromkeys(("QLinearMatMul", "QGemm"), _product(0, 3)),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4", "MatMulFpQ4"), _product_of_columns),
    **dict.fromkeys(("Conv", "ConvInteger", "FusedConv"), _convolution()),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed_convolution,
    "Einsum": _einsum,
    **dict.fromkeys(("MoE", "QMoE"), _experts),
}


# --- other work -------------------------------------------------------------------------------


def _per_output(flops: int, whole: bool = False) -> FlopRule:
    """Count `flops` for each number of the output; of whole numbers only if `whole`."""

    def count(node: Any, inputs: Inputs, outputs: Inputs) -> int:
        kind = outputs[0].kind if outputs and outputs[0] else 0
        return flops * _size(outputs, 0) if whole or kind in FLOATS or kind not in BITS else 0

    return count


def _per_input(flops: int) -> FlopRule:
    """Count `flops` for each number of the input, unless it is a whole number."""

    def count(node: Any, inputs: Inputs, outputs: Inputs) -> int:
        kind = inputs[0].kind if inputs[0] else 0
        return flops * _size(inputs, 0) if kind in FLOATS or kind not in BITS else 0

    return count


def _summands(node: Any, inputs: Inputs, outputs: Inputs) -> int:
    return (len(inputs) - 1) * _per_output(1)(node, inputs, outputs)


def _gelu(node: Any, inputs: Inputs, outputs: Inputs) -> int:
    return (9 if attribute(node, "approximate", b"none") == b"tanh" else 5) * _size(outputs, 0)


def _per_output_with(flops: int, *optional: int) -> FlopRule:
    """Count `flops` for each number of the output, and one more for each optional input given."""

    def count(node: Any, inputs: Inputs, outputs: Inputs) -> int:
        given = sum(i < len(inputs) and inputs[i] is not None for i in optional)
        return (flops + given) * _size(outputs, 0) if flops + given else 0

    return count


def _dynamic_quantize_matmul(node: Any, inputs: Inputs, outputs: Inputs) -> int:
    """Count DynamicQuantizeMatMul: quantize the first factor, scale the result, add a bias."""
    return 5 * _size(inputs, 0) + _per_output_with(1, 4)(node, inputs, outputs)


def _rotary(node: Any, inputs: Inputs, outputs: Inputs) -> int:
    shape = required_shape(inputs, 0)
    part = attribute(node, "rotary_embedding_dim", 0)
    heads = attribute(node, "num_heads", 0)
    width = shape[-1] if len(shape) == 4 else shape[-1] // heads if heads else 0
    share = part / width if part and width else 1
    return int(3 * math.prod(shape) * share)


def _pooling(node: Any, inputs: Inputs, outputs: Inputs) -> int:
    return int(_size(outputs, 0) * math.prod(attribute(node, "kernel_shape", [1])))


def _expert_gates(node: Any, inputs: Inputs, outputs: Inputs) -> int:
    """Count a mixture of experts: softmax, activation, gate, and the weighted sum."""
    tokens, k = math.prod(required_shape(inputs, 0)[:-1]), attribute(node, "k", 1)
    width = required_shape(inputs, 2)[1]
    return int(5 * _size(inputs, 1) + tokens * k * (3 * width + 2 * required_shape(inputs, 0)[-1]))


def _one_row_each(counts: dict[str, FlopRule]) -> dict[str, FlopRule]:
    return {name: count for names, count in counts.items() for name in names.split()}


OTHER_FLOPS: dict[str, FlopRule] = _one_row_each({
    "Add Sub Mul Div Pow Mod Neg Abs Sqrt Reciprocal Exp Log Erf Tanh Sigmoid Relu Sin Cos Tan "
    "Sinh Cosh Asin Acos Atan Asinh Acosh Atanh Floor Ceil Round Sign Clip LeakyRelu PRelu "
    "ThresholdedRelu Elu Selu Celu Softplus Softsign HardSigmoid BiasAdd": _per_output(1),
    "Sum Max Min Mean": _summands,
    "HardSwish Swish QuickGelu ScaledSiLU": _per_output(3),
    "Mish": _per_output(4),
    "Gelu": _gelu,
    "BiasGelu": _per_output(6),
    "FastGelu": _per_output_with(9, 1),
    "Softmax LogSoftmax BiasSoftmax": _per_output(5),
    "LayerNormalization": _per_output_with(6, 2),
    "InstanceNormalization GroupNormalization MeanVarianceNormalization": _per_output(7),
    "BatchNormalization": _per_output(2),
    "SkipLayerNormalization": _per_output_with(7, 3, 4),
    "RMSNormalization SimplifiedLayerNormalization": _per_output(4),
    "SkipSimplifiedLayerNormalization": _per_output_with(5, 3),
    "LpNormalization": _per_output(3),
    "EmbedLayerNormalization": _per_output_with(8, 4),
    "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd CumSum CumProd": _per_input(1),
    "GlobalAveragePool GlobalMaxPool": _per_input(1),
    "ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp": _per_input(2),
    "AveragePool MaxPool": _pooling,
    "RotaryEmbedding": _rotary,
    "GemmaRotaryEmbedding": lambda node, inputs, outputs: (
        3 * (_size(outputs, 0) + _size(outputs, 1))
    ),
    "DynamicQuantizeLinear": _per_input(5),
    "QuantizeLinear": _per_input(3),
    "DequantizeLinear GatherBlockQuantized": _per_output(2),
    "QLinearAdd QLinearMul QLinearLeakyRelu QLinearSigmoid QLinearSoftmax":
        _per_output(8, whole=True),
    "Gemm FusedGemm Conv FusedConv": _per_output_with(0, 2),
    "MatMulNBits": _per_output_with(0, 5),
    "GemmFastGelu": _per_output_with(9, 2),
    "MatMulIntegerToFloat": _per_output_with(1, 6),
    "QLinearMatMul": _per_output(1, whole=True),
    "QGemm": _per_output_with(1, 6),
    "QLinearConv": _per_output_with(1, 8),
    "DynamicQuantizeMatMul": _dynamic_quantize_matmul,
    "FusedMatMulActivation": _per_output(1),
    "MoE QMoE": _expert_gates,
})  # fmt: skip

# No FLOPs: moves, selections, comparisons and logic, sorting, generated numbers, views.
NO_FLOPS = frozenset({
    "Cast", "CastLike", "BitCast", "Transpose", "Concat", "Split", "Slice", "Gather",
    "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND", "TensorScatter", "Pad",
    "Tile", "Expand", "Trilu", "Where", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual",
    "Not", "And", "Or", "Xor", "IsNaN", "IsInf", "BitwiseAnd", "BitwiseOr", "BitwiseNot",
    "BitwiseXor", "BitShift", "TopK", "ArgMax", "ArgMin", "NonZero", "Unique", "Compress", "OneHot",
    "EyeLike", "ReverseSequence", "SpaceToDepth", "DepthToSpace", "Range", "ConstantOfShape",
    "Constant", "Shape", "Size", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten",
    "Dropout", "ExpandDims",
})  # fmt: skip
