"""Tell what is not a plain stack of softmax attention and feed-forward, and refuse to count it.

A type is refused by its name, a config by its fields: those that only recurrent, convolutional,
sparse or shared layers have. Reading such a config by its usual names would give a plausible number
about another model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgecap.model.architecture.families import FAMILIES, FIELDS

# Types that do not run as their usual fields say, by reason.
REASONS = {
    "it has recurrent or state-space layers": (
        "bailing_hybrid falcon_h1 falcon_mamba gated_deltanet gla hgrn hgrn2 hymba jamba bamba "
        "kimi_linear lfm2 lfm2_moe lfm2_vl lfm3 linear_attn mamba mamba2 mega minimax "
        "minimax_text_01 nemotron_h olmo_hybrid phimamba plamo2 plamo3 recurrent_gemma retnet "
        "rwkv rwkv5 rwkv6 rwkv6qwen2 rwkv7 samba stripedhyena xlstm yoco zamba zamba2 zaya"
    ),
    "its attention computes more or less than softmax attention": (
        "beam deepseek_v32 deepseek_v4 diffllama doge glm_moe_dsa jetmoe laguna longcat_flash "
        "mimo_v2_flash reformer transfo-xl xlnet"
    ),
    "it runs its layers more than once": "hrm_text huginn_raven inkling2_loop_text ouro",
    "its layers differ in ways that its usual fields do not say": (
        "deci decilm dory gemma4 gemma4_text gemma4_unified_text nemotron-nas openelm"
    ),
    "it reads and writes sound": "moshi musicgen musicgen_melody csm kyutai_speech_to_text",
    "its language model has several parts": "blt emu3 git",
    "its feed-forward is half of intermediate_size": "qwen",
    "its output projection does not have the width of its heads": "helium",
    "another field ties its embeddings": "open-llama",
}
REFUSED = {name: reason for reason, names in REASONS.items() for name in names.split()}

ENCODER_DECODERS = {
    *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "encoder-decoder", "fsmt"),
    *("led", "longt5", "m2m_100", "marian", "mbart", "mt5", "mvp", "nllb-moe", "pegasus"),
    *("pegasus_x", "plbart", "prophetnet", "speech-encoder-decoder", "speech_to_text"),
    *("switch_transformers", "t5", "t5gemma", "udop", "umt5", "vision-encoder-decoder"),
    *("whisper", "xlm-prophetnet"),
}

# Parts of a field's name, between underscores or at its ends.
_TELLTALE = re.compile(
    r"""(?<![a-z])(?:
        mamba\d? | ssm | s[46] | rwkv\d* | wkv | lru | rg_?lru | lightning | retention | retnet
        | hyena | hgrn\d? | [sm]lstm | lstm | gru | rnn | recurrent | recurrence | gla | griffin
        | delta_?(?:net|rule) | gated_delta\w* | kda | gdn | linear_(?:attn|attention) | linear
        | conv\d? d? | conv1d | shortconv | state_size | state_dim | d_state | d_conv | d_inner
        | dt_rank | time_(?:step|mix) | decay_low_rank | token_mixer | mixer | feature_map
        | expand_[kv] | attn_mode | block_types? | layers?_block_types? | layer_blocks?
        | attn_layers? | attn_types? | full_attn | hybrid
        | attn_type_list | layer_group_size | layer_configs?
        | block_configs? | global_attn | cross_attention_layers | index_topk | sparse_attention
        | sparse_attn | attention_sparsity | block_sparse | moba | nsa | dynamic_mask | loops?
        | ut_steps | residual_moe | use_residual | ffn_type | hidden_groups | memory_tokens
        | (?:attn|attention)_gate | gated_attention | gating | swa | per_layer | meta_tokens
        | memory_blocks | mem_blocks | share_layers? | kv_reuse\w*
    )(?![a-z])""",
    re.VERBOSE | re.IGNORECASE,
)
_EXPERTS = re.compile(r"(?<![a-z])(?:moe|experts?)(?![a-z])", re.IGNORECASE)
_RECURRENT_NAME = re.compile(
    r"mamba|rwkv|retnet|hyena|hgrn|lstm|griffin|deltanet|recurrent|ssm|lfm\d|linear_?attention",
    re.IGNORECASE,
)
# Fields about experts that change nothing that is counted.
_HARMLESS_EXPERTS = re.compile(
    r"loss|coef|jitter|norm_topk|router|routed_scaling|score|scoring|topk_group|n_group|bias|"
    r"output|_ep_|^ep_|dtype|hidden_act|backend|implementation|norm|dropout|capacity|limit|scal"
)
_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation")
_GATED = {"silu", "swish", "swiglu"}  # nobody uses them without a gate
_ATTENTION_NAME = re.compile(r"(attn|attention)_?(type|kind|class|mechanism|variant|form)$")
_SOFTMAX = {
    "full",
    "softmax",
    "causal",
    "global",
    "gqa",
    "mha",
    "mqa",
    "gpt",
    "multihead_attention",
}
_GENERAL = {"attn_implementation", "quantization_config", "generation_config", "auto_map"}
_KNOWN = {name for names in FIELDS.values() for name in names} | {
    "attention_layers",
    "attention_types",
    "layer_types",
    "mlp_layer_types",
    "mlp_only_layers",
    "moe_layers",
    "no_rope_layers",
    "attn_config",
    "moe_layer_freq",
}
# Fields of a type that say nothing where its layers are attention: see `layers.kind_of`.
_UNUSED = {"granitemoehybrid": ("mamba_", "time_step_")}


def obstacle(config: Mapping[str, Any], model_type: str) -> str | None:
    """Return why a config cannot be counted as a plain decoder, or None."""
    if model_type in REFUSED:
        return f"model type '{model_type}': {REFUSED[model_type]}"
    if model_type not in FAMILIES and (name := _recurrent_name(config, model_type)):
        return f"model type '{model_type}': by its name {name} it has recurrent layers"
    field = next(_telltales(config, model_type), None)
    if field is not None:
        return f"{field} says that this is not a plain decoder"
    return None if model_type in FAMILIES else _undecided(config, model_type)


def _undecided(config: Mapping[str, Any], model_type: str) -> str | None:
    """Return what an unknown type leaves open, although its config has the usual fields."""
    activation = next((config[n] for n in _ACTIVATIONS if config.get(n)), "silu")
    if activation not in _GATED:
        return (
            f"model type '{model_type}' is not known, and its activation {str(activation)[:40]!r} "
            "does not say if the feed-forward has a gate"
        )
    windowed = config.get("sliding_window") not in (None, -1, 0)
    if windowed and config.get("use_sliding_window") is not False and not config.get("layer_types"):
        return (
            f"model type '{model_type}' is not known, and no layer_types say which layers "
            "use sliding_window"
        )
    if config.get("v_head_dim") and not config.get("kv_lora_rank"):
        return f"model type '{model_type}' is not known, and its values have a width of their own"
    return None


def _recurrent_name(config: Mapping[str, Any], model_type: str) -> str | None:
    classes = config.get("architectures")
    names = [model_type, *(classes if isinstance(classes, Sequence) else ())]
    return next((str(n) for n in names if _RECURRENT_NAME.search(str(n))), None)


def _telltales(config: Mapping[str, Any], model_type: str) -> Iterator[str]:
    """Yield the fields that only other kinds of layers have."""
    unused = _UNUSED.get(model_type, ())
    for name, value in config.items():
        if _says_nothing(value) or name in _GENERAL or name.startswith((*unused, "rope_")):
            continue
        if name not in _KNOWN and (_TELLTALE.search(name) or _is_about_experts(name)):
            yield name
        if isinstance(value, str) and _ATTENTION_NAME.search(name) and value not in _SOFTMAX:
            yield f"{name} {value[:40]!r}"
    feed_forward = config.get("ffn_config")
    if isinstance(feed_forward, Mapping) and feed_forward.get("ffn_type", "mptmlp") != "mptmlp":
        yield f"ffn_type {str(feed_forward['ffn_type'])[:40]}"
    if model_type not in FAMILIES:
        yield from _lists_by_layer(config)


def _is_about_experts(name: str) -> bool:
    return bool(_EXPERTS.search(name)) and not _HARMLESS_EXPERTS.search(name)


def _says_nothing(value: object) -> bool:
    return not value or value == "none"


def _lists_by_layer(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield unknown fields that hold another number for each layer."""
    layers = next((config[n] for n in FIELDS["layers"] if config.get(n)), None)
    for name, value in config.items():
        if name in _KNOWN or not isinstance(value, list) or len(value) != layers:
            continue
        if any(v != value[0] for v in value):
            yield name
