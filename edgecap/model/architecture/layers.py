"""Read one layer of a config: attention, feed-forward, extra matrices, norms and biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecap.model.architecture.families import ATTENTION_KINDS, FIELDS, Family
from edgecap.model.architecture.fields import Fields
from edgecap.record import Attention, Experts, Latent, Layer, Mlp, Recurrent


def read_layer(index: int, fields: Fields, rules: Family) -> Layer:
    """Read layer `index`, counted from 0. Raise UsageError if a field is missing or impossible."""
    kind = _kind(index, fields, rules)
    attention = (
        _recurrent(fields) if kind == "recurrent" else read_attention(index, kind, fields, rules)
    )
    block = _feed_forward(index, fields, rules)
    other, weights = _extra_matrices(fields)
    vectors = (
        _norms(fields, rules)
        + _attention_vectors(attention, fields, rules)
        + _biases(block, fields, rules)
    )
    return Layer(
        count=1,
        attention=attention,
        feed_forward=block,
        other=other,
        other_weights=weights,
        vectors=vectors,
    )


# --- kind of attention ------------------------------------------------------------------------


def _kind(index: int, fields: Fields, rules: Family) -> str:
    """Return the kind of attention of a layer: full, sliding, chunked or recurrent."""
    kinds = fields.listed("layer_types") or _attention_layers(fields)
    if not kinds:
        return KIND_RULES[rules.kinds](index, fields, rules)
    if index >= len(kinds):
        raise fields.error(
            f"the list of layer types has {len(kinds)} values and none for layer {index}"
        )
    if not isinstance(kinds[index], str) or kinds[index] not in ATTENTION_KINDS:
        raise fields.uncountable(
            f"layer {index} is of type {str(kinds[index])[:40]!r}, which edgecap does not know"
        )
    kind = ATTENTION_KINDS[kinds[index]]
    if kind == "recurrent" and rules.kinds != "hybrid":  # MiniMax calls another layer so
        raise fields.uncountable(
            f"layer {index} is of type {kinds[index]!r}: of another kind than "
            "those that edgecap can count"
        )
    return kind


def _attention_layers(fields: Fields) -> list[Any]:
    """Return GPT-Neo's list of kinds, or the one that its pairs of kinds and times stand for."""
    kinds = fields.listed("attention_layers")
    if kinds:
        return kinds
    for pair in fields.listed("attention_types"):
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], list)):
            raise fields.error("attention_types is not a list of kinds and how often they occur")
        kinds = kinds + pair[0] * _times(pair[1])
    return kinds


def _times(value: object) -> int:
    return value if isinstance(value, int) and 0 < value <= 10_000 else 0


def _unlisted(index: int, fields: Fields, rules: Family) -> str:
    raise fields.uncountable("no field layer_types; without it, layers of this type are recurrent")


def _full_every(interval: int, index: int, others: str) -> str:
    """Return "full" for every `interval`-th layer, else the kind of the `others`."""
    return others if (index + 1) % interval else "full"


def _by_pattern(index: int, fields: Fields, rules: Family) -> str:
    return _full_every(fields.maybe("window_pattern") or rules.pattern, index, "sliding")


def _sliding_from_layer(index: int, fields: Fields, rules: Family) -> str:
    slides = fields.flag(("use_sliding_window", False)) and index >= (
        fields.maybe("window_from") or 0
    )
    return "sliding" if slides else "full"


def _is_rotary(index: int, fields: Fields) -> bool:
    rotary = fields.listed("no_rope_layers")  # despite its name, 1 marks a rotary layer
    if rotary and index >= len(rotary):
        raise fields.error(f"no_rope_layers has {len(rotary)} values and none for layer {index}")
    return bool(rotary[index] if rotary else (index + 1) % (fields.maybe("rope_interval") or 4))


def _sliding_if_not_rotary(index: int, fields: Fields, rules: Family) -> str:
    slides = fields.flag(("use_sliding_window", False)) and not _is_rotary(index, fields)
    return "sliding" if slides else "full"


# Kind of a layer if the config lists none.
KIND_RULES: dict[str, Callable[[int, Fields, Family], str]] = {
    "full": lambda index, fields, rules: "full",
    "sliding": lambda index, fields, rules: "sliding",
    "even": lambda index, fields, rules: "full" if index % 2 else "sliding",
    "pattern": _by_pattern,
    "qwen": _sliding_from_layer,
    "odd": lambda index, fields, rules: "sliding" if index % 2 else "full",
    "listed": _unlisted,
    "flagged": lambda index, fields, rules: (
        "sliding" if fields.flag(("use_sliding_window", False)) else "full"
    ),
    "from_layer": lambda index, fields, rules: (
        "sliding" if index >= (fields.maybe("window_from") or 0) else "full"
    ),
    "unrotated": _sliding_if_not_rotary,
    "chunked": lambda index, fields, rules: "chunked" if _is_rotary(index, fields) else "full",
    "hybrid": lambda index, fields, rules: _full_every(
        fields.maybe("full_interval") or 4, index, "recurrent"
    ),
}


# --- attention --------------------------------------------------------------------------------


def read_attention(index: int, kind: str, fields: Fields, rules: Family) -> Attention:
    """Read the attention of a layer that caches keys and values.

    `kind` is full, sliding or chunked. Raise UsageError if a field is missing or impossible.
    """
    heads = fields.need("heads")
    if fields.maybe("kv_rank"):
        return _latent_attention(fields, heads)
    head_dim = _head_dim(fields, rules, heads)
    return Attention(
        heads=heads,
        kv_heads=_kv_heads(fields, rules, heads),
        head_dim=head_dim,
        value_dim=head_dim,
        window=(fields.maybe("window") or None) if kind == "sliding" else None,
        chunk=fields.maybe("chunk") if kind == "chunked" else None,
        gated=fields.flag(rules.gate),
        shares_cache=index >= fields.need("layers") - (fields.maybe("cache_sharing") or 0),
    )


def _kv_heads(fields: Fields, rules: Family, heads: int) -> int:
    """Return the number of key-value heads; it must divide the number of heads."""
    inner = Fields({"num_kv_heads": fields.nested("attn_config").get("kv_n_heads")}, fields.where)
    kv_heads = fields.maybe("kv_heads") or inner.maybe("kv_heads") or heads
    is_multi_query = fields.flag(("multi_query", rules.multi_query)) and not fields.flag(
        ("new_decoder_architecture", False)
    )
    kv_heads = 1 if is_multi_query else kv_heads
    if heads % kv_heads:
        raise fields.error(
            f"{fields.name('kv_heads')} is {kv_heads}: "
            f"{heads} attention heads are no multiple of {kv_heads} key-value heads"
        )
    return kv_heads


def _latent_attention(fields: Fields, heads: int) -> Attention:
    missing = [
        FIELDS[f][0] for f in ("rope_dim", "nope_dim", "value_dim") if fields.maybe(f) is None
    ]
    if missing:
        raise fields.uncountable(f"latent attention without {', '.join(missing)}")
    rope = fields.need("rope_dim")
    return Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=rope + fields.need("nope_dim"),
        value_dim=fields.need("value_dim"),
        latent=Latent(
            query_rank=fields.maybe("query_rank"), kv_rank=fields.need("kv_rank"), rope_dim=rope
        ),
    )


def _head_dim(fields: Fields, rules: Family, heads: int) -> int:
    """Return the config's head dimension, else hidden size by heads, a whole number."""
    hidden, own = fields.need("hidden"), fields.maybe("head_dim")
    if own and (rules.own_head_dim or own * heads == hidden):
        return own
    if own:
        raise fields.uncountable(
            f"{fields.name('head_dim')} is {own}, but models of this type divide "
            f"hidden size {hidden} by {heads} attention heads"
        )
    if hidden % heads:
        raise fields.error(
            f"{fields.name('heads')} is {heads}: "
            f"hidden size {hidden} is no multiple of {heads} attention heads"
        )
    return hidden // heads


def _recurrent(fields: Fields) -> Recurrent:
    keys, values = fields.need("linear_key_heads"), fields.need("linear_value_heads")
    if values % keys:
        raise fields.error(
            f"linear_num_value_heads {values} is no multiple of linear_num_key_heads {keys}"
        )
    return Recurrent(
        key_heads=keys,
        value_heads=values,
        key_dim=fields.need("linear_key_dim"),
        value_dim=fields.need("linear_value_dim"),
        kernel=fields.need("linear_kernel"),
    )


# --- feed-forward -----------------------------------------------------------------------------


def _feed_forward(index: int, fields: Fields, rules: Family) -> Mlp | Experts:
    routed = fields.maybe("routed") or 0
    if rules.shared_alone and not routed:
        return Mlp(width=fields.need("shared_width"), gated=rules.gated)
    if routed <= (not rules.shared_alone) or not _is_sparse(index, fields):
        return Mlp(width=_width(index, fields, rules, routed > 1), gated=rules.gated)
    active = fields.need("active")
    if active > routed:
        raise fields.error(
            f"{fields.name('active')} is {active}: {active} active experts of {routed}"
        )
    width = fields.maybe("expert_width") or fields.need("width")
    shared = (
        fields.maybe("shared_width") or (fields.maybe("shared_experts") or rules.shared) * width
    )
    return Experts(
        routed=routed,
        active=active,
        width=width,
        gated=rules.gated,
        shared_width=shared,
        shared_gate=rules.shared_gate and shared > 0,
        vectors=_block_biases(width, fields, rules) if fields.flag(rules.expert_bias) else 0,
    )


def _is_sparse(index: int, fields: Fields) -> bool:
    kinds = fields.listed("mlp_layer_types")
    if kinds:
        return _listed_as_sparse(index, kinds, fields)
    if index in fields.listed("mlp_only_layers") or index < (fields.maybe("dense_first") or 0):
        return False
    if fields.listed("moe_layers"):
        return index in fields.listed("moe_layers")
    every = fields.maybe("sparse_every")
    if every is not None:  # DeepSeek counts from layer 0, Qwen from 1
        return index % every == 0
    return (index + 1) % (fields.maybe("sparse_step") or 1) == 0


def _listed_as_sparse(index: int, kinds: list[Any], fields: Fields) -> bool:
    """Return what the list of newer configs says of a layer: "dense" or "sparse"."""
    kind = kinds[index] if index < len(kinds) else None
    if kind not in ("dense", "sparse"):
        raise fields.uncountable(f"mlp_layer_types does not say if layer {index} is sparse")
    return bool(kind == "sparse")


def _width(index: int, fields: Fields, rules: Family, beside_experts: bool) -> int:
    width = (beside_experts and fields.maybe("dense_width")) or fields.maybe("width", index)
    factor = fields.maybe("width_factor") or rules.width_factor
    return width or (factor * fields.need("hidden") if factor else fields.need("width"))


# --- parameters without matrix work: norms, biases, Gemma 3n ----------------------------------


def _extra_matrices(fields: Fields) -> tuple[int, int]:
    """Return multiply-adds and numbers of the extra matrices of a Gemma 3n layer.

    They are alternating updates, the low-rank residual and the layer's own input. The router of the
    updates runs twice a layer, and mixing `n` streams multiplies data by data.
    """
    n = fields.maybe("altup")
    if n is None:
        return 0, 0
    hidden = fields.need("hidden")
    weights = (
        2 * hidden * (fields.need("laurel_rank") + fields.need("layer_input"))
        + hidden * n
        + n**3
        + n**2
    )
    return weights + hidden * n + hidden * n**2, weights


# Norms of a layer if flags of the config decide.
NORM_RULES: dict[str, Callable[[Fields], int]] = {
    "stablelm": lambda fields: 1 if fields.flag(("use_parallel_residual", False)) else 2,
    "falcon": lambda fields: (
        (
            fields.maybe("layer_norms")
            or (2 if fields.flag(("new_decoder_architecture", False)) else 1)
        )
        if fields.flag(("parallel_attn", True))
        else 2
    ),
}


def _norms(fields: Fields, rules: Family) -> int:
    number = rules.norms if isinstance(rules.norms, int) else NORM_RULES[rules.norms](fields)
    return number * norm_size(fields, rules)


def norm_size(fields: Fields, rules: Family) -> int:
    """Return the numbers of one norm over the hidden size."""
    return rules.norm * fields.need("hidden") if fields.flag(rules.affine) else 0


def _attention_vectors(a: Attention | Recurrent, fields: Fields, rules: Family) -> int:
    if isinstance(a, Recurrent):  # decay and step of each head, and the norm of its output
        return 2 * a.value_heads + a.value_dim
    qkv, out = fields.flag(rules.qkv_bias), fields.flag(rules.out_bias) * fields.need("hidden")
    if a.latent is not None:
        query, cached = a.latent.query_rank or 0, a.latent.kv_rank
        return query + cached + qkv * (query + cached + a.latent.rope_dim) + out
    query = a.heads * a.head_dim * (1 + a.gated)
    biases = qkv * (query + a.kv_heads * (a.head_dim + a.value_dim)) + out
    return biases + _qk_norm(a, fields, rules) + rules.sinks * a.heads


def _qk_norm(a: Attention, fields: Fields, rules: Family) -> int:
    if rules.qk_norm == "none" or not fields.flag(rules.qk_norm_is_on):
        return 0
    if rules.qk_norm == "heads":
        return (a.heads + a.kv_heads) * a.head_dim
    return 2 * rules.norm * a.head_dim


def _biases(block: Mlp | Experts, fields: Fields, rules: Family) -> int:
    """Return biases of a dense feed-forward, or of a router and shared experts.

    Routed experts carry their own.
    """
    if isinstance(block, Mlp):
        biased = _block_biases(block.width, fields, rules) if fields.flag(rules.mlp_bias) else 0
        return biased + rules.activation
    shared = block.shared_width if fields.flag(rules.expert_bias) else 0
    return (
        _block_biases(shared, fields, rules) if shared else 0
    ) + rules.router_bias * block.routed


def _block_biases(width: int, fields: Fields, rules: Family) -> int:
    """Return the biases of one feed-forward block of a width."""
    return width * (1 + rules.gated) + fields.need("hidden")
