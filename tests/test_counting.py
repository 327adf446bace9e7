"""architecture and flops: against published configs, PyTorch's own counter,
and impossible configs.
"""

import csv
import json
import subprocess
import sys
from contextlib import nullcontext, suppress

import msgspec
import pytest
from families import SMALL, small_config, torch_kit

from edgecap.errors import Uncountable, UsageError
from edgecap.model import flops
from edgecap.model.architecture import FAMILIES, read_architecture, read_genai
from edgecap.model.architecture.families import FIELDS, TEXT_TYPES
from edgecap.record import Absent, Architecture, Attention, Experts, FlopParts, Recurrent

TOKENS = 48
PARTS = FlopParts.__struct_fields__
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 100,
}
# Types have other defaults for these: a test of a type that is not Llama gives them.
SIZED = {**LLAMA, "num_key_value_heads": 4, "head_dim": 16}

# What flags of a config change.
FLAGGED = [
    ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("qwen3_moe", {"attention_bias": True, "mlp_only_layers": [0]}),
    ("qwen2_moe", {"qkv_bias": False, "decoder_sparse_step": 2}),
    ("deepseek_v3", {"attention_bias": True, "q_lora_rank": None}),
    ("deepseek_v2", {"attention_bias": True, "mlp_bias": True}),
    ("glm4_moe", {"attention_bias": True, "use_qk_norm": True}),
    ("stablelm", {"use_qkv_bias": True, "use_parallel_residual": True, "qk_layernorm": True}),
    ("cohere", {"attention_bias": True, "use_qk_norm": True}),
    ("phi", {"qk_layernorm": True}),
    ("phimoe", {"lm_head_bias": True, "attention_bias": True}),
    ("falcon", {"bias": True, "new_decoder_architecture": True, "num_kv_heads": 2}),
    ("falcon", {"parallel_attn": False, "multi_query": False, "alibi": True}),
    ("opt", {"do_layer_norm_before": True, "enable_bias": False, "word_embed_proj_dim": 64}),
    ("starcoder2", {"use_bias": False}),
    ("seed_oss", {"attention_bias": False, "attention_out_bias": True, "mlp_bias": True}),
    ("gpt_neox", {"attention_bias": False, "tie_word_embeddings": True}),
    ("gpt_bigcode", {"multi_query": False}),
    ("gpt2", {"n_inner": 90}),
    ("ernie4_5", {"use_bias": True}),
    ("nemotron", {"attention_bias": True, "mlp_bias": True}),
    ("gemma3n_text", {"attention_bias": True, "intermediate_size": 97}),
]
# Of the release that is tested with: some are remote code, others came with transformers 5.
NOT_IN_TRANSFORMERS = {"internlm", "internlm2", "internlm3", "qwen3_5_text", "qwen3_5_moe_text"}
# Llama 4 multiplies every token with every expert, in PyTorch; what counts is those it needs.
ALL_EXPERTS_RUN = {"llama4_text"}


def plain(config):
    """The config as a file has it."""
    return json.loads(config.to_json_string(use_diff=False))


def build(transformers, config):
    """The class without values: stablelm's initialisation fails where its norms have no bias."""
    with transformers.modeling_utils.no_init_weights():
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation="eager"
        ).eval()
    model.tie_weights()
    return model


def count_in_pytorch(torch, transformers, config, fake):
    """FLOPs of a prefill by PyTorch's counter, without the rotary angles (a product of
    positions and frequencies).
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    with FakeTensorMode() if fake else nullcontext():
        model = build(transformers, config)
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros((1, TOKENS), dtype=torch.long))
    by_module = counter.get_flop_counts()
    rotary = [sum(n.values()) for name, n in by_module.items() if "rotary" in name]
    return counter.get_total_flops() - sum(rotary)


def idle_experts(model):
    blocks = [
        (x.count, x.feed_forward) for x in model.layers if isinstance(x.feed_forward, Experts)
    ]
    return sum(n * 2 * 3 * model.hidden * b.width * (b.routed - b.active) for n, b in blocks)


def test_published_configs(shared):
    rows = list(csv.DictReader((shared / "expected/flops/flops.csv").read_text().splitlines()))
    assert len(rows) == 30
    for row in rows:
        config = json.loads((shared / "expected/flops" / row["model"] / "config.json").read_text())
        found = flops.count_flops(read_architecture(config), 1024, 512)
        p = found.parts
        assert found.per_token == pytest.approx(float(row["flops_per_token"]), rel=1e-6), row[
            "model"
        ]
        assert p.mlp + p.router + p.experts == pytest.approx(float(row["mlp"]), rel=1e-6), row[
            "model"
        ]
        for part in ("projections", "attention_core", "lm_head"):
            assert getattr(p, part) == pytest.approx(float(row[part]), rel=1e-6), (
                row["model"],
                part,
            )


def test_every_family_is_tried():
    assert set(SMALL) == set(FAMILIES) - NOT_IN_TRANSFORMERS


TRIED = [*(pytest.param(kind, {}, id=kind) for kind in SMALL)]
TRIED += [
    pytest.param(kind, changes, id=f"{kind}-{'-'.join(changes)}") for kind, changes in FLAGGED
]
# The defaults of the class, nothing changed.
DEFAULTS_OF_CLASSES = [pytest.param(kind, None, id=f"{kind}-as-it-is") for kind in SMALL]


@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "changes"), TRIED)
def test_work_agrees_with_pytorch(kind, changes):
    with torch_kit() as (torch, transformers):
        config = small_config(transformers, kind, **changes)
        found = read_architecture(plain(config))
        mixed = any(isinstance(x.feed_forward, Experts) for x in found.layers)
        theirs = count_in_pytorch(torch, transformers, config, fake=not mixed)
    ours = flops.executed_prefill(found, TOKENS)
    ours += TOKENS * idle_experts(found) if kind in ALL_EXPERTS_RUN else 0
    assert not found.assumed
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "changes"), TRIED)
def test_numbers_agree_with_pytorch(kind, changes):
    with torch_kit() as (torch, transformers):
        config = small_config(transformers, kind, **changes)
        with torch.device(
            "cpu" if kind == "apertus" else "meta"
        ):  # apertus cannot be built without values
            theirs = sum(p.numel() for p in build(transformers, config).parameters())
    assert flops.parameters(read_architecture(plain(config))).total == theirs


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["Llama-3.1-70B", "Qwen2.5-72B", "gemma-3-12b-pt"])
def test_big_configs_agree_with_pytorch(name, shared):
    with torch_kit() as (torch, transformers):
        folder = shared / "expected/flops" / name
        config = transformers.AutoConfig.from_pretrained(folder)
        theirs = count_in_pytorch(torch, transformers, config, fake=True)
    ours = flops.executed_prefill(
        read_architecture(json.loads((folder / "config.json").read_text())), TOKENS
    )
    assert ours == pytest.approx(theirs, rel=1e-6)


# --- positions, forms, bytes ------------------------------------------------------------------


def read(**changes):
    return read_architecture({**SIZED, **changes})


LATENT_LLAMA = {"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 10, "v_head_dim": 12}
HYBRID = {"model_type": "qwen3_next", "num_hidden_layers": 4, "linear_num_key_heads": 2,
          "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 6,
          "linear_conv_kernel_dim": 4}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model_type": "mistral", "sliding_window": 7},
        {"model_type": "gemma2", "sliding_window": 7},
        {"model_type": "llama4_text", "attention_chunk_size": 5, "num_hidden_layers": 4},
        LATENT_LLAMA,
        HYBRID,
    ],
)
@pytest.mark.parametrize("absorbed", [False, True])
@pytest.mark.parametrize("context", [1, 5, 23])
def test_positions_average_to_the_mean_token(changes, absorbed, context):
    model = read(**changes)
    each = [flops.token_parts_at(model, i, absorbed) for i in range(1, context + 1)]
    mean = flops.token_parts(model, context, absorbed=absorbed)
    for part in PARTS:
        assert sum(getattr(p, part) for p in each) / context == pytest.approx(
            getattr(mean, part), rel=1e-12
        )


def test_mean_positions():
    assert flops.mean_positions(1024, None) == 512.5
    assert flops.mean_positions(4, 2) == (1 + 2 + 2 + 2) / 4
    assert flops.mean_positions(4, 100) == 2.5
    assert flops.mean_positions(7, None, 3) == (1 + 2 + 3 + 1 + 2 + 3 + 1) / 7


def test_latent_attention_has_two_forms():
    model = read(**LATENT_LLAMA)
    expanded, absorbed = (
        flops.count_flops(model, 100, 8),
        flops.count_flops(model, 100, 8, absorbed=True),
    )
    assert (expanded.latent_form, absorbed.latent_form) == ("expanded", "absorbed")
    assert flops.count_flops(read(), 100, 8, absorbed=True).latent_form is None
    assert expanded.parts.projections == absorbed.parts.projections
    assert expanded.parts.attention_core == 2 * 2 * 4 * (18 + 12) * 50.5
    assert absorbed.parts.attention_core == 2 * 2 * 4 * (16 + 8 + 16) * 50.5
    assert expanded.prefill == absorbed.prefill
    assert flops.kv_bytes_per_token(model) == 2 * 2 * 4 * (18 + 12)
    assert flops.kv_bytes_per_token(model, 1.0, absorbed=True) == 2 * (16 + 8)


def test_recurrent_layers_keep_a_state_and_no_cache():
    model = read(**HYBRID)
    state = Recurrent(key_heads=2, value_heads=4, key_dim=8, value_dim=6, kernel=4)
    assert [(x.count, x.attention) for x in model.layers] == [
        (3, state),
        (1, Attention(heads=4, kv_heads=4, head_dim=16, value_dim=16, gated=True)),
    ]
    assert flops.kv_bytes_per_token(model) == 2 * 4 * (16 + 16)
    assert flops.state_bytes(model, 4.0) == 3 * 4 * (4 * 8 * 6 + 4 * (2 * 2 * 8 + 4 * 6))
    grown = (
        flops.token_parts_at(model, 100).attention_core
        - flops.token_parts_at(model, 99).attention_core
    )
    assert grown == 2 * 4 * 32


@pytest.mark.oracle
def test_layers_that_share_a_cache():
    with torch_kit() as (_, transformers):
        model = read_architecture(plain(small_config(transformers, "gemma3n_text")))
    assert [x.attention.shares_cache for x in model.layers] == [False, False, True, True]
    assert flops.kv_bytes_per_token(model) == 2 * 2 * 2 * (24 + 24)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["llama", "deepseek_v3", "gemma3n_text", "gpt_neox", "qwen3_next"])
def test_bytes_kept_agree_with_transformers(kind):
    with torch_kit() as (torch, transformers):
        config = small_config(transformers, kind)
        cache = build(transformers, config)(
            torch.zeros((1, TOKENS), dtype=torch.long), use_cache=True
        ).past_key_values
        keys = (
            cache.key_cache + cache.value_cache
            if kind == "qwen3_next"
            else [t for x in cache.layers for t in (x.keys, x.values)]
        )
        states = cache.conv_states + cache.recurrent_states if kind == "qwen3_next" else []
        kept, state = (
            sum(t.numel() for t in tensors if t is not None) for tensors in (keys, states)
        )
    model = read_architecture(plain(config))
    assert TOKENS * flops.kv_bytes_per_token(model, 1.0) == kept
    assert flops.state_bytes(model, 1.0) == state


def test_the_published_count_leaves_the_own_position_out():
    model = read()
    core = 2 * 2 * 4 * 32
    assert flops.count_flops(model, 64, 8).per_token - flops.published_flops(model, 64) == core
    assert (
        flops.published_flops(model, 64)
        == flops.count_flops(model, 64, 8, own_position=False).per_token
    )


@pytest.mark.parametrize("limit", [999, 700, 130])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model_type": "mistral", "sliding_window": 3},
        {"model_type": "gemma2", "sliding_window": 300},
        {"model_type": "llama4_text", "attention_chunk_size": 50, "num_hidden_layers": 4},
        {"model_type": "llama4_text", "attention_chunk_size": 500, "num_hidden_layers": 4},
    ],
)
def test_where_attention_overtakes_the_weights(changes, limit):
    model = read(**changes)
    slow = (
        i
        for i in range(1, limit + 1)
        if 2 * (p := flops.token_parts_at(model, i)).attention_core > flops.total(p)
    )
    assert flops.crossover_context(model, limit) == next(slow, None)


def test_bytes_of_weights():
    model = read(
        tie_word_embeddings=True
    )  # 64 wide, 2 layers, 96 feed-forward, 100 tokens; 5 norms
    matrices = 2 * (4 * 64 * 64 + 3 * 64 * 96) + 64 * 100
    vectors, columns = 5 * 64, 2 * (4 * 64 + 2 * 96 + 64) + 100
    assert flops.parameters(model) == (matrices + vectors, matrices + vectors, 6400)
    assert flops.weight_bytes(model, "fp32") == 4 * (matrices + vectors)
    assert flops.weight_bytes(model, "fp16") == 2 * matrices + 4 * vectors
    assert flops.weight_bytes(model, "int8") == matrices * 34 / 32 + 4 * vectors
    layers = matrices - 6400
    int4 = layers * 5.65 / 8 + 6400 * 21 / 32 + 4 * vectors
    assert flops.weight_bytes(model, "int4") == pytest.approx(int4, abs=8)
    assert flops.weight_bytes(model, "int8d") == matrices + 4 * columns + 4 * vectors
    assert flops.weight_bytes(model, "int4b32") == matrices / 2 + matrices / 8 + 4 * vectors
    assert flops.weight_bytes(read(), "fp32") == 4 * (matrices + vectors + 6400)


def test_idle_experts_are_not_active():
    model = read(num_local_experts=6, num_experts_per_tok=2)
    found = flops.parameters(model)
    assert found.total - found.active == 2 * 4 * 3 * 64 * 96
    parts = flops.token_parts(model, 8)
    assert (parts.mlp, parts.router, parts.experts) == (0, 2 * 2 * 64 * 6, 2 * 2 * 2 * 3 * 64 * 96)


def test_counting_a_big_model_is_light(shared):
    path = shared / "expected/flops/Llama-3.1-70B/config.json"
    script = f"""import json, sys
from edgecap.model import flops
from edgecap.model.architecture import read_architecture
model = read_architecture(json.load(open({str(path)!r})))
flops.count_flops(model, 1024, 512), flops.parameters(model)
flops.crossover_context(model), flops.weight_bytes(model, "int4")
print(*sys.modules)"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "numpy", "onnx", "onnxruntime"} & set(run.stdout.split())


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": None}, "no field hidden_size"),
        ({"hidden_size": None, "vocab_size": None}, "no field hidden_size .*, vocab_size"),
        ({"intermediate_size": None}, "no field intermediate_size"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": 3}, "num_attention_heads is 3.* no multiple of 3 attention heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3.* no multiple of 3 key-value heads"),
        ({"vocab_size": -5}, "vocab_size is -5"),
        ({"vocab_size": 1e5}, "vocab_size is 100000.0"),
        ({"vocab_size": [7]}, r"vocab_size is \[7\]"),
        ({"vocab_size": 10**4000}, "vocab_size is about 10\\^"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000, more than any model has"),
        ({"intermediate_size": "many"}, "intermediate_size is 'many'"),
        ({"intermediate_size": [96]}, "intermediate_size is a list of 1 values for 2 layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        (
            {"num_local_experts": 4, "num_experts_per_tok": 5},
            "num_experts_per_tok is 5: 5 active experts of 4",
        ),
        ({"num_local_experts": 4}, "no field num_experts_per_tok"),
        ({"kv_lora_rank": 16}, "latent attention without"),
        (
            {"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 10, "v_head_dim": "x"},
            "v_head_dim is 'x'",
        ),
        ({"layer_types": ["full_attention"]}, "list of layer types"),
        ({"layer_types": ["mamba"] * 2}, "layer 0 is of type 'mamba'"),
        ({**HYBRID, "linear_num_key_heads": None}, "no field linear_num_key_heads"),
        ({**HYBRID, "linear_num_key_heads": 3}, "linear_num_value_heads 4 is no multiple of"),
        ({"sliding_window": "abc"}, "sliding_window is 'abc'"),
        ({"sliding_window": True}, "sliding_window is True"),
        ({"mlp_only_layers": 3, "num_experts": 4}, "mlp_only_layers is 3"),
        ({"model_type": "mpt", "attn_config": 3}, "attn_config is 3"),
        (
            {
                "model_type": "smollm3",
                "use_sliding_window": True,
                "num_key_value_heads": 4,
                "no_rope_layers": [1],
            },
            "no_rope_layers has 1 values",
        ),
        ({"attn_layer_period": 4}, "attn_layer_period says"),
        ({"mamba_d_state": 16}, "mamba_d_state says"),
        ({"ffn_config": {"ffn_type": "mptglu"}}, "ffn_type mptglu"),
        ({"model_type": "bert"}, "an encoder"),
        (
            {"model_type": "banana", "architectures": ["BananaForMaskedLM"]},
            "'banana' is not a causal language model",
        ),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
    ],
)
def test_impossible_configs_are_refused(change, words):
    with pytest.raises(UsageError, match=words) as caught:
        read_architecture({**LLAMA, **change})
    assert len(str(caught.value)) < 300


def test_no_config_at_all():
    with pytest.raises(UsageError, match="not an object"):
        read_architecture([])


@pytest.mark.parametrize("named", [{"architectures": ["BananaForCausalLM"]}, {}])
def test_unknown_type_with_standard_fields_is_assumed(named):
    found = read_architecture({**LLAMA, "model_type": "banana", **named})
    assert found.assumed
    assert flops.count_flops(found, 8, 8) == flops.count_flops(read_architecture(LLAMA), 8, 8)


def test_names_do_not_matter():
    """The same fields under another known, equally built type count the same."""
    counts = {
        t: flops.count_flops(read_architecture({**SIZED, "model_type": t}), 16, 16).per_token
        for t in ("llama", "qwen2", "glm4")
    }
    assert len(set(counts.values())) == 1
    assert "llama" in FAMILIES


def test_windows_and_nested_text_config():
    inner = {
        **SIZED,
        "model_type": "gemma3_text",
        "sliding_window": 8,
        "num_hidden_layers": 6,
        "head_dim": 16,
    }
    found = read_architecture({"model_type": "gemma3", "text_config": inner})
    assert {(x.count, x.attention.window) for x in found.layers} == {(5, 8), (1, None)}
    assert found.tied
    assert not read_architecture(
        {"model_type": "gemma3", "tie_word_embeddings": False, "text_config": inner}
    ).tied


def test_kinds_of_layers_where_no_list_says_them():
    """Published files that are older than the list of layer types."""
    six = {"num_hidden_layers": 6, "sliding_window": 8}

    def windows(**changes):
        return [(x.count, x.attention.window) for x in read(**six, **changes).layers]

    assert windows(model_type="gemma2") == windows(model_type="gpt_oss") == [(3, 8), (3, None)]
    assert windows(model_type="cohere2") == [(5, 8), (1, None)]
    assert windows(model_type="cohere2", sliding_window_pattern=3) == [(4, 8), (2, None)]
    assert windows(model_type="qwen2", use_sliding_window=True, max_window_layers=4) == [
        (4, None),
        (2, 8),
    ]
    assert windows(model_type="qwen2") == windows() == [(6, None)]
    chunks = read(model_type="llama4_text", num_hidden_layers=8, attention_chunk_size=5)
    assert [(x.count, x.attention.chunk) for x in chunks.layers] == [(6, 5), (2, None)]


def test_llama4_alternates():
    moe = {
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 2,
        "intermediate_size_mlp": 80,
    }
    dense, sparse = (
        x.feed_forward for x in read(model_type="llama4_text", attention_chunk_size=9, **moe).layers
    )
    assert dense.width == 80
    assert sparse == Experts(routed=4, active=1, width=96, gated=True, shared_width=96)


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
        read_architecture({**falcon, "new_decoder_architecture": True, "num_kv_heads": 2})
        .layers[0]
        .attention.kv_heads
        == 2
    )
    bloom = {
        "model_type": "bloom",
        "n_embed": 64,
        "n_layer": 2,
        "num_attention_heads": 4,
        "vocab_size": 9,
    }
    assert read_architecture(bloom).layers[0].feed_forward.width == 256
    mpt = {
        "model_type": "mpt",
        "d_model": 64,
        "n_layers": 2,
        "n_heads": 4,
        "vocab_size": 9,
        "expansion_ratio": 4,
    }
    assert (
        read_architecture({**mpt, "attn_config": {"kv_n_heads": 2}}).layers[0].attention.kv_heads
        == 2
    )
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
        read_architecture({**SIZED, "model_type": "mistral", "sliding_window": -1})
        .layers[0]
        .attention.window
        is None
    )
    moe = {**SIZED, "model_type": "deepseek_v2", "n_routed_experts": 4, "num_experts_per_tok": 2,
           "moe_intermediate_size": 8, "num_hidden_layers": 4, "moe_layer_freq": 2}  # fmt: skip
    assert [
        (x.count, isinstance(x.feed_forward, Experts)) for x in read_architecture(moe).layers
    ] == [
        (2, True),
        (2, False),
    ]


def test_experts_after_dense_layers():
    config = {**SIZED, "model_type": "glm4_moe", "n_routed_experts": 8, "num_experts_per_tok": 2,
              "moe_intermediate_size": 32, "n_shared_experts": 1,
              "first_k_dense_replace": 1}  # fmt: skip
    blocks = [x.feed_forward for x in read_architecture(config).layers]
    assert blocks[1] == Experts(routed=8, active=2, width=32, gated=True, shared_width=32)
    parts = flops.token_parts(read_architecture(config), 8)
    assert (parts.mlp, parts.router, parts.experts) == (
        2 * 3 * 64 * 96,
        2 * 64 * 8,
        2 * 3 * 64 * (2 * 32 + 32),
    )


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
    genai = {
        "model": {"type": "llama", "vocab_size": 100, "context_length": 32, "decoder": decoder}
    }
    found = read_genai(genai, matrices, "genai_config.json")
    assert flops.count_flops(found, 32, 8) == flops.count_flops(plain, 32, 8)
    assert isinstance(read_genai(genai, matrices + 1, "genai_config.json"), Absent)


# --- defaults left out, and both dialects ------------------------------------------------------

# The default of a class that is none, or that a model cannot be built with.
NOT_COMPLETE = {
    "deepseek_v2": "no field",  # num_experts_per_tok; the releases differ in vocab_size
    "glm4_moe": "no multiple of 96",
    "granitemoehybrid": "no field layer_types",
}


def counted_alike(model):
    """The architecture with the one field filled in that counts the same if it is left out."""
    return msgspec.structs.replace(model, embedding_dim=model.embedding_dim or model.hidden)


@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "changes"), [*TRIED, *DEFAULTS_OF_CLASSES])
def test_a_config_may_leave_out_what_its_type_says(kind, changes):
    with torch_kit() as (_, transformers):
        given = {} if changes is None else {**SMALL[kind], **changes}
        config = transformers.AutoConfig.for_model(kind, **given)
        full, saved = plain(config), json.loads(config.to_json_string(use_diff=True))
    if changes is None and kind in NOT_COMPLETE:
        for fields in (full, minimal(kind, full, given)):
            with pytest.raises(UsageError, match=f"{NOT_COMPLETE[kind]}|no field"):
                read_architecture(fields)
        return
    expected = counted_alike(read_architecture(full))
    assert counted_alike(read_architecture(saved)) == expected
    assert counted_alike(read_architecture(minimal(kind, full, given))) == expected


def minimal(kind, full, given):
    """The type, its width and depth, and what is not the default."""
    shape = [n for field in ("hidden", "layers") for n in FIELDS[field] if n in full]
    return {"model_type": kind, **{n: full[n] for n in shape}, **given}


@pytest.mark.oracle
def test_the_language_model_of_several_has_the_type_that_transformers_gives_it():
    with torch_kit() as (_, transformers):
        known = transformers.models.auto.configuration_auto.CONFIG_MAPPING
        for outer, inner in TEXT_TYPES.items():
            if outer in known:
                config = known[outer](text_config={"hidden_size": 64})
                assert config.text_config.model_type == inner, outer


GEMMA_12B = {"hidden_size": 3840, "intermediate_size": 15360, "num_attention_heads": 16,
             "num_hidden_layers": 48, "num_key_value_heads": 8, "sliding_window": 1024}  # fmt: skip


@pytest.mark.parametrize("named", [{"model_type": "gemma3_text"}, {}])
def test_a_nested_config_has_the_defaults_of_its_type(named):
    """gemma-3-12b-it leaves out the sizes of heads and of the vocabulary."""
    found = read_architecture({"model_type": "gemma3", "text_config": {**GEMMA_12B, **named}})
    assert (found.vocabulary, found.positions, found.tied) == (262208, 131072, True)
    heads = Attention(heads=16, kv_heads=8, head_dim=256, value_dim=256, window=1024)
    assert [(x.count, x.attention) for x in found.layers] == [
        (40, heads),
        (8, msgspec.structs.replace(heads, window=None)),
    ]
    assert flops.parameters(found).total == 11_766_034_176


def test_other_nested_configs_take_theirs():
    llava = read_architecture({"model_type": "llava", "text_config": {"vocab_size": 32064}})
    assert (llava.hidden, llava.depth, llava.layers[0].feed_forward.width) == (4096, 32, 11008)
    moe = {"hidden_size": 1024, "num_hidden_layers": 4, "vocab_size": 9}
    found = read_architecture({"model_type": "qwen3_5_moe", "text_config": moe})
    assert found.layers[1].attention.head_dim == 256
    assert found.layers[0].attention == Recurrent(
        key_heads=16, value_heads=32, key_dim=128, value_dim=128, kernel=4
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "fruit", "text_config": {**LLAMA, "model_type": "banana"}}, "head_dim"),
        ({"model_type": "gemma3", "text_config": {**GEMMA_12B, "head_dim": None}}, "is null"),
        ({**LLAMA, "model_type": "olmoe", "head_dim": 24}, "head_dim is 24, but"),
        ({**LLAMA, "model_type": "mixtral", "num_key_value_heads": 4, "num_local_experts": None},
         "num_local_experts is null"),
        ({**LLAMA, "model_type": "internlm2", "vocab_size": None}, "no field vocab_size"),
        ({"model_type": "llama", "num_hidden_layers": 2}, "no field hidden_size"),
        ({"model_type": "gpt2", "n_embd": 64}, "no field num_hidden_layers"),
    ],
)  # fmt: skip
def test_no_default_is_guessed(config, words):
    with pytest.raises(Uncountable, match=words):
        read_architecture(config)


def test_a_null_flag_is_false():
    """As in transformers: GLM has biases unless its config says otherwise."""
    glm = {**SIZED, "model_type": "glm", "attention_bias": None}
    assert read_architecture(glm) == read_architecture({**glm, "attention_bias": False})
    assert read_architecture(glm) != read_architecture({**SIZED, "model_type": "glm"})


def test_a_dense_member_of_a_hybrid_family():
    """granite-4.0-350m: all layers are attention, and the shared expert is the feed-forward."""
    dense = {"model_type": "granitemoehybrid", "hidden_size": 1024, "num_hidden_layers": 28,
             "num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 2000,
             "shared_intermediate_size": 2048, "num_local_experts": 0, "vocab_size": 100352,
             "tie_word_embeddings": True, "mamba_d_state": 256, "mamba_n_heads": 32}  # fmt: skip
    found = read_architecture({**dense, "layer_types": ["attention"] * 28})
    assert [(x.count, x.feed_forward.width) for x in found.layers] == [(28, 2048)]
    assert flops.parameters(found).total == 352_379_904
    for kinds in (["attention"] * 27 + ["mamba"], ["full_attention", "linear_attention"] * 14):
        with pytest.raises(Uncountable, match="layer (27|1) is of type '(mamba|linear_attention)'"):
            read_architecture({**dense, "layer_types": kinds})
    with pytest.raises(Uncountable, match="no field layer_types"):
        read_architecture(dense)


ROPE = {"rope_theta": 1e6, "rope_type": "default"}
# What transformers 4.57 and 5.24 save for the same model.
DIALECTS = {
    "gemma3_text": (
        {"sliding_window": 8, "num_hidden_layers": 6, "rope_theta": 1e6, "torch_dtype": "float16"},
        {"sliding_window": 8, "num_hidden_layers": 6, "dtype": "float16",
         "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
         "rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    ),
    "qwen3_moe": (
        {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 31},
        {"num_local_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 31,
         "mlp_only_layers": [], "sliding_window": None, "rope_parameters": ROPE},
    ),
    "qwen2_moe": (
        {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 31},
        {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 31,
         "sliding_window": 0, "layer_types": ["full_attention"] * 2, "rope_parameters": ROPE},
    ),
    "deepseek_v3": (
        {"num_experts_per_tok": 2, "n_routed_experts": 6, "rope_scaling": None},
        {"num_experts_per_tok": 2, "n_routed_experts": 6, "head_dim": 64, "num_local_experts": 6,
         "mlp_layer_types": ["dense", "dense"], "rope_parameters": ROPE},
    ),
    "gpt_neo": (
        {"attention_layers": ["global", "local"], "attention_types": [[["global", "local"], 1]]},
        {"attention_layers": None, "attention_types": [[["global", "local"], 1]]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DIALECTS)
def test_both_dialects_count_the_same(kind):
    old, new = (
        read_architecture({**SIZED, "model_type": kind, **fields}) for fields in DIALECTS[kind]
    )
    assert old == new


def test_a_list_says_which_feed_forward_is_sparse():
    moe = {"num_local_experts": 6, "num_experts_per_tok": 2}
    blocks = read(**moe, mlp_layer_types=["dense", "sparse"]).layers
    assert [isinstance(x.feed_forward, Experts) for x in blocks] == [False, True]
    with pytest.raises(Uncountable, match="mlp_layer_types does not say if layer 1"):
        read(**moe, mlp_layer_types=["dense", "hash"])


# --- other layers than softmax attention -------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        *("mamba", "mamba2", "falcon_mamba", "jamba", "bamba", "zamba", "zamba2", "rwkv"),
        *("rwkv7", "recurrent_gemma", "nemotron_h", "lfm2", "minimax", "kimi_linear"),
        *("falcon_h1", "plamo2", "hgrn", "retnet", "xlstm", "diffllama", "my_mamba"),
        "GatedDeltaNet",
    ],
)  # fmt: skip
@pytest.mark.parametrize("outer", [None, "fruit"])
def test_recurrent_types_are_refused(kind, outer):
    config = {**SIZED, "model_type": kind}
    with pytest.raises(Uncountable, match=f"model type '{kind}'"):
        read_architecture(config if outer is None else {"model_type": outer, "text_config": config})


@pytest.mark.parametrize(
    "telltale",
    [
        {"layer_types": ["full_attention", "conv"]},
        {"layer_types": ["linear_attention", "full_attention"]},
        {"mamba_expand": 2},
        {"ssm_state_size": 16},
        {"state_size": 16},
        {"attn_layer_period": 2},
        {"attn_layer_offset": 1},
        {"linear_attn_config": {"num_heads": 4}},
        {"linear_num_heads": 4, "linear_backend": "fla"},
        {"conv_L_cache": 3},
        {"use_short_conv": True},
        {"hybrid_override_pattern": "M*"},
        {"block_types": ["recurrent", "attention"]},
        {"rwkv_version": 7},
        {"layers_block_type": ["mamba", "attention"]},
        {"attn_type_list": [0, 1]},
        {"use_mamba_kernels": True},
        {"lightning_attention": True},
        {"attention_type": "linear"},
        {"token_mixer": "hyena"},
        {"num_heads_per_layer": [2, 4]},
        {"width_of_blocks": [2, 4]},
        {"num_loops": 4},
        {"moe_num_primary_experts": 4},
        {"architectures": ["MyRwkvForCausalLM"]},
        {"hidden_act": "relu2"},
        {"sliding_window": 8},
        {"v_head_dim": 8},
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_telltale_fields_are_refused(telltale, nested):
    config = {**SIZED, "model_type": "banana", **telltale}
    with pytest.raises(Uncountable):
        read_architecture({"model_type": "fruit", "text_config": config} if nested else config)


def test_fields_that_say_nothing_are_passed_over():
    harmless = {"mamba_d_state": None, "conv_kernel": 0, "use_mamba_kernels": False,
                "rope_scaling": {"type": "linear", "factor": 2.0}, "attention_type": "full",
                "block_types": [], "hidden_act": "silu", "output_router_logits": True,
                "sliding_window": 8, "use_sliding_window": False,
                "quantization_config": {"ssm": 1}}  # fmt: skip
    assert read_architecture({**SIZED, "model_type": "banana", **harmless}).assumed


@pytest.mark.oracle
def test_every_causal_type_of_transformers_counts_right_or_is_refused():
    """Types that are counted by their usual fields alone: their matrices are all found."""
    with torch_kit() as (torch, transformers):
        auto = transformers.models.auto
        for kind, name in auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
            found = assumed(transformers, kind, name)
            if found is None:
                continue
            with torch.device("meta"):
                model = build(transformers, transformers.AutoConfig.for_model(kind))
            numbers = sum(p.numel() for p in model.parameters())
            assert flops.parameters(found).total == pytest.approx(numbers, rel=1e-4), kind


def assumed(transformers, kind, name):
    """The architecture of a type's default config, if only its usual fields say it."""
    if kind in CANNOT_BE_BUILT:
        return None
    with suppress(UsageError, ValueError):
        config = {**plain(transformers.AutoConfig.for_model(kind)), "architectures": [str(name)]}
        found = read_architecture(config)
        return found if found.assumed else None
    return None


# Their default configs lack sizes, or need other packages.
CANNOT_BE_BUILT = {"emu3", "hunyuan_v1_dense", "hunyuan_v1_moe", "phi4_multimodal"}


# --- genai_config.json -------------------------------------------------------------------------


def genai(kind="llama", decoder=(), **parts):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 4, "head_size": 16, **dict(decoder)}  # fmt: skip
    return {"model": {"type": kind, "vocab_size": 100, "decoder": sizes, **parts}}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (genai(vision={"filename": "vision.onnx"}), "a part 'vision' beside the decoder"),
        (genai(embedding={"filename": "embedding.onnx"}), "a part 'embedding' beside"),
        (genai("whisper", encoder={"hidden_size": 64}), "a part 'encoder' beside"),
        (genai(decoder={"pipeline": [{}]}), "split into several graphs"),
        (genai("gptoss"), "differ, or have experts"),
        (genai("qwen3moe"), "differ, or have experts"),
        (genai("gemma3"), "differ, or have experts"),
        (genai("lfm2"), "recurrent or state-space layers"),
        (genai("nemotronh"), "recurrent or state-space layers"),
        (genai(decoder={"inputs": {"past_conv_names": "past_conv.%d"}}), "keeps a state"),
        (genai(decoder={"hidden_size": None}), "no field hidden_size"),
        ({"model": []}, "no field hidden_size"),
    ],
)
def test_genai_models_with_other_layers_are_not_counted(config, words):
    matrices = 2 * (4 * 64 * 64 + 3 * 64 * 96) + 64 * 100
    assert isinstance(read_genai(genai(), matrices, "genai_config.json"), Architecture)
    found = read_genai(config, matrices, "genai_config.json")
    assert isinstance(found, Absent) and words in found.reason
