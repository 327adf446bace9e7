"""How many numbers a model has, and how many bytes its weights, cache and states take."""

from __future__ import annotations

from typing import NamedTuple

from edgecap.model.flops.matrices import all_matrices, convolved
from edgecap.record import Architecture, Attention, Experts, Mlp, Recurrent

BLOCK = 32  # weights that share a scale in int4


class Parameters(NamedTuple):
    """Numbers of a model: all, those a token can touch, and those that are only looked up.

    `active` leaves the idle experts out; `embedding` is the table of tokens (also where it is the LM
    head's matrix), of positions and of layers' inputs, part of both other numbers.
    """

    total: int
    active: int
    embedding: int


def parameters(model: Architecture) -> Parameters:
    """Numbers of the model as transformers builds it, tied embeddings once.

    Exact for the families in the table. Of `assumed` types and genai folders, norms and biases are those that
    `architecture` could read: below 1e-3 of the whole,
    if it has no matrices of its own kind.
    """
    embedding = _embedding(model) + model.tables
    stored = sum(times * m.copies * m.inputs * m.outputs for times, m in all_matrices(model))
    whole = stored + embedding + _other_weights(model) + _vectors(model)
    idle = sum(n.count * _idle(n.feed_forward, model.hidden) for n in model.layers)
    return Parameters(total=whole, active=whole - idle, embedding=embedding)


def weight_bytes(model: Architecture, precision: str) -> int:
    """Bytes of the weights in fp32, fp16, int8 or int4, as edgecap's own variants store them.

    Norms, biases and other vectors are fp32. int8 has a scale in fp32 for each output channel, or row of
    a table; int4 has blocks of 32 inputs, the last one padded, each with a scale in fp32. Raises KeyError
    for another precision.
    """
    stored = sum(
        t * m.copies * _matrix_bytes(precision, m.inputs, m.outputs) for t, m in all_matrices(model)
    )
    stored += _matrix_bytes(precision, model.embedding_dim or model.hidden, model.vocabulary)
    rows, rest = divmod(model.tables + _other_weights(model), model.hidden)
    return stored + _matrix_bytes(precision, model.hidden, rows) + 4 * (rest + _vectors(model))


def read_bytes(model: Architecture, precision: str, tokens: int = 1) -> int:
    """Bytes of the weights that a step of `tokens` reads, each once: active experts, and of tables only the LM head.

    `precision` is one of `weight_bytes`. Many tokens may reach as many times the experts of one, at most all.
    """
    stored = sum(
        times
        * min(max(m.copies, 1), m.runs * tokens)
        * _matrix_bytes(precision, m.inputs, m.outputs)
        for times, m in all_matrices(model)
    )
    return (
        stored
        + _matrix_bytes(precision, model.hidden, _other_weights(model) // model.hidden)
        + 4 * _vectors(model)
    )


def storage_precision(precision: str) -> str:
    """Which of the precisions of `weight_bytes` a variant's weights are stored in."""
    return "int4" if precision.startswith("int4") else _STORED_AS.get(precision, precision)


_STORED_AS = {"bf16": "fp16", "int8w": "int8", "int8s": "int8", "int8wb128": "int8"}


def _matrix_bytes(precision: str, inputs: int, outputs: int) -> int:
    column = {
        "fp32": 4 * inputs,
        "fp16": 2 * inputs,
        "int8": inputs + 4,
        "int4": -(-inputs // BLOCK) * (BLOCK // 2 + 4),
    }[precision]
    return outputs * min(
        column, 4 * inputs
    )  # a few numbers wide, as a convolution is, nothing is quantised


def kv_bytes_per_token(
    model: Architecture, bytes_per_number: float = 2.0, absorbed: bool = False
) -> float:
    """Bytes by which the cache grows with a token, while no window is full.

    Expanded latent attention caches every head's key and value, absorbed the compressed ones.
    """
    return bytes_per_number * sum(n.count * _cached(n.attention, absorbed) for n in model.layers)


def kv_bytes(model: Architecture, context: int, bytes_per_number: float = 2.0) -> float:
    """Bytes of the cache behind `context` tokens where windows and chunks keep no more than they see."""
    kept = ((n, _kept_positions(n.attention, context)) for n in model.layers)
    return bytes_per_number * sum(
        n.count * positions * _cached(n.attention, False) for n, positions in kept
    )


def _kept_positions(a: Attention | Recurrent, context: int) -> int:
    limit = None if isinstance(a, Recurrent) else a.window or a.chunk
    return min(context, limit or context)


def state_bytes(model: Architecture, bytes_per_number: float = 2.0) -> float:
    """Bytes of the recurrent layers' states and convolution windows, the same for every context."""
    found = ((n.count, n.attention) for n in model.layers)
    return bytes_per_number * sum(n * _state(a) for n, a in found if isinstance(a, Recurrent))


def _cached(a: Attention | Recurrent, absorbed: bool) -> int:
    if isinstance(a, Recurrent) or a.shares_cache:
        return 0
    if absorbed and a.latent:
        return a.latent.kv_rank + a.latent.rope_dim
    return a.kv_heads * (a.head_dim + a.value_dim)


def _state(a: Recurrent) -> int:
    return a.value_heads * a.key_dim * a.value_dim + a.kernel * convolved(a)


def _embedding(model: Architecture) -> int:
    return model.vocabulary * (model.embedding_dim or model.hidden)


def _other_weights(model: Architecture) -> int:
    return model.other + sum(n.count * n.other_weights for n in model.layers)


def _vectors(model: Architecture) -> int:
    return model.vectors + sum(
        n.count * (n.vectors + _expert_vectors(n.feed_forward)) for n in model.layers
    )


def _expert_vectors(block: Mlp | Experts) -> int:
    return block.routed * block.vectors if isinstance(block, Experts) else 0


def _idle(block: Mlp | Experts, hidden: int) -> int:
    if isinstance(block, Mlp):
        return 0
    return (block.routed - block.active) * (
        (2 + block.gated) * hidden * block.width + block.vectors
    )
