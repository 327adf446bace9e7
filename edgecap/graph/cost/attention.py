"""Sizes of fused attention operators: heads, queries, positions and widths.

Shapes (`contrib_shapes`) and FLOPs (`operators`) both follow from them. Meaning of inputs and
attributes: ONNX Runtime's docs/ContribOperators.md, and onnx's Operators.md for Attention of opset
23 and later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from edgecap.graph.cost.tensors import Inputs, Shape, attribute


class AttentionSize(NamedTuple):
    """Attention of `queries` to `positions` (past included) in `batch` rows, for each of `heads`.

    `projected` counts the multiply-adds of projections that the operator contains, `rotated` the
    numbers of queries and keys that it rotates; `scores_read` marks an added bias or mask.
    """

    batch: int
    heads: int
    kv_heads: int
    queries: int
    positions: int
    head_dim: int
    value_dim: int
    projected: int = 0
    rotated: int = 0
    scores_read: bool = False


class UnknownShape(Exception):
    """The operator needs a shape that is not known; caught where shapes are followed."""


def optional_shape(inputs: Inputs, index: int) -> Shape | None:
    """Return the shape of an input, or None if the input is left out. Raise UnknownShape."""
    tensor = inputs[index] if index < len(inputs) else None
    if tensor is not None and tensor.shape is None:
        raise UnknownShape
    return None if tensor is None else tensor.shape


def required_shape(inputs: Inputs, index: int) -> Shape:
    """Return the shape of an input that must be given. Raise UnknownShape."""
    shape = optional_shape(inputs, index)
    if shape is None:
        raise UnknownShape
    return shape


def known_number(inputs: Inputs, index: int) -> int | None:
    """Return the value of an input of one number, or None if left out or not known."""
    tensor = inputs[index] if index < len(inputs) else None
    return (
        int(tensor.value.reshape(-1)[0])
        if tensor is not None and tensor.value is not None
        else None
    )


def attention_size(node: Any, inputs: Inputs) -> AttentionSize:
    """Return the sizes of a fused attention node. Raise UnknownShape."""
    return ATTENTION_SIZES[node.op_type](node, inputs)


def _grouped(node: Any, inputs: Inputs) -> AttentionSize:
    heads, kv_heads = attribute(node, "num_heads", 0), attribute(node, "kv_num_heads", 0)
    batch, queries, width = required_shape(inputs, 0)
    packed = optional_shape(inputs, 1) is None
    head_dim = width // (heads + 2 * kv_heads) if packed else width // heads
    past = optional_shape(inputs, 3)
    total = known_number(inputs, 6)  # total_sequence_length; a buffer may be longer
    positions = total if total is not None else queries + (past[2] if past else 0)
    rotated = (
        batch * queries * (heads + kv_heads) * head_dim if attribute(node, "do_rotary", 0) else 0
    )
    return AttentionSize(
        batch, heads, kv_heads, queries, positions, head_dim, head_dim, 0, rotated, _has(inputs, 10)
    )


def _has(inputs: Inputs, index: int) -> bool:
    return index < len(inputs) and inputs[index] is not None


def _multi_head(
    past_at: int, bias_at: int, length_at: int
) -> Callable[[Any, Inputs], AttentionSize]:
    def size(node: Any, inputs: Inputs) -> AttentionSize:
        heads, query, key, value = (
            attribute(node, "num_heads", 0),
            required_shape(inputs, 0),
            *_keys(inputs),
        )
        head_dim = query[4] if len(query) == 5 else query[2] // heads
        own = query[1] if key is None else key[2] if len(key) == 4 else key[1]
        value_dim = (
            value[3] if value and len(value) == 4 else value[2] // heads if value else head_dim
        )
        past = optional_shape(inputs, past_at)
        positions = own + _past_positions(node, inputs, past[2] if past else 0, length_at)
        scores_read = _has(inputs, bias_at)
        return AttentionSize(
            query[0], heads, heads, query[1], positions, head_dim, value_dim, 0, 0, scores_read
        )

    return size


def _keys(inputs: Inputs) -> tuple[Shape | None, Shape | None]:
    return optional_shape(inputs, 1), optional_shape(inputs, 2)


def _past_positions(node: Any, inputs: Inputs, length: int, length_at: int) -> int:
    """Return the positions of the past: all of a growing cache, those in use of a shared buffer."""
    in_use = known_number(inputs, length_at)
    shared = attribute(node, "past_present_share_buffer", 0)
    return in_use if shared and in_use is not None else length


def _projecting(
    past_at: int, bias_at: int, length_at: int
) -> Callable[[Any, Inputs], AttentionSize]:
    """Read attention that projects its input: weights (width, queries + keys + values)."""

    def size(node: Any, inputs: Inputs) -> AttentionSize:
        heads, columns = attribute(node, "num_heads", 0), required_shape(inputs, 1)[1]
        batch, queries, width = required_shape(inputs, 0)
        parts = attribute(node, "qkv_hidden_sizes", None) or [columns // 3] * 3
        past = optional_shape(inputs, past_at)
        positions = queries + _past_positions(node, inputs, past[3] if past else 0, length_at)
        rotated = batch * queries * (parts[0] + parts[1]) if attribute(node, "do_rotary", 0) else 0
        projected, masked = batch * queries * width * columns, _has(inputs, bias_at)
        head_dim, value_dim = parts[0] // heads, parts[2] // heads
        return AttentionSize(
            batch, heads, heads, queries, positions, head_dim, value_dim, projected, rotated, masked
        )

    return size


def _packed(node: Any, inputs: Inputs) -> AttentionSize:
    """Read attention without padding: (tokens, width); token_offset is (batch, sequence)."""
    (tokens, width), columns, (batch, queries) = (
        required_shape(inputs, 0),
        required_shape(inputs, 1)[1],
        required_shape(inputs, 3),
    )
    heads = attribute(node, "num_heads", 0)
    parts = attribute(node, "qkv_hidden_sizes", None) or [columns // 3] * 3
    work, masked = tokens * width * columns, _has(inputs, 5)
    return AttentionSize(
        batch, heads, heads, queries, queries, parts[0] // heads, parts[2] // heads, work, 0, masked
    )


def _packed_multi_head(node: Any, inputs: Inputs) -> AttentionSize:
    heads, query, value = (
        attribute(node, "num_heads", 0),
        required_shape(inputs, 0),
        optional_shape(inputs, 2),
    )
    batch, queries = required_shape(inputs, 4)
    head_dim = query[3] if len(query) == 4 else query[1] // heads
    value_dim = value[1] // heads if value else head_dim
    return AttentionSize(
        batch, heads, heads, queries, queries, head_dim, value_dim, 0, 0, _has(inputs, 6)
    )


def _standard(node: Any, inputs: Inputs) -> AttentionSize:
    """Read onnx's own Attention of 3 or 4 axes.

    (batch, heads, sequence, width) or (batch, sequence, heads x width).
    """
    batch, heads, queries, head_dim = _as_four_axes(
        required_shape(inputs, 0), attribute(node, "q_num_heads", 0)
    )
    _, kv_heads, own, _ = _as_four_axes(
        required_shape(inputs, 1), attribute(node, "kv_num_heads", 0)
    )
    value_dim = _as_four_axes(required_shape(inputs, 2), kv_heads)[3]
    past = optional_shape(inputs, 4)
    positions = own + (past[2] if past else 0)
    return AttentionSize(
        batch, heads, kv_heads, queries, positions, head_dim, value_dim, 0, 0, _has(inputs, 3)
    )


def _as_four_axes(shape: Shape, heads: int) -> Shape:
    return shape if len(shape) == 4 else (shape[0], heads, shape[1], shape[2] // heads)


def _attention_of_either_domain(node: Any, inputs: Inputs) -> AttentionSize:
    return (
        _projecting(4, 5, 6)(node, inputs)
        if node.domain == "com.microsoft"
        else _standard(node, inputs)
    )


ATTENTION_SIZES: dict[str, Callable[[Any, Inputs], AttentionSize]] = {
    "Attention": _attention_of_either_domain,
    "DecoderMaskedMultiHeadAttention": _multi_head(5, 4, 7),
    "DecoderMaskedSelfAttention": _projecting(4, 5, 6),
    "GroupQueryAttention": _grouped,
    "MultiHeadAttention": _multi_head(6, 5, 8),
    "PackedAttention": _packed,
    "PackedMultiHeadAttention": _packed_multi_head,
    "QAttention": _projecting(8, 99, 99),
}
