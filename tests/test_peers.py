"""benchmarks/peers.py: divergences, moved scales, layouts of llama.cpp, tables, one small run."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, build_model

sys.path.append(str(ROOT / "benchmarks"))

from peers.gguf_files import join_pairs
from peers.hf_folder import read_config, read_weights, write_weights
from peers.making import Contestant, Formats
from peers.merging import UNDATED, merge
from peers.moved_scales import move_scales
from peers.quality import divergences
from peers.real_model import BLOCK, Q4_1_BYTES, split_halves, within_steps
from peers.table import contestants_table, kept_line, targets_table
from peers.verdicts import fixed_rows

from edgecap.errors import UsageError

SCRIPT = ROOT / "benchmarks" / "peers.py"
_spec = importlib.util.spec_from_file_location("peers_script", SCRIPT)  # `peers` is the package
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)
RECORD = {
    "files": {"edgecap fp32": 400, "edgecap int8": 100, "llama.cpp Q8_0": 101},
    "quality": {
        "of": {
            "edgecap fp32": {"kl": -1e-9, "kl_back": -1e-9, "bits_per_byte": 1.0},
            "edgecap int8": {"kl": 0.013, "kl_back": 0.012, "bits_per_byte": 1.01},
            "llama.cpp Q8_0": {"kl": 0.01, "kl_back": 0.01, "bits_per_byte": 1.01},
        }
    },
}


# --- numbers ----------------------------------------------------------------------------------


def test_divergences_of_both_directions():
    p, q = np.array([[0.5, 0.5], [1, 1e-12]]), np.array([[0.25, 0.75], [0.5, 0.5]])
    there, back = divergences(np.log2(p), np.log2(q))
    assert there == pytest.approx(0.5 * np.log2(2) + 0.5 * np.log2(2 / 3) + 1)
    assert back == pytest.approx((q * np.log2(q / p)).sum())
    assert divergences(np.log2(p), np.log2(p)).tolist() == [0, 0]


def test_noise_stays_within_the_step_of_its_block():
    blocks = np.zeros((2, Q4_1_BYTES), np.uint8)
    blocks[:, :2] = np.array([[0.5], [0.001]], np.float16).view(np.uint8).reshape(2, 2)
    blocks[:, 2:4] = 77  # the minimum is no step
    noise = np.abs(within_steps(blocks, np.random.default_rng(0)))
    assert noise.shape == (2, BLOCK)
    assert 0.1 < noise[0].max() <= 0.25 and 0.0002 < noise[1].max() <= 0.000501


def test_rows_of_rotations_are_joined_and_split():
    rows = np.arange(12.0)[:, None] * [1, 1]  # two heads of six rows
    assert join_pairs(rows, 2)[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert np.array_equal(split_halves(join_pairs(rows, 2), 2), rows)


# --- models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_moved_scales_leave_the_function(tied, tmp_path):
    """Heads in groups of two, norms that are not 1, with a head of its own and without."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = build_model(tmp_path / "model", tie_word_embeddings=tied)
    arrays, config = read_weights(folder), read_config(folder)
    rng = np.random.default_rng(1)
    for name in [n for n in arrays if "norm" in n]:
        arrays[name] = rng.uniform(0.5, 2, arrays[name].shape).astype(np.float32)
    other = move_scales(arrays, config, seed=3)
    kept = {n for n in arrays if np.array_equal(arrays[n], other[n])}
    assert kept == {"model.embed_tokens.weight"} | ({"model.norm.weight"} if tied else set())
    answers = []
    for weights in (arrays, other):
        write_weights(folder, weights, tmp_path / "new")
        model = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "new", dtype=torch.float64
        )
        with torch.no_grad():
            answers.append(model(torch.arange(3, 40)[None]).logits.numpy())
    assert np.abs(answers[0]).max() > 0.1
    assert np.abs(answers[0] - answers[1]).max() < 1e-5 * np.abs(answers[0]).max()


@pytest.mark.parametrize("change", [{"model_type": "qwen2"}, {"attention_bias": True}])
def test_only_plain_llamas_are_compared(change, tmp_path):
    config = {"model_type": "llama", "num_attention_heads": 2, **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="no plain Llama"):
        read_config(tmp_path)


def test_contestants_of_equal_bits_are_neighbours(tmp_path):
    edgecap, llama = ("fp32", "fp16", "int8w", "int4b32"), ("F16", "Q8_0", "Q4_K_M")
    formats = Formats(edgecap, llama, ("k_quant",), {"Olive": str(tmp_path)})
    for name in (*edgecap, "builder-k_quant"):
        (tmp_path / name).mkdir()
    (tmp_path / "gguf-F16-Q8_0-Q4_K_M").mkdir()
    for kind in ("F16", "Q4_K_M"):  # Q8_0 was not made
        (tmp_path / "gguf-F16-Q8_0-Q4_K_M" / f"{kind}.gguf").write_bytes(b"12345")
    listed = formats.contestants(tmp_path, tmp_path)
    assert [c.name.split()[-1] for c in listed] == [
        *("fp32", "fp16", "F16", "int8w", "int4b32", "k_quant", "Olive", "Q4_K_M")
    ]
    assert listed[-1].bytes == 5


def test_bytes_are_those_of_graph_and_weights(tmp_path):
    for name, size in (("model.onnx", 3), ("model.onnx.data", 40), ("tokenizer.json", 500)):
        (tmp_path / name).write_bytes(b"." * size)
    assert Contestant("builder rtn", "ort", str(tmp_path)).bytes == 43


# --- tables -----------------------------------------------------------------------------------


def test_a_table_has_the_columns_that_were_measured():
    lines = contestants_table(RECORD).splitlines()
    assert lines[0] == "|  | MB | KL | KL back | bits/byte |"
    assert lines[2] == "| edgecap fp32 | 0.0 | 0.0000 | 0.0000 | 1.0000 |"  # not -0.0000
    timed = {**RECORD, "seconds": {"decode 512": {"edgecap int8": [0.003, 0.001, 0.002]}}}
    assert "| decode |" in contestants_table(timed)
    assert contestants_table(timed).splitlines()[3].endswith("| 1.0100 | 2.00 |")


def test_targets_on_bits_bytes_and_memory():
    peaks = {"edgecap int8": {"peak_bytes": 300e6, "load_s": 1}}
    lines = targets_table({**RECORD, "footprints": peaks}).splitlines()[2:]
    assert lines == [
        "| kl: int8 / llama.cpp Q8_0 | 1.30 |  | at most 1.2 | not met |",
        "| bytes: int8 / llama.cpp Q8_0 | 0.99 |  | at most 1.05 | met |",
        "| memory: int8 / 1.2 x file + 150 MB | 2.00 |  | below 1 | not met |",
    ]
    assert fixed_rows({"edgecap int8": {"bytes": 1}}) == []


# --- merging with earlier runs ----------------------------------------------------------------


def timed(run, rounds, *names, **others):
    """A record of one run that measured times of some contestants."""
    return {
        "run": run,
        "plan": {"threads": 2},
        "versions": {"onnx": run},
        "files": {name: RECORD["files"][name] for name in names},
        "footprints": {name: {"peak_bytes": 1e8} for name in names},
        "settings": {name: {"decode": run} for name in names if name.startswith("llama")},
        "agreements": [{"name": name, "verdict": run} for name in names],
        "seconds": {"decode 512": {name: rounds for name in names}},
        **others,
    }


OWN, PEER = ("edgecap fp32", "edgecap int8"), "llama.cpp Q8_0"


def test_times_of_contestants_that_were_not_run_are_kept_with_their_run():
    merged = merge(timed("May", [3.0, 4.0], *OWN, PEER), timed("June", [1.0], *OWN))
    assert merged["seconds"]["decode 512"] == {**dict.fromkeys(OWN, [1.0]), PEER: [3.0, 4.0]}
    assert list(merged["footprints"]) == [*OWN, PEER] and merged["settings"][PEER]
    assert [(a["name"], a["verdict"]) for a in merged["agreements"]] == [
        *((name, "June") for name in OWN),
        (PEER, "May"),
    ]
    assert merged["run"] == "June" and merged["kept"] == {"times": {PEER: "May"}}
    assert merged["runs"] == {"May": {"onnx": "May"}}
    assert kept_line(merged) == f"Kept from times of May: {PEER}"
    again = merge(merged, timed("July", [2.0], OWN[0]))
    assert again["kept"] == {"times": {OWN[1]: "June", PEER: "May"}}
    assert again["runs"] == {"May": {"onnx": "May"}, "June": {"onnx": "June"}}
    whole = merge(again, timed("August", [2.0], *OWN, PEER))
    assert whole == timed("August", [2.0], *OWN, PEER)


def test_no_ratio_of_times_is_made_across_runs():
    """Rounds of two runs are no pairs, and may differ in number."""
    both = timed("May", [3.0, 4.0], *OWN, PEER)
    assert "decode 512: int8 / llama.cpp Q8_0" in targets_table(both)
    merged = merge(both, timed("June", [1.0], *OWN))
    assert "decode 512" not in targets_table(merged)
    assert "decode 512: int8 / llama.cpp Q8_0" in targets_table(
        merge(both, timed("June", [1.0], OWN[0]))
    )


@pytest.mark.parametrize("change", [{"plan": {"threads": 4}}, {"machine": {"cpu": "another"}}])
def test_times_of_another_plan_or_machine_are_left_out_and_named(change, tmp_path, capsys):
    path = tmp_path / "r.json"
    script._write(timed("May", [3.0], *OWN, PEER), path)
    assert capsys.readouterr().out == ""
    script._write(timed("June", [1.0], *OWN, **change), path)
    assert json.loads(path.read_text())["seconds"] == {"decode 512": dict.fromkeys(OWN, [1.0])}
    assert PEER in capsys.readouterr().out


@pytest.mark.parametrize("before", [{}, {"files": {"edgecap fp32": 400}, "quality": {"of": {}}}])
def test_keys_that_the_earlier_record_has_not_are_no_error(before):
    quality = {"documents": 2, "new": 1, "of": {"edgecap fp32": {"kl": 0.0}}}
    merged = merge(before, {"files": {"edgecap fp32": 400}, "quality": quality})
    assert merged["quality"] == quality


def test_quality_on_the_same_sample_is_kept_when_the_record_has_new_keys():
    sample, files = {"documents": 2}, RECORD["files"]
    before = {"files": files, "quality": {**sample, "of": RECORD["quality"]["of"]}}
    now = {"files": files, "quality": {**sample, "new": 1, "of": {"edgecap fp32": {"kl": 0.5}}}}
    merged = merge(before, now)
    assert merged["quality"]["of"] == {**before["quality"]["of"], "edgecap fp32": {"kl": 0.5}}
    assert merged["quality"]["new"] == 1
    assert merged["kept"] == {"quality": dict.fromkeys((OWN[1], PEER), UNDATED)}
    now["quality"]["documents"] = 3
    assert merge(before, now)["quality"] == now["quality"]


def test_moved_scales_of_another_seed_are_not_mixed():
    moved = {"documents": 2, "of": {OWN[0]: {"kl": 0.0}, OWN[1]: {"kl": 0.1}}}
    before = {"files": RECORD["files"], "moved_seed": 1, "moved_quality": moved}
    now = {**before, "moved_quality": {**moved, "of": {OWN[0]: {"kl": 0.0}}}}
    assert set(merge(before, now)["moved_quality"]["of"]) == set(OWN)
    assert set(merge(before, {**now, "moved_seed": 2})["moved_quality"]["of"]) == {OWN[0]}


def test_a_part_that_was_not_run_keeps_its_numbers(tmp_path):
    path, times = tmp_path / "r.json", {"files": RECORD["files"], "seconds": {"decode 512": {}}}
    script._write(RECORD, path)
    script._write(times, path)
    kept = {"quality": dict.fromkeys(RECORD["files"], UNDATED)}
    assert json.loads(path.read_text()) == {**RECORD, **times, "kept": kept}


def test_a_contestant_whose_file_has_another_size_keeps_nothing():
    smaller = {**RECORD["files"], "edgecap int8": 90}
    kept = merge(RECORD, {"files": smaller})
    assert kept["files"] == smaller
    assert set(kept["quality"]["of"]) == {"edgecap fp32", "llama.cpp Q8_0"}
    assert merge(RECORD, {"files": {"edgecap fp32": 7}}) == {"files": {"edgecap fp32": 7}}


@pytest.mark.export
def test_a_run_on_the_smallest_model(tmp_path):
    words = ["--model", "edgecap-ref-xs", "--variants", "int8w", "--llama", "", "--builder", ""]
    words += ["--documents", "2", "--rounds", "1", "--context", "300"]
    out = tmp_path / "r.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words, "--work", str(tmp_path), "--json", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads(out.read_text())
    exact, close = (record["quality"]["of"][f"edgecap {n}"] for n in ("fp32", "int8w"))
    assert abs(exact["kl"]) < 1e-6 and 1e-4 < close["kl"] < 0.01
    assert close["kl_back"] == pytest.approx(close["kl"], rel=0.3)
    assert exact["bits_per_byte"] == pytest.approx(close["bits_per_byte"], abs=0.01)
    peak = record["footprints"]["edgecap int8w"]["peak_bytes"]
    assert 5e7 < peak < 1e9 and "| edgecap int8w |" in done.stdout
