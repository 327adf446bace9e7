"""Reads a Hugging Face `config.json` into `Architecture`: one table of data, no branching on names.

A field is looked up under the names that published configs use for it; what differs between model
types beyond that stands in `FAMILIES`. A type that is not in the table is taken by standard field
names and marked `assumed`; what is missing or impossible is refused, naming the field.
Counting is left to `flops`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any, NamedTuple

from edgecap.errors import UsageError
from edgecap.record import Absent, Architecture, Attention, Experts, Latent, Layer, Mlp

Config = Mapping[str, Any]

FIELDS = {
    "hidden": ("hidden_size", "n_embd", "d_model", "n_embed"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "head_dim": ("head_dim", "kv_channels"),
    "width": ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner"),
    "vocabulary": ("vocab_size", "padded_vocab_size"),
    "positions": ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"),
    "embedding_dim": ("word_embed_proj_dim",),
    "routed": ("num_local_experts", "num_experts", "n_routed_experts"),
    "active": ("num_experts_per_tok", "moe_topk", "num_experts_per_token"),
    "expert_width": ("moe_intermediate_size",),
    "shared_width": ("shared_expert_intermediate_size",),
    "shared_experts": ("n_shared_experts",),
    "dense_first": ("first_k_dense_replace",),
    "sparse_step": ("decoder_sparse_step", "moe_layer_freq"),
    "window": ("sliding_window", "window_size"),
    "window_pattern": ("sliding_window_pattern",),
    "window_from": ("max_window_layers",),
}


class Family(NamedTuple):
    """What a model type means beyond its fields.

    `gated` feed-forward, embeddings `tied` by default, `width_factor` of the feed-forward where the
    config gives none, `windowed` layers where a window is set and no list of layer types says it,
    `multi_query` (one key-value head) by default.
    """

    gated: bool = True
    tied: bool = False
    width_factor: int | None = None
    windowed: str = "none"
    multi_query: bool = False


FAMILIES = {
    "llama": Family(),
    "mistral": Family(windowed="all"),
    "mixtral": Family(windowed="all"),
    "ministral": Family(windowed="all"),
    "qwen2": Family(windowed="qwen"),
    "qwen2_moe": Family(windowed="qwen"),
    "qwen3": Family(windowed="qwen"),
    "qwen3_moe": Family(windowed="qwen"),
    "gemma": Family(tied=True),
    "gemma2": Family(tied=True, windowed="even"),
    "gemma3_text": Family(tied=True, windowed="pattern"),
    "phi": Family(gated=False),
    "phi3": Family(windowed="all"),
    "glm": Family(),
    "glm4": Family(),
    "glm4_moe": Family(),
    "deepseek_v2": Family(),
    "deepseek_v3": Family(),
    "gpt2": Family(gated=False, tied=True, width_factor=4),
    "gptj": Family(gated=False, width_factor=4),
    "gpt_neo": Family(gated=False, tied=True, width_factor=4),
    "gpt_neox": Family(gated=False),
    "gpt_bigcode": Family(gated=False, tied=True, width_factor=4, multi_query=True),
    "codegen": Family(gated=False, width_factor=4),
    "opt": Family(gated=False, tied=True),
    "bloom": Family(gated=False, tied=True, width_factor=4),
    "falcon": Family(gated=False, tied=True, width_factor=4, multi_query=True),
    "mpt": Family(gated=False, tied=True, width_factor=4),
    "starcoder2": Family(gated=False, tied=True, windowed="all"),
    "stablelm": Family(),
    "olmo": Family(),
    "olmo2": Family(),
    "olmoe": Family(),
    "smollm3": Family(tied=True),
    "granite": Family(),
    "cohere": Family(tied=True),
    "internlm2": Family(),
    "seed_oss": Family(),
    "nemotron": Family(gated=False),
}

# What config lists of layers say: does such a layer see only a window?
KINDS = {"full_attention": False, "global": False, "sliding_attention": True, "local": True}

# Fields of models that are no plain stack of attention and feed-forward: counted wrongly, so refused.
FOREIGN = (
    *(
        "attn_layer_period",
        "attn_layer_indices",
        "block_types",
        "layers_block_type",
        "full_attn_idxs",
        "hybrid_override_pattern",
    ),
    *(
        "mamba_d_state",
        "state_size",
        "ssm_cfg",
        "linear_num_key_heads",
        "interleave_moe_layer_step",
        "cross_attention_layers",
    ),
)


def read_architecture(config: Config, where: str = "config.json") -> Architecture:
    """The architecture of a parsed `config.json`.

    Raises UsageError naming the missing or impossible field, `where` it stands.
    """
    config = _text_part(config, where)
    model_type = str(config.get("model_type") or "")
    family = FAMILIES.get(model_type)
    if family is None and not _claims_causal(config):
        raise UsageError(f"{where}: model type '{model_type}' is not a causal language model that edgecap knows")
    fields = _Fields(config, where)
    rules = family or Family()
    _refuse_foreign(config, where)
    layers = [_layer(i, fields, rules) for i in range(fields.need("layers"))]
    return Architecture(
        model_type=model_type,
        hidden=fields.need("hidden"),
        vocabulary=fields.need("vocabulary"),
        positions=fields.maybe("positions"),
        tied=bool(config.get("tie_word_embeddings", rules.tied)),
        layers=tuple(_count(layers)),
        embedding_dim=fields.maybe("embedding_dim"),
        assumed=family is None,
    )


def read_genai(genai: Config, matrix_weights: int, where: str) -> Architecture | Absent:
    """The architecture that a `genai_config.json` tells, with the feed-forward width from the graph.

    The file leaves the feed-forward out: its width is what remains of the graph's `matrix_weights`
    after attention and LM head. Absent where that is no whole number (experts, other blocks).
    """
    model = genai.get("model") or {}
    flat = {**(model.get("decoder") or {}), "vocab_size": model.get("vocab_size"), "head_dim": None}
    fields = _Fields({**flat, "head_dim": flat.get("head_size")}, where)
    hidden, layers = fields.need("hidden"), fields.need("layers")
    attention = _attention(0, fields, Family())
    q_and_o = 2 * hidden * attention.heads * attention.head_dim
    k_and_v = 2 * hidden * attention.kv_heads * attention.head_dim
    rest = matrix_weights - layers * (q_and_o + k_and_v) - hidden * fields.need("vocabulary")
    if rest <= 0 or rest % (3 * hidden * layers):
        return Absent(reason="genai_config.json leaves out the feed-forward, and the graph's matrices do not tell it")
    return Architecture(
        model_type=str(model.get("type") or ""),
        hidden=hidden,
        vocabulary=fields.need("vocabulary"),
        positions=model.get("context_length"),
        tied=False,
        layers=(
            Layer(count=layers, attention=attention, feed_forward=Mlp(width=rest // (3 * hidden * layers), gated=True)),
        ),
        assumed=True,
    )


def _refuse_foreign(config: Config, where: str) -> None:
    found = [name for name in FOREIGN if config.get(name) is not None]
    feed_forward = (config.get("ffn_config") or {}).get("ffn_type", "mptmlp")
    if feed_forward != "mptmlp":
        found.append(f"ffn_type {feed_forward}")
    if found:
        raise UsageError(f"{where}: {found[0]} says that this is no plain decoder; edgecap cannot count it yet")


class _Fields:
    """Looks a field up under its published names and checks that it is a positive whole number."""

    def __init__(self, config: Config, where: str) -> None:
        self.config, self.where = config, where

    def maybe(self, field: str) -> int | None:
        for name in FIELDS[field]:
            value = self.config.get(name)
            if value is not None and not (field == "window" and value == -1):
                least = 0 if field in _MAY_BE_ZERO else 1
                if isinstance(value, bool) or not isinstance(value, int) or value < least:
                    raise UsageError(f"{self.where}: {name} is {value!r}, not a positive whole number")
                return value
        return None

    def listed(self, name: str) -> list[Any]:
        value = self.config.get(name) or []
        if not isinstance(value, list):
            raise UsageError(f"{self.where}: {name} is {value!r}, not a list")
        return value

    def need(self, field: str) -> int:
        value = self.maybe(field)
        if value is None:
            raise UsageError(
                f"{self.where}: no field {' or '.join(FIELDS[field][:3])}; the architecture cannot be read"
            )
        return value


_MAY_BE_ZERO = {"dense_first", "shared_experts", "shared_width", "window", "window_from"}


def _text_part(config: Config, where: str) -> Config:
    inner = config.get("text_config")
    if isinstance(inner, Mapping) and "num_hidden_layers" not in config:
        return inner
    if config.get("is_encoder_decoder"):
        raise UsageError(f"{where}: an encoder-decoder model; edgecap measures causal language models")
    return config


def _claims_causal(config: Config) -> bool:
    names = config.get("architectures") or []
    return any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names)


def _layer(index: int, fields: _Fields, rules: Family) -> Layer:
    return Layer(count=1, attention=_attention(index, fields, rules), feed_forward=_feed_forward(index, fields, rules))


def _attention(index: int, fields: _Fields, rules: Family) -> Attention:
    config, heads = fields.config, fields.need("heads")
    if config.get("kv_lora_rank"):
        return _latent_attention(fields, heads)
    head_dim = fields.maybe("head_dim") or _quotient(fields, heads)
    kv_heads = fields.maybe("kv_heads") or (config.get("attn_config") or {}).get("kv_n_heads") or heads
    if config.get("multi_query", rules.multi_query) and not config.get("new_decoder_architecture"):
        kv_heads = 1
    if heads % kv_heads:
        raise UsageError(f"{fields.where}: {heads} attention heads are no multiple of {kv_heads} key-value heads")
    return Attention(
        heads=heads, kv_heads=kv_heads, head_dim=head_dim, value_dim=head_dim, window=_window(index, fields, rules)
    )


def _latent_attention(fields: _Fields, heads: int) -> Attention:
    config = fields.config
    missing = [n for n in ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim") if not config.get(n)]
    if missing:
        raise UsageError(f"{fields.where}: latent attention without {', '.join(missing)}")
    rope = int(config["qk_rope_head_dim"])
    return Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=rope + int(config["qk_nope_head_dim"]),
        value_dim=int(config["v_head_dim"]),
        latent=Latent(query_rank=config.get("q_lora_rank"), kv_rank=int(config["kv_lora_rank"]), rope_dim=rope),
    )


def _quotient(fields: _Fields, heads: int) -> int:
    hidden = fields.need("hidden")
    if hidden % heads:
        raise UsageError(f"{fields.where}: hidden size {hidden} is no multiple of {heads} attention heads")
    return hidden // heads


def _window(index: int, fields: _Fields, rules: Family) -> int | None:
    window = fields.maybe("window") or None
    kinds = fields.listed("layer_types") or fields.listed("attention_layers")
    if not kinds:
        return window if window and WINDOWED[rules.windowed](index, fields) else None
    if index >= len(kinds) or kinds[index] not in KINDS:
        raise UsageError(f"{fields.where}: the list of layer types does not say which attention layer {index} has")
    return window if KINDS[kinds[index]] else None


def _in_pattern(layer: int, fields: _Fields) -> bool:
    return (layer + 1) % (fields.maybe("window_pattern") or 6) != 0


def _from_some_layer(layer: int, fields: _Fields) -> bool:
    return bool(fields.config.get("use_sliding_window")) and layer >= (fields.maybe("window_from") or 0)


# Which layers of a family see only a window, where the config lists no layer types.
WINDOWED: dict[str, Callable[[int, _Fields], bool]] = {
    "none": lambda layer, fields: False,
    "all": lambda layer, fields: True,
    "even": lambda layer, fields: layer % 2 == 0,
    "pattern": _in_pattern,
    "qwen": _from_some_layer,
}


def _feed_forward(index: int, fields: _Fields, rules: Family) -> Mlp | Experts:
    routed = fields.maybe("routed") or 0
    if routed <= 1 or not _is_sparse(index, fields):
        return Mlp(width=_width(fields, rules), gated=rules.gated)
    active = fields.need("active")
    if active > routed:
        raise UsageError(f"{fields.where}: {active} active experts of {routed}")
    width = fields.maybe("expert_width") or fields.need("width")
    shared = fields.maybe("shared_width") or (fields.maybe("shared_experts") or 0) * width
    return Experts(routed=routed, active=active, width=width, gated=rules.gated, shared_width=shared)


def _is_sparse(index: int, fields: _Fields) -> bool:
    first = fields.maybe("dense_first") or 0
    if index in fields.listed("mlp_only_layers") or index < first:
        return False
    if fields.config.get("moe_layer_freq") is not None:  # DeepSeek counts from layer 0, Qwen from 1
        return index % (fields.maybe("sparse_step") or 1) == 0
    return (index + 1) % (fields.maybe("sparse_step") or 1) == 0


def _width(fields: _Fields, rules: Family) -> int:
    width = fields.maybe("width")
    if width is not None:
        return width
    factor = fields.config.get("expansion_ratio") or rules.width_factor
    return int(factor) * fields.need("hidden") if factor else fields.need("width")


def _count(layers: list[Layer]) -> list[Layer]:
    """Equal layers as one entry with their number; neighbours first, so that the order stays readable."""
    merged = [(layer, len(list(group))) for layer, group in groupby(layers)]
    total: dict[str, tuple[Layer, int]] = {}
    for layer, n in merged:
        key = repr(layer)
        total[key] = (layer, total.get(key, (layer, 0))[1] + n)
    return [Layer(count=n, attention=x.attention, feed_forward=x.feed_forward) for x, n in total.values()]
