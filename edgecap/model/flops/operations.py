"""FLOPs of a decoded token, of a prompt, and of their parts.

Matrix work only, 2 FLOPs a multiply-add: projections with the real head dimension, attention core
with the token's own position in the cache, feed-forward, router and active experts, LM head. Latent
attention is counted expanded, as transformers and its export execute it, or absorbed, as serving
engines decode. The scalar gate of shared experts (one column, 2e-5 of Qwen1.5-MoE) is left out, as
in published counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from edgecap.model.flops.matrices import all_matrices, convolved
from edgecap.record import Architecture, Attention, Experts, FlopParts, Flops, Layer, Recurrent

DELTA_CHUNK = 64  # positions per step of transformers' delta rule in a prefill


def count_flops(
    model: Architecture,
    context: int,
    prefill_tokens: int,
    own_position: bool = True,
    absorbed: bool = False,
) -> Flops:
    """Count FLOPs of the mean token over `context` decoding steps, and of a prompt.

    Without `own_position` a step attends only to the tokens before it, as the published scripts
    count. `absorbed` concerns decoding: serving engines expand latent attention to read a prompt.
    """
    parts = token_parts(model, context, own_position, absorbed)
    return Flops(
        per_token=total(parts),
        context=context,
        prefill=total(prefill_parts(model, prefill_tokens)),
        prefill_tokens=prefill_tokens,
        parts=parts,
        own_position=own_position,
        latent_form=latent_form(model, absorbed),
    )


def total(parts: FlopParts) -> float:
    """Return the sum of the parts."""
    return float(sum(getattr(parts, name) for name in parts.__struct_fields__))


def latent_form(model: Architecture, absorbed: bool = False) -> str | None:
    """Return the form in which latent attention is counted, or None if there is none."""
    latent = any(isinstance(n.attention, Attention) and n.attention.latent for n in model.layers)
    return ("absorbed" if absorbed else "expanded") if latent else None


def published_flops(model: Architecture, context: int) -> float:
    """Return the paper's N (arXiv 2511.08066): the mean over `context` steps without themselves."""
    return total(token_parts(model, context, own_position=False))


def token_parts(
    model: Architecture, context: int, own_position: bool = True, absorbed: bool = False
) -> FlopParts:
    """Return mean FLOPs a token over `context` steps from an empty cache, by part."""
    core = (
        n.count * attention_core(n.attention, context, own_position, absorbed) for n in model.layers
    )
    return _parts(model, sum(core))


def prefill_parts(model: Architecture, tokens: int, all_logits: bool = False) -> FlopParts:
    """Return FLOPs of a prompt from an empty cache, by part.

    The product with the vocabulary's matrix is computed for the last position, or for each with
    `all_logits`.
    """
    parts = token_parts(model, tokens)
    spared = 0 if all_logits else tokens - 1
    head = 2.0 * (model.embedding_dim or model.hidden) * model.vocabulary
    work = {name: tokens * getattr(parts, name) for name in parts.__struct_fields__}
    return FlopParts(**{**work, "lm_head": work["lm_head"] - spared * head})


def token_parts_at(model: Architecture, position: int, absorbed: bool = False) -> FlopParts:
    """Return FLOPs of the one token at `position`, counted from 1, itself in the cache, by part."""
    core = (
        n.count * _core(n.attention, attended_positions(n.attention, position), absorbed)
        for n in model.layers
    )
    return _parts(model, sum(core))


def executed_prefill(model: Architecture, tokens: int) -> float:
    """Return FLOPs of a prompt as transformers executes it, with the logits of all positions.

    It computes the whole square of attention and only masks windows. The gate of shared
    experts is included, which `token_parts` leaves out. Equals PyTorch's FlopCounterMode without
    the rotary angles; for Llama 4, PyTorch runs the idle experts too.
    """
    weights = tokens * total(_parts(model, 0.0))
    gates = 2 * model.hidden * sum(n.count for n in model.layers if _has_gate(n))
    return (
        weights
        + tokens * gates
        + sum(n.count * _executed_core(n.attention, tokens) for n in model.layers)
    )


def crossover_context(model: Architecture, limit: int = 1 << 24) -> int | None:
    """Return the least context at which attention costs a token more than all weights, or None.

    `limit` is the largest context tried.
    """
    weights = total(_parts(model, 0.0))
    chunk = max(
        (n.attention.chunk or 0 for n in model.layers if isinstance(n.attention, Attention)),
        default=0,
    )

    def attention_dominates(position: int) -> bool:
        return token_parts_at(model, position).attention_core > weights

    # The core grows within a chunk, and from the end of one chunk to the end of the next.
    chunks = limit // chunk if chunk else 0
    first_chunk = _first(1, chunks, lambda k: attention_dominates(k * chunk))
    begin, end = (
        (chunks * chunk, limit)
        if first_chunk is None
        else ((first_chunk - 1) * chunk, first_chunk * chunk)
    )
    return _first(begin + 1, end, attention_dominates)


def mean_positions(context: int, window: int | None, chunk: int | None = None) -> float:
    """Return the mean over i = 1..context of min(i, window), or of the place of i in its chunk."""
    if chunk:
        whole, rest = divmod(context, chunk)
        return (whole * chunk * (chunk + 1) + rest * (rest + 1)) / 2 / context
    w = min(window or context, context)
    return (w * (w + 1) / 2 + (context - w) * w) / context


def attended_positions(attention: Attention | Recurrent, position: int) -> int:
    """Return how many positions the token at `position` attends to, itself included."""
    if isinstance(attention, Recurrent):
        return 1
    if attention.chunk:
        return (position - 1) % attention.chunk + 1
    return min(position, attention.window or position)


def attention_core(
    attention: Attention | Recurrent,
    context: int,
    own_position: bool = True,
    absorbed: bool = False,
) -> float:
    """Return FLOPs of scores and weighted values of one layer, mean over `context` steps.

    Of a recurrent layer: update and reading of its state.
    """
    if isinstance(attention, Recurrent):
        return _core(attention, 1)
    return _core(
        attention,
        mean_positions(context, attention.window, attention.chunk) - (not own_position),
        absorbed,
    )


def _core(attention: Attention | Recurrent, positions: float, absorbed: bool = False) -> float:
    """Return FLOPs of the attention core of one token that attends to `positions`."""
    if isinstance(attention, Recurrent):
        # Read the state for the key, write the difference, read it for the query.
        return 2.0 * 3 * attention.value_heads * attention.key_dim * attention.value_dim
    if absorbed and attention.latent:
        return (
            2
            * attention.heads
            * (2 * attention.latent.kv_rank + attention.latent.rope_dim)
            * positions
        )
    return 2 * attention.heads * (attention.head_dim + attention.value_dim) * positions


def _executed_core(attention: Attention | Recurrent, tokens: int) -> float:
    """Return FLOPs of a prompt's attention as transformers executes it, padding included."""
    if isinstance(attention, Attention):
        return tokens * _core(attention, tokens)
    chunks, c = -(-tokens // DELTA_CHUNK), DELTA_CHUNK
    within = c * c * (3 * attention.key_dim + 2 * attention.value_dim)
    across = 3 * c * attention.key_dim * attention.value_dim
    padding = 2 * (attention.kernel - 1) * attention.kernel * convolved(attention)
    return 2.0 * attention.value_heads * chunks * (within + across) + padding


def _parts(model: Architecture, core: float) -> FlopParts:
    work = dict.fromkeys(("projections", "mlp", "router", "experts", "lm_head", "gate"), 0)
    for times, matrix in all_matrices(model):
        work[matrix.part] += 2 * times * matrix.runs * matrix.inputs * matrix.outputs
    work.pop("gate")
    work["projections"] += 2 * (model.other + sum(n.count * n.other for n in model.layers))
    return FlopParts(
        attention_core=float(core), **{part: float(flops) for part, flops in work.items()}
    )


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int | None:
    """Return the least number in low..high for which `holds` is true, or None.

    `holds` must be monotonic.
    """
    offset = bisect_left(range(low, high + 1), True, key=holds)
    return low + offset if offset <= high - low else None


def _has_gate(layer: Layer) -> bool:
    return isinstance(layer.feed_forward, Experts) and layer.feed_forward.shared_gate
