"""FLOPs of a decoded token and of a prefill, counted from `Architecture`.

Matrix work only, 2 FLOPs a multiply-add: projections with the real head dimension, attention core
with the own position in the cache, feed-forward with router and experts, LM head. Latent attention
is counted in the form that transformers and its export execute (keys and values expanded, not
absorbed). Definitions: docs/method.md, section FLOPs.
"""

from __future__ import annotations

from edgecap.record import Architecture, Attention, Experts, FlopParts, Flops, Mlp


def count_flops(model: Architecture, context: int, prefill_tokens: int, own_position: bool = True) -> Flops:
    """Counts of one model: mean token over `context` decoding steps, and a prompt of `prefill_tokens`.

    Without `own_position` a step attends to the tokens before it only, as the published scripts count.
    """
    parts = token_parts(model, context, own_position)
    per_token = parts.projections + parts.attention_core + parts.mlp + parts.lm_head
    prompt = token_parts(model, prefill_tokens)
    prefill = prefill_tokens * (prompt.projections + prompt.attention_core + prompt.mlp + prompt.lm_head)
    return Flops(
        per_token=per_token,
        context=context,
        prefill=prefill,
        prefill_tokens=prefill_tokens,
        parts=parts,
        own_position=own_position,
    )


def token_parts(model: Architecture, context: int, own_position: bool = True) -> FlopParts:
    """Mean FLOPs a token over `context` steps from an empty cache, by part."""
    layers = model.layers
    return FlopParts(
        projections=float(sum(n.count * projections(n.attention, model.hidden) for n in layers)),
        attention_core=sum(n.count * attention_core(n.attention, context, own_position) for n in layers),
        mlp=float(sum(n.count * feed_forward(n.feed_forward, model.hidden) for n in layers)),
        lm_head=float(lm_head(model)),
    )


def projections(a: Attention, hidden: int) -> int:
    """Query, key, value and output projections of one token."""
    if a.latent is None:
        return 2 * hidden * (a.heads * (a.head_dim + a.value_dim) + a.kv_heads * (a.head_dim + a.value_dim))
    query = a.heads * a.head_dim
    rank = a.latent.query_rank
    down_up = hidden * query if rank is None else hidden * rank + rank * query
    nope = a.head_dim - a.latent.rope_dim
    compress = hidden * (a.latent.kv_rank + a.latent.rope_dim)
    expand = a.latent.kv_rank * a.heads * (nope + a.value_dim)
    return 2 * (down_up + compress + expand + a.heads * a.value_dim * hidden)


def attention_core(a: Attention, context: int, own_position: bool = True) -> float:
    """Scores and weighted values, mean over `context` steps; step i sees min(i, window) positions."""
    seen = mean_positions(context, a.window) - (not own_position)
    return 2 * a.heads * (a.head_dim + a.value_dim) * seen


def mean_positions(context: int, window: int | None) -> float:
    """Mean over i = 1..context of min(i, window)."""
    w = min(window or context, context)
    return (w * (w + 1) / 2 + (context - w) * w) / context


def feed_forward(block: Mlp | Experts, hidden: int) -> int:
    """Feed-forward of one token: dense, or router with the active and shared experts.

    A shared expert's scalar gate (one column, 2e-5 of Qwen1.5-MoE) is not counted.
    """
    matrices = 3 if block.gated else 2
    if isinstance(block, Mlp):
        return 2 * matrices * hidden * block.width
    experts = matrices * hidden * (block.active * block.width + block.shared_width)
    return 2 * (experts + hidden * block.routed)


def lm_head(model: Architecture) -> int:
    """The output matrix, with the projections in and out where the embedding has a width of its own."""
    width = model.embedding_dim or model.hidden
    bridge = 2 * model.hidden * width if width != model.hidden else 0
    return 2 * (width * model.vocabulary + bridge)
