"""The matrices of a model, from which FLOPs, parameters and bytes are summed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from edgecap.record import Architecture, Attention, Experts, Latent, Layer, Mlp, Recurrent


class Matrix(NamedTuple):
    """`copies` stored matrices of inputs x outputs; one token is multiplied with `runs` of them."""

    part: str
    inputs: int
    outputs: int
    copies: int = 1
    runs: int = 1


def all_matrices(model: Architecture) -> Iterator[tuple[int, Matrix]]:
    """Yield how often each matrix occurs, and the matrix."""
    for layer in model.layers:
        for matrix in _of_layer(layer, model.hidden):
            yield layer.count, matrix
    width = model.embedding_dim or model.hidden
    yield 1, Matrix("lm_head", width, model.vocabulary, copies=0 if model.tied else 1)
    if width != model.hidden:
        yield 2, Matrix("lm_head", width, model.hidden)


def _of_layer(layer: Layer, hidden: int) -> Iterator[Matrix]:
    """Yield the matrices of attention and feed-forward of one layer."""
    a, block = layer.attention, layer.feed_forward
    yield from _recurrent(a, hidden) if isinstance(a, Recurrent) else _attention(a, hidden)
    yield from (
        _dense("mlp", block, block.width, hidden)
        if isinstance(block, Mlp)
        else _experts(block, hidden)
    )


def _attention(a: Attention, hidden: int) -> Iterator[Matrix]:
    if a.latent is not None:
        yield from _latent(a, a.latent, hidden)
        return
    own = 0 if a.shares_cache else 1
    yield Matrix("projections", hidden, a.heads * a.head_dim * (1 + a.gated))
    yield Matrix("projections", hidden, a.kv_heads * a.head_dim, runs=own)
    yield Matrix("projections", hidden, a.kv_heads * a.value_dim, runs=own)
    yield Matrix("projections", a.heads * a.value_dim, hidden)


def _latent(a: Attention, latent: Latent, hidden: int) -> Iterator[Matrix]:
    """Yield the matrices of latent attention; their work is the same in both forms.

    Absorbed, the last matrix meets query and output instead of keys and values.
    """
    query, rank = a.heads * a.head_dim, latent.query_rank
    if rank is None:
        yield Matrix("projections", hidden, query)
    else:
        yield Matrix("projections", hidden, rank)
        yield Matrix("projections", rank, query)
    yield Matrix("projections", hidden, latent.kv_rank + latent.rope_dim)
    yield Matrix(
        "projections", latent.kv_rank, a.heads * (a.head_dim - latent.rope_dim + a.value_dim)
    )
    yield Matrix("projections", a.heads * a.value_dim, hidden)


def _recurrent(a: Recurrent, hidden: int) -> Iterator[Matrix]:
    values = a.value_heads * a.value_dim
    yield Matrix("projections", hidden, convolved(a) + values)
    yield Matrix("projections", hidden, 2 * a.value_heads)
    yield Matrix("projections", a.kernel, convolved(a))
    yield Matrix("projections", values, hidden)


def convolved(a: Recurrent) -> int:
    """Return the channels of the convolution: queries, keys and values."""
    return 2 * a.key_heads * a.key_dim + a.value_heads * a.value_dim


def _dense(
    part: str, block: Mlp | Experts, width: int, hidden: int, copies: int = 1, runs: int = 1
) -> Iterator[Matrix]:
    for _ in range(1 + block.gated):
        yield Matrix(part, hidden, width, copies, runs)
    yield Matrix(part, width, hidden, copies, runs)


def _experts(block: Experts, hidden: int) -> Iterator[Matrix]:
    yield Matrix("router", hidden, block.routed)
    yield from _dense("experts", block, block.width, hidden, block.routed, block.active)
    if block.shared_width:
        yield from _dense("experts", block, block.shared_width, hidden)
    if block.shared_gate:
        yield Matrix("gate", hidden, 1)
