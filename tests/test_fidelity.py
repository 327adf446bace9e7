"""The exported graph is the model of the folder: its weights, its config, what transformers
computes from them.
"""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import REFERENCE, SMALL, build_model
from exports import exported, once
from families import BASE, torch_kit
from safetensors.numpy import load_file, save_file

from edgecap.errors import UsageError
from edgecap.graph.export import TASK, dialect, framework
from edgecap.graph.export.dialect import readable_folder, translate_config
from edgecap.meters import fidelity
from edgecap.meters.fidelity import DECODING, LONG, SHORT, PartDistance, Passage, PassageLogits
from edgecap.model.manifest import listed_graphs
from edgecap.pipeline.profile import profile
from edgecap.pipeline.worker import BuiltGraph, Export, ignore_progress, in_child
from edgecap.pipeline.worker import fidelity as checking
from edgecap.record import SCHEMA, Absent, Graph
from edgecap.report.data import fidelity_notes
from edgecap.spec import Spec
from edgecap.storage.files import resolve_paths
from edgecap.storage.records import load, save

DATA = Path(__file__).parent / "data"
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
ANGLES = 8
FACTORS = {"short_factor": [1.0] * ANGLES, "long_factor": [1.0 + i for i in range(ANGLES)]}


# --- distance ---------------------------------------------------------------------------------


class Logits:
    """An engine that gives fixed logits, in bits, and repeats the last row while decoding."""

    def __init__(self, rows):
        self.rows = np.asarray(rows, np.float64)

    def log_probabilities(self, inputs, last=None):
        return self.rows[-(last or len(self.rows)) :] / math.log(2)

    def log_probabilities_after(self, past, ids):
        return [self.rows[-1:] / math.log(2) for _ in ids]


def asked(part, rows, **more):
    rows = np.asarray(rows, np.float32)
    return PassageLogits(Passage(part, np.arange(len(rows)), **more), rows)


def test_the_distance_of_equal_logits_is_zero_and_of_known_ones_known():
    rows = [[math.log(3), 0.0], [0.0, 0.0]]
    answer = asked(SHORT, rows)
    assert fidelity.distance_by_part([answer], Logits(rows))[SHORT].bits == pytest.approx(
        0, abs=1e-12
    )
    swapped = [[0.0, math.log(3)], [0.0, 0.0]]
    expected = (0.75 - 0.25) * math.log2(3) / 2  # of two rows, the second is equal
    found = fidelity.distance_by_part([answer], Logits(swapped))[SHORT].bits
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_constant_in_all_logits_changes_nothing():
    rows = np.random.default_rng(1).normal(size=(3, 7))
    found = fidelity.distance_by_part([asked(LONG, rows)], Logits(rows + 5.0))
    assert found[LONG].bits < 1e-12


def test_flat_predictions_are_compared_sharpened_too():
    rows = np.random.default_rng(1).normal(size=(3, 50)) * 1e-4
    other = rows * 1.05
    found = fidelity.distance_by_part([asked(SHORT, rows)], Logits(other))[SHORT]
    assert found.bits < 1e-10 < 1e-4 < found.sharpened
    with pytest.raises(UsageError, match="short text .* sharpened"):
        fidelity.check_fidelity({SHORT: found}, "optimum")


def test_a_graph_that_answers_nan_is_refused():
    rows = np.zeros((2, 4))
    found = fidelity.distance_by_part([asked(SHORT, rows)], Logits(rows * np.nan))
    with pytest.raises(UsageError, match="short text inf"):
        fidelity.check_fidelity(found, "optimum")


def test_a_refusal_says_where_graph_and_model_part():
    parts = {SHORT: PartDistance(1e-9, 1e-9), LONG: PartDistance(0.25, 0.25)}
    with pytest.raises(UsageError) as caught:
        fidelity.check_fidelity({**parts, DECODING: PartDistance(0.5, 0.5)}, "genai")
    message = str(caught.value)
    assert "long text 0.25, decoding 0.5 (short text agree); try --exporter optimum" in message
    assert "\n" not in message
    fidelity.check_fidelity({SHORT: PartDistance(9e-5, 9e-5)}, "optimum")


@pytest.mark.parametrize(
    ("windows", "original", "positions", "expected"),
    [
        ((), None, None, 256),
        ((), None, 100, 100),
        ((512,), None, 4096, 640),
        ((512, 1024), None, 1100, 1100),
        ((), 4096, 131072, 8192),
        ((2048,), 4096, 6000, 6000),
    ],
)
def test_long_text_passes_every_window_and_twice_the_original_length(
    windows, original, positions, expected
):
    assert fidelity.long_length(windows, original, positions) == expected


def test_short_text_ends_before_the_model_changes():
    stream = np.arange(500)
    assert {len(p.ids) for p in fidelity.short_passages(stream, 32, True)} == {32, 16}
    assert {p.part for p in fidelity.short_passages(stream, 32, False)} == {SHORT}
    decoded = fidelity.long_passages(stream, 600, True)[-1]
    assert (len(decoded.ids), len(decoded.decoded)) == (592, 8)


# --- configs of transformers 5 ------------------------------------------------------------------


def both(kind, old, rope, **shared):
    """Return a config as transformers 4 saves it, and as transformers 5 does."""
    return {"model_type": kind, **shared, **old}, {
        "model_type": kind, **shared, "rope_parameters": rope}  # fmt: skip


LLAMA3_ROPE = {"rope_theta": 5e5, **LLAMA3}
LONG_ROPE = {"rope_type": "longrope", "original_max_position_embeddings": 64, **FACTORS}
PAIRS = {
    "llama": both("llama", {"rope_theta": 5e5}, {"rope_theta": 5e5, "rope_type": "default"}),
    "llama3": both("llama", {"rope_theta": 5e5, "rope_scaling": LLAMA3}, LLAMA3_ROPE),
    "yarn": both(
        "qwen3",
        {"rope_theta": 1e6, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0},
    ),
    "gpt_neox": both(
        "gpt_neox",
        {"rotary_emb_base": 20000, "rotary_pct": 0.5},
        {"rope_theta": 20000, "partial_rotary_factor": 0.5, "rope_type": "default"},
    ),
    "glm": both(
        "glm",
        {"rope_theta": 2e4, "partial_rotary_factor": 0.25},
        {"rope_theta": 2e4, "partial_rotary_factor": 0.25, "rope_type": "default"},
    ),
    "phi3": both(
        "phi3",
        {"rope_theta": 1e4, "original_max_position_embeddings": 64,
         "rope_scaling": {"type": "longrope", **FACTORS}},
        {"rope_theta": 1e4, "partial_rotary_factor": 1.0, **LONG_ROPE},
        hidden_size=64, num_attention_heads=4, head_dim=16,
    ),
    "gemma3": both(
        "gemma3_text",
        {"rope_theta": 3e5, "rope_local_base_freq": 2e4,
         "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"full_attention": {"rope_theta": 3e5, "rope_type": "linear", "factor": 8.0},
         "sliding_attention": {"rope_theta": 2e4, "rope_type": "default"}},
    ),
    "modernbert": both(
        "modernbert",
        {"global_rope_theta": 3e5, "local_rope_theta": 2e4},
        {"full_attention": {"rope_theta": 3e5, "rope_type": "default"},
         "sliding_attention": {"rope_theta": 2e4, "rope_type": "default"}},
    ),
}  # fmt: skip
READ = ("rope_theta", "rope_scaling", "rope_local_base_freq", "partial_rotary_factor", "rotary_pct",
        "rotary_emb_base", "original_max_position_embeddings", "global_rope_theta",
        "local_rope_theta", "global_attn_every_n_layers", "num_experts")  # fmt: skip


def as_read(config):
    """Return what the installed transformers makes of a config."""
    with torch_kit() as (_, transformers):
        config = dict(config)
        read = transformers.AutoConfig.for_model(config.pop("model_type"), **config)
    return {name: getattr(read, name, None) for name in READ}


@pytest.mark.parametrize("name", PAIRS)
def test_both_dialects_are_read_alike(name):
    old, new = PAIRS[name]
    assert as_read(translate_config(new)) == as_read(old)
    assert translate_config(old) == old


def test_a_nested_config_of_text_and_renamed_fields_are_translated():
    new = {"model_type": "gemma3", "text_config": PAIRS["gemma3"][1]}
    assert translate_config(new)["text_config"]["rope_local_base_freq"] == 2e4
    experts = translate_config({"model_type": "qwen3_moe", "num_local_experts": 6})
    assert experts["num_experts"] == 6
    layers = ["full_attention", "sliding_attention", "sliding_attention"] * 2
    bert = translate_config({"model_type": "modernbert", "layer_types": layers})
    assert bert["global_attn_every_n_layers"] == 3


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "rope_parameters": {
            "full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}},
        {"model_type": "gemma3_text", "rope_parameters": {
            "full_attention": {"rope_theta": 1e6}, "chunked_attention": {"rope_theta": 1e4}}},
        {"model_type": "gemma3_text", "rope_parameters": {
            "full_attention": {"rope_theta": 1e6},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}}},
        {"model_type": "gptj", "rope_parameters": {"rope_theta": 5e5}},
        {"model_type": "llama", "rope_parameters": [1e4]},
        {"model_type": "llama", "rope_parameters": {"rope_type": "default"}},
        {"model_type": "llama", "rope_parameters": {"rope_theta": "10000"}},
        {"model_type": "llama", "rope_parameters": {"rope_theta": 1e4, "rope_type": "foo"}},
        {"model_type": "gemma", "use_bidirectional_attention": True},
        {"model_type": "gpt_oss", "swiglu_limit": 9.0},
        {"model_type": "qwen2_moe", "layer_types": ["full_attention", "sliding_attention"]},
        {"model_type": "modernbert", "layer_types": ["sliding_attention", "full_attention"]},
        {"model_type": "gemma3", "text_config": {
            "model_type": "gemma3_text", "rope_parameters": {"other": {"rope_theta": 1.0}}}},
    ],
)  # fmt: skip
def test_what_the_installed_transformers_does_not_read_is_refused(config):
    with pytest.raises(UsageError, match=r"does not\s+read that for model type '\w+'"):
        translate_config(config)


@pytest.mark.parametrize(
    "old", [{"rope_theta": 1e4}, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}]
)
def test_two_dialects_in_one_config_must_agree(old):
    new = {"model_type": "llama", "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}
    with pytest.raises(UsageError, match="beside other values in rope_parameters"):
        translate_config({**new, **old})
    assert translate_config({**new, "rope_theta": 5e5})["rope_theta"] == 5e5
    empty = {"model_type": "llama", "rope_parameters": {}, **old}
    assert translate_config(empty) == {"model_type": "llama", **old}


def test_messages_name_the_folder_of_the_user(tmp_path):
    config = json.loads((REFERENCE / "config.json").read_text())
    del config["rope_theta"], config["rope_scaling"]
    config["rope_parameters"] = {"rope_theta": 5e5, "rope_type": "default"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError) as caught, readable_folder(tmp_path) as folder:
        framework.load_model(folder, TASK, False)
    assert f"in {tmp_path}: " in str(caught.value) and "edgecap-config" not in str(caught.value)


def test_a_folder_of_the_other_dialect_is_read_through_links(tmp_path):
    shutil.copytree(REFERENCE, tmp_path / "model")
    config = json.loads((REFERENCE / "config.json").read_text())
    del config["rope_theta"], config["rope_scaling"]
    config["rope_parameters"] = {"rope_theta": 5e5, "rope_type": "default"}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    with readable_folder(tmp_path / "model") as folder:
        assert json.loads((folder / "config.json").read_text())["rope_theta"] == 5e5
        model = framework.load_model(folder, TASK, False)
        assert model.config.rope_theta == 5e5
    assert not folder.exists()
    with readable_folder(REFERENCE) as folder:
        assert folder == REFERENCE


def test_transformers_5_reads_its_own_configs(monkeypatch):
    monkeypatch.setattr(dialect, "installed_major", lambda: 5)
    with readable_folder(REFERENCE) as folder:
        assert folder == REFERENCE


# --- weights --------------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path):
    """A copy of the reference model, and its weights."""
    folder = tmp_path / "model"
    shutil.copytree(REFERENCE, folder)
    return folder, load_file(folder / "model.safetensors")


def rewrite(folder, weights, **config):
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, **config}))


def refusal(folder, task=TASK):
    with pytest.raises(UsageError) as caught:
        framework.load_model(folder, task, False)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_renamed_weights_are_refused_with_their_prefix(copied):
    folder, weights = copied
    rewrite(folder, {f"_orig_mod.{name}": w for name, w in weights.items()})
    message = refusal(folder)
    assert f"lacks {len(weights)} weights" in message and "prefix '_orig_mod.'" in message
    assert "first model.embed_tokens.weight" in message


def test_a_lost_weight_is_refused_by_name(copied):
    folder, weights = copied
    del weights["model.layers.2.mlp.down_proj.weight"]
    rewrite(folder, weights)
    message = refusal(folder)
    assert "lacks 1 weight " in message and "model.layers.2.mlp.down_proj.weight" in message


def test_a_model_without_a_language_head_is_refused(copied):
    folder, weights = copied
    rewrite(folder, weights, tie_word_embeddings=False)
    assert "first lm_head.weight" in refusal(folder)


def test_other_shapes_and_other_layers_are_refused(copied):
    folder, weights = copied
    rewrite(folder, weights, intermediate_size=300)
    assert "another shape than config.json says, first model.layers.0.mlp" in refusal(folder)
    rewrite(folder, weights, intermediate_size=352, num_hidden_layers=3)
    message = refusal(folder)
    assert "no place in the model" in message and "'model.layers.3.'" in message


def test_a_tied_head_need_not_be_saved(copied):
    folder, weights = copied
    assert "lm_head.weight" not in weights
    assert framework.load_model(folder, TASK, False).config.tie_word_embeddings
    rewrite(folder, {**weights, "lm_head.weight": weights["model.embed_tokens.weight"]})
    framework.load_model(folder, TASK, False)


def test_a_tied_head_must_equal_the_embedding(copied):
    folder, weights = copied
    head = weights["model.embed_tokens.weight"].copy()
    head[3, 5] += 1
    rewrite(folder, {**weights, "lm_head.weight": head})
    assert "tie_word_embeddings" in refusal(folder)
    del weights["model.embed_tokens.weight"]
    rewrite(folder, {**weights, "lm_head.weight": head})
    assert "first model.embed_tokens.weight" in refusal(folder)


def test_masks_of_old_checkpoints_are_no_weights(tmp_path):
    build_model(tmp_path / "model", "gpt2")
    weights = load_file(tmp_path / "model/model.safetensors")
    masks = {f"transformer.h.{i}.attn.{n}": np.ones((1, 1, 4, 4), np.float32)
             for i in range(2) for n in ("bias", "masked_bias", "causal_mask")}  # fmt: skip
    rewrite(tmp_path / "model", {**weights, **masks})
    framework.load_model(tmp_path / "model", TASK, False)


def test_names_are_checked_without_reading_numbers(copied):
    folder, weights = copied
    model = framework.load_model(folder, TASK, False, weights=False)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    del weights["model.norm.weight"]
    rewrite(folder, weights)
    with pytest.raises(UsageError, match="first model.norm.weight"):
        framework.load_model(folder, TASK, False, weights=False)


def test_pickles_are_not_loaded(copied):
    folder, _ = copied
    with torch_kit() as (torch, _):
        torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "transformers cannot load the model" in refusal(folder)


def test_an_encoder_may_hold_another_head_but_not_other_layers(tmp_path):
    fields = {k: BASE[k] for k in ("vocab_size", "hidden_size", "intermediate_size",
                                   "num_hidden_layers", "num_attention_heads")}  # fmt: skip
    with torch_kit() as (_, transformers):
        config = transformers.BertConfig(**fields)
        transformers.BertForTokenClassification(config).save_pretrained(tmp_path / "model")
    framework.load_model(tmp_path / "model", "feature-extraction", False)
    weights = load_file(tmp_path / "model/model.safetensors")
    rewrite(tmp_path / "model", weights, num_hidden_layers=1)
    assert "no place in the model" in refusal(tmp_path / "model", "feature-extraction")
    assert "lacks" in refusal(tmp_path / "model", "fill-mask")


# --- the graph --------------------------------------------------------------------------------


def export(folder, out, exporter="optimum", finish="fused"):
    out.mkdir()
    step = Export(
        folder=str(folder), out=str(out), trust_remote_code=False, exporter=exporter, task=TASK,
        finish=finish,
    )  # fmt: skip
    return in_child(step, ignore_progress, 600)


@pytest.fixture(scope="session")
def long_rope(cache):
    """Phi-3 style: other angles beyond an original length of 64."""
    changes = {"max_position_embeddings": 256, "original_max_position_embeddings": 64,
               "rope_scaling": {"type": "longrope", **FACTORS}, "pad_token_id": 0}  # fmt: skip
    SMALL["phi3"] = SMALL["llama"]
    return once(cache.parent / "models/long-rope", lambda f: build_model(f, "phi3", **changes))


def test_a_graph_that_keeps_the_short_angles_is_refused(long_rope, tmp_path):
    with pytest.raises(UsageError) as caught:
        export(long_rope, tmp_path / "out")
    message = str(caught.value)
    assert "long text" in message and "decoding" in message and "(short text agree)" in message


@pytest.mark.slow
def test_the_builder_keeps_both_sets_of_angles(long_rope, tmp_path):
    pytest.importorskip("onnxruntime_genai")
    built = export(long_rope, tmp_path / "out", "genai", "plain")
    assert isinstance(built, BuiltGraph) and built.fidelity_bits < 1e-9


@pytest.mark.slow
def test_a_builder_that_leaves_the_mean_out_of_norms_is_refused(cache, tmp_path):
    pytest.importorskip("onnxruntime_genai")
    SMALL["olmo"] = SMALL["llama"]
    folder = once(cache.parent / "models/olmo", lambda f: build_model(f, "olmo"))
    with pytest.raises(UsageError, match="that genai exported is not the model.*optimum"):
        export(folder, tmp_path / "out", "genai", "plain")


def test_soft_caps_of_attention_are_exported(cache, tmp_path):
    SMALL["gemma2"] = {**SMALL["llama"], "head_dim": 16, "sliding_window": 32}
    folder = once(
        cache.parent / "models/soft-caps",
        lambda f: build_model(f, "gemma2", attn_logit_softcapping=1.0, initializer_range=0.3),
    )
    built = export(folder, tmp_path / "out")
    assert isinstance(built, BuiltGraph) and built.fidelity_bits < 1e-9
    assert set(built.fidelity) == {SHORT, LONG, DECODING}


def test_weights_that_are_no_numbers_are_named_before_the_export():
    class Damaged:
        def logits(self, ids, last=None):
            return np.full((len(ids), 4), np.nan)

    with pytest.raises(UsageError, match="computes NaN or infinity"):
        fidelity.reference_answers(Damaged(), [Passage(SHORT, np.arange(3))])


class Flat:
    """A model of uniform predictions with a window that is long, and an original length."""

    vocabulary, heads = 16, 4
    limits = framework.LengthLimits(windows=(300,), original=600, positions=2000)

    def logits(self, ids, last=None):
        return np.zeros((last or len(ids), self.vocabulary))

    def logits_after(self, past, ids):
        return [np.zeros((1, self.vocabulary)) for _ in ids]


@pytest.mark.parametrize(
    ("memory", "absent"),
    [(1e9, set()), (2e7, {"beyond 600 positions"}),
     (4e6, {"beyond 300 positions", "beyond 600 positions"})],
)  # fmt: skip
def test_lengths_that_memory_does_not_reach_are_named(memory, absent, monkeypatch, tmp_path):
    monkeypatch.setattr(checking, "available_memory", lambda: memory)
    check = checking.FidelityCheck(tmp_path, "optimum", TASK)
    check.ask(Flat())
    monkeypatch.setattr(check, "_measure", lambda graph: {SHORT: PartDistance(1e-9, 1e-9)})
    (tmp_path / "model.onnx").touch()
    largest, parts = check.describe(check.measure(tmp_path / "model.onnx"))
    assert largest == 1e-9 and set(parts) == {SHORT} | absent
    assert all("positions need more memory" in parts[name].reason for name in absent)


def test_a_model_that_cannot_be_computed_is_not_compared(tmp_path):
    class Broken(Flat):
        def logits(self, ids, last=None):
            raise TypeError("unexpected keyword")

    check = checking.FidelityCheck(tmp_path, "optimum", TASK)
    check.ask(Broken())
    (tmp_path / "model.onnx").touch()
    largest, parts = check.describe(check.measure(tmp_path / "model.onnx"))
    assert "transformers does not compute it: unexpected keyword" in largest.reason and not parts


WRONG = """
import json, sys
from pathlib import Path
from edgecap.errors import UsageError
from edgecap.graph.export import optimum
from edgecap.pipeline.worker.handlers import handler_of
from edgecap.pipeline.worker.steps import Export
real, said = optimum.export_model, {}
for name, change in json.loads(sys.argv[1]).items():
    def wrong(model, out, task):
        exec(change)
        return real(model, out, task)
    optimum.export_model = wrong
    Path(name).mkdir()
    step = Export(folder=sys.argv[2], out=name, trust_remote_code=False, exporter="optimum",
                  task=sys.argv[3], finish="fused")
    try:
        handler_of(step)(step, lambda *progress: None)
    except UsageError as error:
        said[name] = str(error)
Path("said.json").write_text(json.dumps(said))
"""
CHANGES = {
    "norm": "model.model.norm.weight.data[:] *= 1.1",
    "window": "model.config.sliding_window = 8",
    "base": "model.model.rotary_emb.inv_freq[:] *= 0.9",
}


@pytest.mark.slow
def test_wrong_norms_windows_and_angles_are_caught(cache, tmp_path):
    """Exports that change the model on the way, one after another in a process of their own."""
    SMALL["mistral"] = {**SMALL["llama"], "head_dim": 16, "sliding_window": 48}
    folder = once(cache.parent / "models/mistral", lambda f: build_model(f, "mistral"))
    words = ["-W", "ignore", "-c", WRONG, json.dumps(CHANGES), str(folder), TASK]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads((tmp_path / "said.json").read_text())
    assert said.keys() == CHANGES.keys()
    assert all("is not the model" in message for message in said.values())


def test_a_portable_folder_keeps_the_distance(cache, tmp_path):
    graph = listed_graphs(exported(REFERENCE, cache, fused=True))[0]
    assert isinstance(graph.fidelity_bits, float) and graph.fidelity_bits < 1e-9
    assert set(graph.fidelity) == {SHORT, LONG, DECODING}


# --- the record -----------------------------------------------------------------------------------


def test_a_folder_without_the_models_weights_is_measured_by_no_command(copied, tmp_path):
    folder, weights = copied
    rewrite(folder, {f"x.{name}": w for name, w in weights.items()})
    home = resolve_paths(tmp_path / "cache", tmp_path / "profiles")
    with pytest.raises(UsageError, match="prefix 'x.'"):
        profile(Spec(model=str(folder), precisions=("int8",)), home)
    assert not (tmp_path / "profiles").exists()
    assert not list(tmp_path.glob("cache/exports/*/model.onnx"))


def test_the_record_has_the_distance_of_each_graph(tmp_path):
    record = load(DATA / f"record-{SCHEMA}.json")
    graph = record.cells[0].graph
    assert isinstance(graph, Graph) and isinstance(graph.fidelity_bits, Absent)
    assert "not compared" in fidelity_notes(record)[0]
    parts = {SHORT: 2e-12, "beyond 512 positions": Absent(reason="no memory")}
    cells = tuple(
        msgspec.structs.replace(c, graph=msgspec.structs.replace(
            c.graph, fidelity_bits=2e-12, fidelity=parts)) if isinstance(c.graph, Graph) else c
        for c in record.cells
    )  # fmt: skip
    changed = msgspec.structs.replace(record, cells=cells)
    save(changed, tmp_path / "r.json")
    assert load(tmp_path / "r.json") == changed
    assert fidelity_notes(changed) == [
        "2e-12 bits a token from the model in transformers in fp32 (short text 2e-12, beyond "
        "512 positions not compared: no memory)"
    ]
