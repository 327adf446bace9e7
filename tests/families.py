"""Tiny configs of decoder families, and PyTorch with its warnings kept out."""

import warnings
from contextlib import contextmanager

# Small models: every size is another number, so that none can stand for another.
BASE = {"vocab_size": 1009, "hidden_size": 64, "intermediate_size": 97, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24,
        "max_position_embeddings": 211,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)}  # fmt: skip
PLAIN = {k: v for k, v in BASE.items() if k != "head_dim"}
ONE_WIDTH = {k: v for k, v in PLAIN.items() if k != "num_key_value_heads"}
NO_WIDTH = {k: v for k, v in ONE_WIDTH.items() if k != "intermediate_size"}
MIXTRAL = {"num_local_experts": 6, "num_experts_per_tok": 2}
QWEN_MOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 31}
DEEPSEEK = {"n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 31,
            "n_shared_experts": 2, "first_k_dense_replace": 1, "n_group": 1,
            "topk_group": 1}  # fmt: skip
LATENT = {"q_lora_rank": 14, "kv_lora_rank": 18, "qk_rope_head_dim": 8, "qk_nope_head_dim": 10,
          "v_head_dim": 12, "num_key_value_heads": 4}  # fmt: skip
GPT = {
    "vocab_size": 1009,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 211,
    "rotary_dim": 8,
}
SMALL = {
    **dict.fromkeys(("llama", "arcee", "apertus", "mistral", "ministral", "qwen2", "qwen3"), BASE),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "phi3", "glm", "glm4", "starcoder2"), BASE),
    "vaultgemma": BASE,
    **dict.fromkeys(("olmo", "olmo2", "olmo3", "smollm3", "granite", "cohere", "cohere2"), BASE),
    **dict.fromkeys(("exaone4", "ernie4_5", "seed_oss", "nemotron"), BASE),
    **dict.fromkeys(("stablelm", "phi"), PLAIN),
    "gpt_neox": ONE_WIDTH,
    "falcon": NO_WIDTH,
    **dict.fromkeys(("mixtral", "gpt_oss"), {**BASE, **MIXTRAL}),
    **dict.fromkeys(("phimoe", "granitemoe"), {**PLAIN, **MIXTRAL}),
    "granitemoeshared": {**PLAIN, **MIXTRAL, "shared_intermediate_size": 37},
    "granitemoehybrid": {**PLAIN, **MIXTRAL, "shared_intermediate_size": 37, "mamba_n_heads": 8,
                         "layer_types": ["attention", "attention"]},
    "olmoe": {**PLAIN, "num_experts": 6, "num_experts_per_tok": 2},
    "qwen3_moe": {**BASE, **QWEN_MOE},
    "qwen2_moe": {**PLAIN, **QWEN_MOE, "shared_expert_intermediate_size": 37},
    **dict.fromkeys(("glm4_moe", "dots1"), {**BASE, **DEEPSEEK}),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), {**PLAIN, **DEEPSEEK, **LATENT}),
    **dict.fromkeys(("biogpt", "persimmon"), ONE_WIDTH),
    **dict.fromkeys(("gpt2", "gptj", "codegen", "gpt_bigcode"), GPT),
    "gpt_neo": {"vocab_size": 1009, "hidden_size": 64, "num_layers": 2, "num_heads": 4,
                "max_position_embeddings": 211, "attention_types": [[["global", "local"], 1]],
                "window_size": 8},
    "opt": {**NO_WIDTH, "ffn_dim": 97, "word_embed_proj_dim": 40, "do_layer_norm_before": False},
    "bloom": {"vocab_size": 1009, "hidden_size": 64, "n_layer": 2, "n_head": 4},
    "mpt": {"vocab_size": 1009, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 211},
    "llama4_text": {**BASE, **MIXTRAL, "intermediate_size_mlp": 101,
                    "interleave_moe_layer_step": 2},
    "qwen3_next": {**BASE, **QWEN_MOE, "shared_expert_intermediate_size": 37,
                   "linear_num_key_heads": 2, "linear_num_value_heads": 4,
                   "linear_key_head_dim": 10, "linear_value_head_dim": 14,
                   "layer_types": ["linear_attention", "full_attention"]},
    "gemma3n_text": {**BASE, "vocab_size_per_layer_input": 999, "hidden_size_per_layer_input": 7,
                     "laurel_rank": 5, "num_hidden_layers": 4, "num_kv_shared_layers": 2,
                     "intermediate_size": [97, 98, 99, 100],
                     "layer_types": ["sliding_attention", "full_attention"] * 2},
}  # fmt: skip


@contextmanager
def torch_kit():
    """PyTorch and transformers with their warnings kept out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        with torch.no_grad():
            yield torch, transformers


def small_config(transformers, kind, **changes):
    return transformers.AutoConfig.for_model(kind, **{**SMALL[kind], **changes})
