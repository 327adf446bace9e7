"""Parameters of a model, and bytes of its weights, KV cache and recurrent states."""

from __future__ import annotations

from typing import NamedTuple

from edgecap.model.flops.matrices import all_matrices, convolved
from edgecap.record import Architecture, Attention, Experts, Mlp, Recurrent

BLOCK = 32  # weights that share a scale
STORED = ("fp32", "fp16", "int8", "int4", "int4s", "int8d", "int4b32")  # known to `weight_bytes`


class Parameters(NamedTuple):
    """Numbers of a model: all, those a token can touch, and those that are only looked up.

    `active` leaves out idle experts. `embedding` is the table of tokens (also if it is the LM
    head's matrix), of positions and of layer inputs; it is part of both other numbers.
    """

    total: int
    active: int
    embedding: int


def parameters(model: Architecture) -> Parameters:
    """Count the parameters of a model as transformers builds it, tied embeddings once.

    Exact for the families in the table. For `assumed` types and genai folders, norms and biases are
    those that `architecture` could read: an error below 1e-3 of the total if the model has no
    matrices of its own kind.
    """
    embedding = _embedding(model) + model.tables
    stored = sum(times * m.copies * m.inputs * m.outputs for times, m in all_matrices(model))
    total = stored + embedding + _other_weights(model) + _vectors(model)
    idle = sum(n.count * _idle(n.feed_forward, model.hidden) for n in model.layers)
    return Parameters(total=total, active=total - idle, embedding=embedding)


def weight_bytes(model: Architecture, precision: str) -> int:
    """Return bytes of the weights, as edgecap's variants store them.

    Norms, biases and other vectors are fp32. int8 and int4 have blocks of 32 inputs, the last one
    padded; int4 stores tables in blocks of 16, and matrices in 5.65 bits on average. int8d has an
    fp32 scale for each output channel or row of a table, int4b32 for each block of 32. Raise
    KeyError for another precision.
    """
    tables = _INT4_TABLE if precision == "int4" else precision
    stored = sum(
        t * m.copies * _matrix_bytes(precision, m.inputs, m.outputs) for t, m in all_matrices(model)
    )
    stored += _matrix_bytes(tables, model.embedding_dim or model.hidden, model.vocabulary)
    rows, rest = divmod(model.tables + _other_weights(model), model.hidden)
    return stored + _matrix_bytes(tables, model.hidden, rows) + 4 * (rest + _vectors(model))


def read_bytes(model: Architecture, precision: str, tokens: int = 1) -> int:
    """Return bytes of the weights that a step of `tokens` reads, each matrix once.

    Counts active experts only, and of tables only the LM head. Many tokens may reach as many times
    the experts of one token, at most all. `precision` is one of `weight_bytes`.
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
    """Return the precision of `weight_bytes` in which a variant stores its weights."""
    plain = precision.startswith("int4b") or precision == "int4hqq"
    return "int4b32" if plain else _STORAGE.get(precision, precision)


_INT4_TABLE = "table of int4"
_STORAGE = {
    "bf16": "fp16",
    "int8s": "int8d",
    **dict.fromkeys(("int8w", "int8wb128", "w8a16", "w8a32"), "int8"),
    **dict.fromkeys(("w4a16", "w4a32"), "int4"),
}


def _matrix_bytes(precision: str, inputs: int, outputs: int) -> int:
    blocks = -(-inputs // BLOCK)
    column = {
        "fp32": 4 * inputs,
        "fp16": 2 * inputs,
        "int8": blocks * (BLOCK + 2),
        "int4": blocks * BLOCK * 5.65 / 8,
        _INT4_TABLE: blocks * 21,
        "int4s": blocks * 18,
        "int8d": inputs + 4,
        "int4b32": blocks * (BLOCK // 2 + 4),
    }[precision]
    # A matrix of a few inputs, such as a convolution, is not quantized.
    return round(outputs * min(column, 4 * inputs))


def kv_bytes_per_token(
    model: Architecture, bytes_per_number: float = 2.0, absorbed: bool = False
) -> float:
    """Return bytes by which the KV cache grows with a token while no window is full.

    Expanded latent attention caches the key and value of every head, absorbed the compressed ones.
    """
    return bytes_per_number * sum(n.count * _cached(n.attention, absorbed) for n in model.layers)


def kv_bytes(model: Architecture, context: int, bytes_per_number: float = 2.0) -> float:
    """Return bytes of the KV cache after `context` tokens.

    Windows and chunks are taken to keep only the positions they attend to.
    """
    layers = ((n, _kept_positions(n.attention, context)) for n in model.layers)
    return bytes_per_number * sum(
        n.count * positions * _cached(n.attention, False) for n, positions in layers
    )


def _kept_positions(a: Attention | Recurrent, context: int) -> int:
    limit = None if isinstance(a, Recurrent) else a.window or a.chunk
    return min(context, limit or context)


def state_bytes(model: Architecture, bytes_per_number: float = 2.0) -> float:
    """Return bytes of recurrent states and convolution windows, equal for every context."""
    layers = ((n.count, n.attention) for n in model.layers)
    return bytes_per_number * sum(n * _state(a) for n, a in layers if isinstance(a, Recurrent))


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
