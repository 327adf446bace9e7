"""architecture and flops: against published configs, PyTorch's own counter, and impossible configs."""

import csv
import json
import warnings

import pytest
from conftest import SMALL, build_model

from edgecap import flops
from edgecap.architecture import FAMILIES, read_architecture, read_genai
from edgecap.errors import UsageError
from edgecap.record import Absent, Experts

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 100,
}


def test_published_configs(shared):
    rows = list(csv.DictReader((shared / "expected/flops/flops.csv").read_text().splitlines()))
    assert len(rows) == 30
    for row in rows:
        config = json.loads((shared / "expected/flops" / row["model"] / "config.json").read_text())
        found = flops.count_flops(read_architecture(config), 1024, 512)
        assert found.per_token == pytest.approx(float(row["flops_per_token"]), rel=1e-6), row["model"]
        for part in ("projections", "attention_core", "mlp", "lm_head"):
            assert getattr(found.parts, part) == pytest.approx(float(row[part]), rel=1e-6), (row["model"], part)


@pytest.mark.parametrize("kind", SMALL)
def test_agrees_with_pytorch(kind, tmp_path):
    """A full prefill in PyTorch computes the whole square of attention; ours counts what is needed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from torch.utils.flop_counter import FlopCounterMode
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(build_model(tmp_path / kind, kind), attn_implementation="eager")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros((1, 48), dtype=torch.long))
    config = json.loads((tmp_path / kind / "config.json").read_text())
    found = flops.token_parts(read_architecture(config), 48)
    square = found.attention_core * 48 / ((48 + 1) / 2)
    ours = 48 * (found.projections + found.mlp + found.lm_head + square)
    if kind not in ("gpt2", "opt"):  # PyTorch counts the outer product of positions and rotary frequencies as a matmul
        ours += 2 * 48 * (config.get("head_dim") or 16) / 2 * config.get("rotary_pct", 1.0)
    assert ours == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_mean_positions():
    assert flops.mean_positions(1024, None) == 512.5
    assert flops.mean_positions(4, 2) == (1 + 2 + 2 + 2) / 4
    assert flops.mean_positions(4, 100) == 2.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": None}, "no field hidden_size"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": 3}, "no multiple of 3 attention heads"),
        ({"num_key_value_heads": 3}, "no multiple of 3 key-value heads"),
        ({"vocab_size": -5}, "vocab_size is -5"),
        ({"intermediate_size": "many"}, "intermediate_size is 'many'"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_local_experts": 4, "num_experts_per_tok": 5}, "5 active experts of 4"),
        ({"kv_lora_rank": 16}, "latent attention without"),
        ({"layer_types": ["full_attention"]}, "list of layer types"),
        ({"layer_types": ["linear_attention"] * 2}, "list of layer types"),
        ({"sliding_window": "abc"}, "sliding_window is 'abc'"),
        ({"sliding_window": True}, "sliding_window is True"),
        ({"mlp_only_layers": 3, "num_experts": 4}, "mlp_only_layers is 3"),
        ({"attn_layer_period": 4}, "attn_layer_period says"),
        ({"mamba_d_state": 16}, "mamba_d_state says"),
        ({"ffn_config": {"ffn_type": "mptglu"}}, "ffn_type mptglu"),
        ({"model_type": "banana"}, "'banana' is not a causal language model"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
    ],
)
def test_impossible_configs_are_refused(change, words):
    with pytest.raises(UsageError, match=words):
        read_architecture({**LLAMA, **change})


def test_unknown_type_with_standard_fields_is_assumed():
    found = read_architecture({**LLAMA, "model_type": "banana", "architectures": ["BananaForCausalLM"]})
    assert found.assumed
    assert flops.count_flops(found, 8, 8) == flops.count_flops(read_architecture(LLAMA), 8, 8)


def test_names_do_not_matter():
    """The same fields under another known, equally built type count the same."""
    counts = {
        t: flops.count_flops(read_architecture({**LLAMA, "model_type": t}), 16, 16).per_token
        for t in ("llama", "qwen2", "glm4")
    }
    assert len(set(counts.values())) == 1
    assert "llama" in FAMILIES


def test_windows_and_nested_text_config():
    inner = {**LLAMA, "model_type": "gemma3_text", "sliding_window": 8, "num_hidden_layers": 6, "head_dim": 16}
    found = read_architecture({"model_type": "gemma3", "text_config": inner})
    assert {(x.count, x.attention.window) for x in found.layers} == {(5, 8), (1, None)}


def test_defaults_of_families():
    falcon = {
        "model_type": "falcon",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 9,
    }
    assert read_architecture(falcon).layers[0].attention.kv_heads == 1
    assert read_architecture({**falcon, "multi_query": False}).layers[0].attention.kv_heads == 4
    assert (
        read_architecture({**falcon, "new_decoder_architecture": True, "num_kv_heads": 2}).layers[0].attention.kv_heads
        == 2
    )
    bloom = {"model_type": "bloom", "n_embed": 64, "n_layer": 2, "num_attention_heads": 4, "vocab_size": 9}
    assert read_architecture(bloom).layers[0].feed_forward.width == 256
    mpt = {"model_type": "mpt", "d_model": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 9, "expansion_ratio": 4}
    assert read_architecture({**mpt, "attn_config": {"kv_n_heads": 2}}).layers[0].attention.kv_heads == 2
    neo = {
        "model_type": "gpt_neo",
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": 9,
        "window_size": 8,
    }
    found = read_architecture({**neo, "attention_layers": ["global", "local"]})
    assert [x.attention.window for x in found.layers] == [None, 8]
    assert (
        read_architecture({**LLAMA, "model_type": "mistral", "sliding_window": -1}).layers[0].attention.window is None
    )
    moe = {**LLAMA, "model_type": "deepseek_v2", "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
           "num_hidden_layers": 4, "moe_layer_freq": 2}  # fmt: skip
    assert [(x.count, isinstance(x.feed_forward, Experts)) for x in read_architecture(moe).layers] == [
        (2, True),
        (2, False),
    ]


def test_experts_after_dense_layers():
    config = {**LLAMA, "model_type": "glm4_moe", "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
              "n_shared_experts": 1, "first_k_dense_replace": 1}  # fmt: skip
    blocks = [x.feed_forward for x in read_architecture(config).layers]
    assert blocks[1] == Experts(routed=8, active=2, width=32, gated=True, shared_width=32)
    assert flops.feed_forward(blocks[1], 64) == 2 * (3 * 64 * (2 * 32 + 32) + 64 * 8)


def test_genai_width_comes_from_the_graph():
    plain = read_architecture({**LLAMA, "num_key_value_heads": 2, "max_position_embeddings": 32})
    decoder = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_size": 16,
    }
    matrices = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96) + 64 * 100
    genai = {"model": {"type": "llama", "vocab_size": 100, "context_length": 32, "decoder": decoder}}
    found = read_genai(genai, matrices, "genai_config.json")
    assert flops.count_flops(found, 32, 8) == flops.count_flops(plain, 32, 8)
    assert isinstance(read_genai(genai, matrices + 1, "genai_config.json"), Absent)
