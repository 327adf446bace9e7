"""What a token costs: FLOPs of a decoded token, of a prompt, and of its parts.

Matrix work only, 2 FLOPs a multiply-add: projections with the real head dimension, attention core
with the own position in the cache, feed-forward, router and active experts, LM head. Latent attention
is counted expanded, as transformers and its export execute it, or absorbed, as serving engines decode.
The scalar gate of shared experts (one column, 2e-5 of Qwen1.5-MoE) is left out, as in published counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from edgecap.model.flops.matrices import all_matrices, convolved
from edgecap.record import Architecture, Attention, Experts, FlopParts, Flops, Layer, Recurrent

DELTA_CHUNK = 64  # positions that transformers' delta rule takes at once in a prefill


def count_flops(
    model: Architecture,
    context: int,
    prefill_tokens: int,
    own_position: bool = True,
    absorbed: bool = False,
) -> Flops:
    """Counts of one model: mean token over `context` decoding steps, and a prompt of `prefill_tokens`.

    Without `own_position` a step attends to the tokens before it only, as the published scripts count.
    `absorbed` concerns decoding: serving engines expand latent attention to read a prompt.
    """
    parts = token_parts(model, context, own_position, absorbed)
    return Flops(
        per_token=total(parts),
        context=context,
        prefill=prefill_tokens * total(token_parts(model, prefill_tokens)),
        prefill_tokens=prefill_tokens,
        parts=parts,
        own_position=own_position,
        latent_form=latent_form(model, absorbed),
    )


def total(parts: FlopParts) -> float:
    """The sum of the parts."""
    return float(sum(getattr(parts, name) for name in parts.__struct_fields__))


def latent_form(model: Architecture, absorbed: bool = False) -> str | None:
    """Name of the form in which latent attention is counted; None where there is none."""
    latent = any(isinstance(n.attention, Attention) and n.attention.latent for n in model.layers)
    return ("absorbed" if absorbed else "expanded") if latent else None


def published_flops(model: Architecture, context: int) -> float:
    """The paper's N (arXiv 2511.08066): mean over `context` steps that do not attend to themselves."""
    return total(token_parts(model, context, own_position=False))


def token_parts(
    model: Architecture, context: int, own_position: bool = True, absorbed: bool = False
) -> FlopParts:
    """Mean FLOPs a token over `context` steps from an empty cache, by part."""
    core = (
        n.count * attention_core(n.attention, context, own_position, absorbed) for n in model.layers
    )
    return _parts(model, sum(core))


def token_parts_at(model: Architecture, position: int, absorbed: bool = False) -> FlopParts:
    """FLOPs of the one token at `position`, counted from 1, its own position in the cache."""
    core = (
        n.count * _core(n.attention, attended_positions(n.attention, position), absorbed)
        for n in model.layers
    )
    return _parts(model, sum(core))


def executed_prefill(model: Architecture, tokens: int) -> float:
    """A prompt as an unfused graph executes it: the whole square of attention, windows masked only.

    The gate of shared experts is in it, which `token_parts` leaves out. Equals PyTorch's FlopCounterMode
    without the rotary angles; of Llama 4, PyTorch runs the idle experts too.
    """
    weights = tokens * total(_parts(model, 0.0))
    gates = 2 * model.hidden * sum(n.count for n in model.layers if _has_gate(n))
    return (
        weights
        + tokens * gates
        + sum(n.count * _executed_core(n.attention, tokens) for n in model.layers)
    )


def crossover_context(model: Architecture, limit: int = 1 << 24) -> int | None:
    """The smallest context at which a token's attention core costs more than all work with weights."""
    weights = total(_parts(model, 0.0))
    chunk = max(
        (n.attention.chunk or 0 for n in model.layers if isinstance(n.attention, Attention)),
        default=0,
    )

    def over(position: int) -> bool:
        return token_parts_at(model, position).attention_core > weights

    # Within a chunk the core only grows, and so it does from the end of one chunk to that of the next.
    whole = limit // chunk if chunk else 0
    ending = _first(1, whole, lambda k: over(k * chunk))
    begin, end = (
        (whole * chunk, limit) if ending is None else ((ending - 1) * chunk, ending * chunk)
    )
    return _first(begin + 1, end, over)


def mean_positions(context: int, window: int | None, chunk: int | None = None) -> float:
    """Mean over i = 1..context of min(i, window), or of the place of i in its chunk."""
    if chunk:
        whole, rest = divmod(context, chunk)
        return (whole * chunk * (chunk + 1) + rest * (rest + 1)) / 2 / context
    w = min(window or context, context)
    return (w * (w + 1) / 2 + (context - w) * w) / context


def attended_positions(a: Attention | Recurrent, position: int) -> int:
    """Positions that the token at `position` attends to, itself included."""
    if isinstance(a, Recurrent):
        return 1
    if a.chunk:
        return (position - 1) % a.chunk + 1
    return min(position, a.window or position)


def attention_core(
    a: Attention | Recurrent, context: int, own_position: bool = True, absorbed: bool = False
) -> float:
    """Scores and weighted values, mean over `context` steps; of a recurrent layer, its state's update and reading."""
    if isinstance(a, Recurrent):
        return _core(a, 1)
    return _core(a, mean_positions(context, a.window, a.chunk) - (not own_position), absorbed)


def _core(a: Attention | Recurrent, seen: float, absorbed: bool = False) -> float:
    if isinstance(
        a, Recurrent
    ):  # what the state holds for the key, writing the difference, reading for the query
        return 2.0 * 3 * a.value_heads * a.key_dim * a.value_dim
    if absorbed and a.latent:
        return 2 * a.heads * (2 * a.latent.kv_rank + a.latent.rope_dim) * seen
    return 2 * a.heads * (a.head_dim + a.value_dim) * seen


def _executed_core(a: Attention | Recurrent, tokens: int) -> float:
    if isinstance(a, Attention):
        return tokens * _core(a, tokens)
    chunks, c = -(-tokens // DELTA_CHUNK), DELTA_CHUNK
    within = c * c * (3 * a.key_dim + 2 * a.value_dim)
    across = 3 * c * a.key_dim * a.value_dim
    padding = 2 * (a.kernel - 1) * a.kernel * convolved(a)
    return 2.0 * a.value_heads * chunks * (within + across) + padding


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
    """The least number from `low` to `high` for which `holds`, which holds for all beyond it."""
    found = bisect_left(range(low, high + 1), True, key=holds)
    return low + found if found <= high - low else None


def _has_gate(layer: Layer) -> bool:
    return isinstance(layer.feed_forward, Experts) and layer.feed_forward.shared_gate
