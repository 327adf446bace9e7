"""edgecap flops: configs and graphs counted from the command line,
and every wrong request in one line.
"""

import json
import os
import subprocess
import sys

import pytest
from commands import edgecap
from conftest import REFERENCE, ROOT
from exports import exported

from edgecap.errors import UsageError
from edgecap.model.weight_files import count_parameters
from edgecap.parsing import parse_series

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
LLAMA["intermediate_size"] = 96


def config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**LLAMA, **changes}))
    return path


def test_a_config_as_file_folder_and_name(tmp_path):
    path = config(tmp_path)
    by_file = json.loads(edgecap("flops", "--config", path, "--json").stdout)
    by_folder = json.loads(edgecap("flops", "--config", tmp_path, "--json").stdout)
    assert by_file == by_folder
    assert by_file["token_flops"] == sum(by_file["token"].values())
    assert by_file["prefill_flops"] == sum(by_file["prefill"].values())
    reference = json.loads(edgecap("flops", "--config", "edgecap-ref-xs", "--json").stdout)
    assert reference["parameters"] == count_parameters(REFERENCE)
    shown = edgecap("flops", "--config", path).stdout
    assert "projections" in shown and "router" not in shown


def test_a_batch_multiplies_and_a_sweep_grows(tmp_path):
    path = config(tmp_path)
    words = ("flops", "--config", path, "--sweep", "context=128:8192:x4", "--json")
    one, four = (json.loads(edgecap(*words, "--batch", str(n)).stdout) for n in (1, 4))
    assert four["token_flops"] == 4 * one["token_flops"]
    assert four["weight_bytes"] == one["weight_bytes"]
    assert [g["context"] for g in one["sweep"]] == [128, 512, 2048, 8192]
    shares = [g["attention_share"] for g in one["sweep"]]
    assert shares == sorted(shares)
    overtaken = [g["context"] >= one["overtakes"] for g in one["sweep"]]
    assert overtaken == [share > 0.5 for share in shares]


def test_latent_attention_is_named_in_both_forms(tmp_path):
    latent = {
        "kv_lora_rank": 16,
        "q_lora_rank": None,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
    }
    path = config(tmp_path, model_type="deepseek_v3", **latent)
    shown = edgecap("flops", "--config", path).stdout
    assert "expanded" in shown and "absorbed" in shown
    found = json.loads(edgecap("flops", "--config", path, "--json").stdout)["latent"]
    assert found["absorbed_kv_numbers"] == 2 * (16 + 8)
    assert found["expanded_kv_numbers"] == 2 * 4 * (24 + 16)


def test_a_graph_and_its_config_agree(cache):
    folder = exported(REFERENCE, cache, ("fp32", "int4"))
    found = json.loads(
        edgecap("flops", "--onnx", folder, "--sequence", "1", "--past", "511", "--json").stdout
    )
    assert set(found) >= {"fp32", "int4"}
    sweep = ("--sweep", "context=512,1024", "--json")
    counted = json.loads(edgecap("flops", "--config", "edgecap-ref-xs", *sweep).stdout)["sweep"][0]
    for graph in found.values():
        assert graph["matrix_flops"] == counted["token_flops"]
        assert not graph["unknown"]
    assert found["int4"]["weight_bytes"] < found["fp32"]["weight_bytes"] / 3
    shown = edgecap("flops", "--onnx", folder / "fp32/model.onnx").stdout
    assert shown.count("MatMul") and "matrix FLOP" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "either --config or --onnx"),
        (("--config", "{config}", "--onnx", "{folder}"), "either --config or --onnx"),
        (("--config", "{config}", "--past", "3"), "--past belongs to --onnx"),
        (("--onnx", "{folder}", "--context", "3"), "--context belongs to --config"),
        (("--config", "{folder}/nothing.json"), "no model"),
        (("--config", "{broken}"), "cannot read"),
        (("--config", "{list}"), "not a JSON object"),
        (("--config", "{mamba}"), "model type 'mamba': it has recurrent or state-space layers"),
        (("--config", "{nested}"), "ssm_state says that this is not a plain decoder"),
        (("--config", "{config}", "--context", "0"), "x>=1"),
        (("--config", "{config}", "--batch", "-1"), "is not in the range"),
        (("--config", "{config}", "--sweep", "batch=1:4:x2"), "only the context can grow"),
        (("--config", "{config}", "--sweep", "context=8:4:x2"), "FIRST:LAST:xFACTOR"),
        (("--onnx", "{folder}"), "holds no .onnx file"),
        (("--onnx", "{folder}/nothing"), "is not there"),
        (("--onnx", "{broken}"), "is not an ONNX file"),
    ],
)
def test_wrong_requests_are_one_line(tmp_path, words, said):
    (tmp_path / "folder").mkdir()
    names = {"config": config(tmp_path), "folder": tmp_path / "folder"}
    nested = {"model_type": "fruit", "text_config": {**LLAMA, "ssm_state": 16}}
    mamba = {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 9}
    files = {"broken": "{", "list": "[1]", "mamba": json.dumps(mamba), "nested": json.dumps(nested)}
    for name, text in files.items():
        names[name] = tmp_path / f"{name}.json"
        names[name].write_text(text)
    found = edgecap("flops", *(w.format(**names) for w in words))
    assert (found.returncode, found.stdout) == (2, "")
    assert said in " ".join(found.stderr.split())
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("128", (128,)),
        ("512,128,128", (128, 512)),
        ("1:8:x2", (1, 2, 4, 8)),
        ("1:7:+3", (1, 4, 7)),
        ("2:9", (2, 4, 8)),
    ],
)
def test_steps(text, steps):
    assert parse_series(text) == steps


@pytest.mark.parametrize(
    "text", ["", "a", "1:2:3", "4:2", "1:9:x1", "1:9:+0", "0:4:x2", "1:99999999:+1", "1,,2"]
)
def test_steps_that_are_none(text):
    with pytest.raises(UsageError, match="write numbers as 1,4,16 or FIRST:LAST:xFACTOR"):
        parse_series(text)


def test_counting_a_config_loads_nothing_heavy(tmp_path):
    heavy = "{'torch', 'transformers', 'numpy', 'onnx', 'onnxruntime', 'huggingface_hub'}"
    code = (
        "import sys; from click.testing import CliRunner; from edgecap.cli.commands import cli;"
        f"done = CliRunner().invoke(cli, ['flops', '--config', {str(config(tmp_path))!r}]);"
        f"print(done.exit_code, *({heavy} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "0\n", done.stderr


def test_windows_keep_no_more_cache_than_they_see(tmp_path):
    """One layer in two sees 64 positions: at 1024 the cache is 1024 + 64 positions of a layer."""
    path = config(
        tmp_path,
        model_type="mistral",
        num_key_value_heads=4,
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention"],
    )
    found = json.loads(
        edgecap("flops", "--config", path, "--sweep", "context=32,1024", "--json").stdout
    )
    a_layer = 2 * 2 * 64  # keys and values of 64 numbers in fp16
    assert [g["kv_bytes"] for g in found["sweep"]] == [2 * 32 * a_layer, (1024 + 64) * a_layer]
    assert "while no window is full" in edgecap("flops", "--config", path).stdout


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000])
def test_deep_nesting_is_one_line(tmp_path, text):
    (tmp_path / "deep.json").write_text(text)
    for words in (("flops", "--config", tmp_path / "deep.json"), ("show", tmp_path / "deep.json")):
        found = edgecap(*words)
        assert found.returncode in (2, 3) and "Traceback" not in found.stderr


def test_help_shows_its_examples_a_line_each():
    assert "\n    edgecap flops --config" in edgecap("flops", "--help").stdout.replace(
        "\n  edgecap", "\n    edgecap"
    )
    assert "\\b" not in edgecap("flops", "--help").stdout
