"""Table of model types, and the names that published configs use for each field.

A row of `FAMILIES` holds only what the config itself does not say. Rules that read a config are in
`fields` (lookup) and `layers` (layer structure); nothing else branches on a model's name.
"""

from __future__ import annotations

from typing import NamedTuple

# A fact of the type, or the config's field for it with the default if the field is absent.
Flag = bool | tuple[str, bool]

FIELDS = {
    "hidden": ("hidden_size", "n_embd", "d_model", "n_embed"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "head_dim": ("head_dim", "kv_channels"),
    "width": ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner"),
    "width_factor": ("expansion_ratio",),
    "dense_width": ("intermediate_size_mlp",),
    "vocabulary": ("vocab_size", "padded_vocab_size"),
    "positions": ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"),
    "embedding_dim": ("word_embed_proj_dim",),
    "routed": ("num_local_experts", "num_experts", "n_routed_experts"),
    "active": ("num_experts_per_tok", "moe_topk", "num_experts_per_token"),
    "expert_width": ("moe_intermediate_size",),
    "shared_width": ("shared_expert_intermediate_size", "shared_intermediate_size"),
    "shared_experts": ("n_shared_experts", "num_shared_experts"),
    "dense_first": ("first_k_dense_replace",),
    "sparse_step": ("decoder_sparse_step", "interleave_moe_layer_step"),
    "sparse_every": ("moe_layer_freq",),
    "window": ("sliding_window", "window_size"),
    "window_pattern": ("sliding_window_pattern", "_sliding_window_pattern"),
    "window_from": ("max_window_layers",),
    "chunk": ("attention_chunk_size",),
    "rope_interval": ("no_rope_layer_interval",),
    "full_interval": ("full_attention_interval",),
    "query_rank": ("q_lora_rank",),
    "kv_rank": ("kv_lora_rank",),
    "rope_dim": ("qk_rope_head_dim",),
    "nope_dim": ("qk_nope_head_dim",),
    "value_dim": ("v_head_dim",),
    "linear_key_heads": ("linear_num_key_heads",),
    "linear_value_heads": ("linear_num_value_heads",),
    "linear_key_dim": ("linear_key_head_dim",),
    "linear_value_dim": ("linear_value_head_dim",),
    "linear_kernel": ("linear_conv_kernel_dim",),
    "layer_norms": ("num_ln_in_parallel_attn",),
    "cache_sharing": ("num_kv_shared_layers",),
    "altup": ("altup_num_inputs",),
    "laurel_rank": ("laurel_rank",),
    "layer_input": ("hidden_size_per_layer_input",),
    "layer_input_vocabulary": ("vocab_size_per_layer_input",),
}


class Family(NamedTuple):
    """Properties of a model type that its config leaves out; defaults are those of Llama.

    Unknown types use the defaults. A `Flag` is a fact, or the config's field with its default.

    Work of a token:
        gated           Feed-forward has a gate matrix.
        width_factor    Feed-forward width over hidden size if the config gives no width.
        multi_query     One key-value head by default.
        gate            Attention output is gated by the query projection.
        own_head_dim    A head_dim field of the config is used.
        shared          One shared expert as wide as the routed ones.
        shared_alone    Without experts, the shared one is the feed-forward.
        kinds, pattern  Rule for the kinds of layers if the config lists none, and its period.

    Numbers only:
        tied            Embeddings are tied by default.
        norm, norms     Vectors of a norm, norms of a layer (0 vectors if `affine` is false).
        qk_norm         Norm of queries and keys over one "head" or all "heads".
        *_bias          Biases, of the router and LM head too.
        shared_gate     Gate column of the shared expert.
        sinks           One attention sink a head.
        positions       Learned positions, as the number beyond the config's.
        embedding_norm  Norm behind the embedding.
        activation      Numbers of a feed-forward's activation.
    """

    gated: bool = True
    width_factor: int | None = None
    multi_query: bool = False
    gate: Flag = ("attn_output_gate", False)
    own_head_dim: bool = True
    shared: bool = False
    shared_alone: bool = False
    kinds: str = "full"
    pattern: int = 6
    tied: bool = False
    norm: int = 1
    norms: int | str = 2
    affine: Flag = True
    final_norm: Flag = True
    qk_norm: str = "none"
    qk_norm_is_on: Flag = True
    qkv_bias: Flag = ("attention_bias", False)
    out_bias: Flag = ("attention_bias", False)
    mlp_bias: Flag = ("mlp_bias", False)
    head_bias: Flag = False
    expert_bias: Flag = False
    router_bias: bool = False
    shared_gate: bool = False
    sinks: bool = False
    positions: int | None = None
    embedding_norm: bool = False
    activation: int = 0

    def biased(self, flag: Flag) -> Family:
        """Return the family with one flag for the biases of all matrices of a layer."""
        return self._replace(qkv_bias=flag, out_bias=flag, mlp_bias=flag)


_PLAIN = Family()
_QWEN2 = Family(kinds="qwen", qkv_bias=True, out_bias=False, mlp_bias=False)
_QWEN3 = Family(kinds="qwen", qk_norm="head")
_GLM = Family(qkv_bias=("attention_bias", True), out_bias=False)
_DEEPSEEK = Family(mlp_bias=False)
_GPT2 = Family(
    gated=False, own_head_dim=False, tied=True, width_factor=4, norm=2, positions=0
).biased(True)
_GPTJ = Family(gated=False, own_head_dim=False, width_factor=4, norm=2, norms=1, qkv_bias=False,
               out_bias=False, mlp_bias=True, head_bias=True)  # fmt: skip
_COHERE = Family(tied=True, norms=1, qk_norm="heads", qk_norm_is_on=("use_qk_norm", False))

FAMILIES = {
    "llama": _PLAIN,
    "arcee": Family(gated=False),
    "apertus": Family(gated=False, qk_norm="head", activation=2),
    "mistral": Family(kinds="sliding"),
    "ministral": Family(kinds="sliding"),
    "mixtral": Family(kinds="sliding"),
    "qwen2": _QWEN2,
    "qwen2_moe": _QWEN2._replace(own_head_dim=False, qkv_bias=("qkv_bias", True), shared_gate=True),
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3._replace(kinds="flagged"),
    "qwen3_next": Family(kinds="hybrid", qk_norm="head", gate=True, shared_gate=True),
    "qwen3_5_text": Family(kinds="hybrid", qk_norm="head", gate=True),
    "qwen3_5_moe_text": Family(kinds="hybrid", qk_norm="head", gate=True, shared_gate=True),
    "gemma": Family(tied=True),
    "gemma2": Family(tied=True, kinds="even", norms=4),
    "vaultgemma": Family(tied=True, kinds="even"),
    "gemma3_text": Family(tied=True, kinds="pattern", norms=4, qk_norm="head"),
    "gemma3n_text": Family(tied=True, kinds="pattern", pattern=5, norms=8, qk_norm="head"),
    "phi": Family(gated=False, norm=2, norms=1, head_bias=True, qk_norm="head",
                  qk_norm_is_on=("qk_layernorm", False)).biased(True),
    "phi3": Family(kinds="sliding"),
    "phimoe": Family(own_head_dim=False, kinds="sliding", norm=2,
                     head_bias=("lm_head_bias", False)),
    "glm": _GLM,
    "glm4": _GLM._replace(norms=4),
    "glm4_moe": Family(out_bias=False, qk_norm="head", qk_norm_is_on=("use_qk_norm", False)),
    "deepseek_v2": _DEEPSEEK._replace(mlp_bias=("mlp_bias", False),
                                      expert_bias=("mlp_bias", False)),
    "deepseek_v3": _DEEPSEEK,
    "dots1": Family(kinds="from_layer", qk_norm="head"),
    "gpt2": _GPT2,
    "gptj": _GPTJ,
    "codegen": _GPTJ,
    "gpt_neo": _GPT2._replace(qkv_bias=False, kinds="odd"),
    "gpt_neox": Family(gated=False, own_head_dim=False, norm=2, qkv_bias=("attention_bias", True),
                       out_bias=("attention_bias", True), mlp_bias=True),
    "gpt_bigcode": _GPT2._replace(multi_query=True),
    "opt": Family(gated=False, own_head_dim=False, tied=True, norm=2,
                  affine=("layer_norm_elementwise_affine", True), positions=2,
                  final_norm=("do_layer_norm_before", True)).biased(("enable_bias", True)),
    "biogpt": Family(gated=False, own_head_dim=False, tied=True, norm=2, positions=2).biased(True),
    "persimmon": Family(gated=False, own_head_dim=False, norm=2, qk_norm="head",
                        qk_norm_is_on=("qk_layernorm", True)).biased(True),
    "bloom": Family(gated=False, own_head_dim=False, tied=True, width_factor=4, norm=2,
                    embedding_norm=True).biased(True),
    "falcon": Family(gated=False, own_head_dim=False, tied=True, width_factor=4, multi_query=True,
                     norm=2, norms="falcon").biased(("bias", False)),
    "mpt": Family(gated=False, own_head_dim=False, tied=True, width_factor=4),
    "starcoder2": Family(gated=False, tied=True, kinds="sliding",
                         norm=2).biased(("use_bias", True)),
    "stablelm": Family(own_head_dim=False, norm=2, norms="stablelm", qk_norm="heads",
                       qk_norm_is_on=("qk_layernorm", False), qkv_bias=("use_qkv_bias", False),
                       out_bias=False, mlp_bias=False),
    "olmo": Family(norm=0),
    "olmo2": Family(qk_norm="heads"),
    "olmo3": Family(kinds="pattern", pattern=4, qk_norm="heads"),
    "olmoe": Family(own_head_dim=False, qk_norm="heads"),
    "smollm3": Family(tied=True, kinds="unrotated"),
    "granite": _PLAIN,
    **dict.fromkeys(("granitemoe", "granitemoeshared"), Family(own_head_dim=False)),
    "granitemoehybrid": Family(own_head_dim=False, shared_alone=True, kinds="listed"),
    "cohere": _COHERE,
    "cohere2": _COHERE._replace(kinds="pattern", pattern=4, qk_norm="none"),
    "exaone4": Family(kinds="pattern", pattern=4, qk_norm="head"),
    "ernie4_5": Family(tied=True).biased(("use_bias", False)),
    "internlm": Family(qkv_bias=("bias", True), out_bias=("bias", True)),
    "internlm2": Family(qkv_bias=("bias", False), out_bias=("bias", False)),
    "internlm3": Family(qkv_bias=("qkv_bias", False), out_bias=("bias", False),
                        mlp_bias=("bias", False)),
    "seed_oss": Family(qkv_bias=("attention_bias", True), out_bias=("attention_out_bias", False)),
    "nemotron": Family(gated=False, norm=2),
    "gpt_oss": Family(kinds="even", qkv_bias=("attention_bias", True),
                      out_bias=("attention_bias", True), expert_bias=True, router_bias=True,
                      sinks=True),
    "llama4_text": Family(kinds="chunked", shared=True),
}  # fmt: skip

# Names of attention kinds in a config's list of layers.
ATTENTION_KINDS = {
    "full_attention": "full",
    "global": "full",
    "sliding_attention": "sliding",
    "local": "sliding",
    "chunked_attention": "chunked",
    "attention": "full",
    "linear_attention": "recurrent",
}

# Type of the language model inside a config of several models that does not name it.
TEXT_TYPES = {
    **dict.fromkeys(("aya_vision", "cohere2_vision"), "cohere2"),
    **dict.fromkeys(("blip-2", "instructblip", "instructblipvideo"), "opt"),
    "fuyu": "persimmon",
    **dict.fromkeys(("gemma3", "shieldgemma2"), "gemma3_text"),
    "gemma3n": "gemma3n_text",
    "granite_speech": "granite",
    **dict.fromkeys(("idefics2", "mistral3"), "mistral"),
    **dict.fromkeys(("deepseek_vl", "deepseek_vl_hybrid", "idefics3", "janus", "llava"), "llama"),
    **dict.fromkeys(("llava_next", "llava_next_video", "perception_lm", "smolvlm"), "llama"),
    **dict.fromkeys(("video_llava", "vipllava", "voxtral"), "llama"),
    "llama4": "llama4_text",
    **dict.fromkeys(("got_ocr2", "internvl", "llava_onevision", "ovis2", "qwen2_audio"), "qwen2"),
    "paligemma": "gemma",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
