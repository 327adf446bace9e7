"""What a layer consists of: its attention, its feed-forward, what stands beside them, its norms and biases."""

from __future__ import annotations

from collections.abc import Callable

from edgecap.model.architecture.families import ATTENTION_KINDS, FIELDS, Family
from edgecap.model.architecture.fields import Fields
from edgecap.record import Attention, Experts, Latent, Layer, Mlp, Recurrent


def read_layer(index: int, fields: Fields, rules: Family) -> Layer:
    """Layer `index`, counted from 0."""
    kind = _kind(index, fields, rules)
    attention = (
        _recurrent(fields) if kind == "recurrent" else read_attention(index, kind, fields, rules)
    )
    block = _feed_forward(index, fields, rules)
    other, weights = _beside(fields)
    vectors = (
        _norms(fields, rules)
        + _vectors_of_attention(attention, fields, rules)
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


# --- which kind of attention ------------------------------------------------------------------


def _kind(index: int, fields: Fields, rules: Family) -> str:
    kinds = fields.listed("layer_types") or fields.listed("attention_layers")
    if not kinds:
        return KIND_RULES[rules.kinds](index, fields, rules)
    if (
        index >= len(kinds)
        or not isinstance(kinds[index], str)
        or kinds[index] not in ATTENTION_KINDS
    ):
        raise fields.error(
            f"the list of layer types does not say which attention layer {index} has"
        )
    return ATTENTION_KINDS[kinds[index]]


def _every(interval: int, index: int, others: str) -> str:
    return others if (index + 1) % interval else "full"


def _patterned(index: int, fields: Fields, rules: Family) -> str:
    return _every(fields.maybe("window_pattern") or rules.pattern, index, "sliding")


def _from_some_layer(index: int, fields: Fields, rules: Family) -> str:
    late = fields.flag(("use_sliding_window", False)) and index >= (
        fields.maybe("window_from") or 0
    )
    return "sliding" if late else "full"


def _chunked_where_rotary(index: int, fields: Fields, rules: Family) -> str:
    rotary = fields.listed("no_rope_layers")  # 1 says that the layer is rotary, whatever the name
    if rotary and index >= len(rotary):
        raise fields.error(f"no_rope_layers has {len(rotary)} values and none for layer {index}")
    if rotary:
        return "chunked" if rotary[index] else "full"
    return _every(fields.maybe("rope_interval") or 4, index, "chunked")


# The kind of a layer where the config lists none.
KIND_RULES: dict[str, Callable[[int, Fields, Family], str]] = {
    "full": lambda index, fields, rules: "full",
    "sliding": lambda index, fields, rules: "sliding",
    "even": lambda index, fields, rules: "full" if index % 2 else "sliding",
    "pattern": _patterned,
    "qwen": _from_some_layer,
    "chunked": _chunked_where_rotary,
    "hybrid": lambda index, fields, rules: _every(
        fields.maybe("full_interval") or 4, index, "recurrent"
    ),
}


# --- attention --------------------------------------------------------------------------------


def read_attention(index: int, kind: str, fields: Fields, rules: Family) -> Attention:
    """Attention of a kind that keeps keys and values."""
    heads = fields.need("heads")
    if fields.maybe("kv_rank"):
        return _latent_attention(fields, heads)
    head_dim = (rules.own_head_dim and fields.maybe("head_dim")) or _quotient(fields, heads)
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
    inner = Fields({"num_kv_heads": fields.nested("attn_config").get("kv_n_heads")}, fields.where)
    found = fields.maybe("kv_heads") or inner.maybe("kv_heads") or heads
    one = fields.flag(("multi_query", rules.multi_query)) and not fields.flag(
        ("new_decoder_architecture", False)
    )
    found = 1 if one else found
    if heads % found:
        told = f"{fields.name('kv_heads')} is {found}"
        raise fields.error(
            f"{told}: {heads} attention heads are no multiple of {found} key-value heads"
        )
    return found


def _latent_attention(fields: Fields, heads: int) -> Attention:
    missing = [
        FIELDS[f][0] for f in ("rope_dim", "nope_dim", "value_dim") if fields.maybe(f) is None
    ]
    if missing:
        raise fields.error(f"latent attention without {', '.join(missing)}")
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


def _quotient(fields: Fields, heads: int) -> int:
    hidden = fields.need("hidden")
    if hidden % heads:
        told = f"{fields.name('heads')} is {heads}"
        raise fields.error(
            f"{told}: hidden size {hidden} is no multiple of {heads} attention heads"
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
    if routed <= 1 or not _is_sparse(index, fields):
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
        vectors=_bias_of(width, fields, rules) if fields.flag(rules.expert_bias) else 0,
    )


def _is_sparse(index: int, fields: Fields) -> bool:
    if index in fields.listed("mlp_only_layers") or index < (fields.maybe("dense_first") or 0):
        return False
    if fields.listed("moe_layers"):
        return index in fields.listed("moe_layers")
    every = fields.maybe("sparse_every")
    if every is not None:  # DeepSeek counts from layer 0, Qwen from 1
        return index % every == 0
    return (index + 1) % (fields.maybe("sparse_step") or 1) == 0


def _width(index: int, fields: Fields, rules: Family, beside_experts: bool) -> int:
    width = (beside_experts and fields.maybe("dense_width")) or fields.maybe("width", index)
    factor = fields.maybe("width_factor") or rules.width_factor
    return width or (factor * fields.need("hidden") if factor else fields.need("width"))


# --- what only adds numbers -------------------------------------------------------------------


def _beside(fields: Fields) -> tuple[int, int]:
    """Gemma 3n's alternating updates, low-rank residual and input of the layer: multiply-adds, and numbers.

    The router of the updates runs twice a layer, and mixing `n` streams multiplies data by data.
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


# Norms of a layer where its flags decide.
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
    """Numbers of one norm over the hidden size."""
    return rules.norm * fields.need("hidden") if fields.flag(rules.affine) else 0


def _vectors_of_attention(a: Attention | Recurrent, fields: Fields, rules: Family) -> int:
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
    """Biases of a dense feed-forward, or of a router and the shared experts; routed experts carry their own."""
    if isinstance(block, Mlp):
        biased = _bias_of(block.width, fields, rules) if fields.flag(rules.mlp_bias) else 0
        return biased + rules.activation
    shared = block.shared_width if fields.flag(rules.expert_bias) else 0
    return (_bias_of(shared, fields, rules) if shared else 0) + rules.router_bias * block.routed


def _bias_of(width: int, fields: Fields, rules: Family) -> int:
    return width * (1 + rules.gated) + fields.need("hidden")
