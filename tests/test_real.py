"""Real models through real exports and the real runtime: graph, export, engine,
and the numbers they give.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import warnings

import msgspec
import numpy as np
import pytest
from commands import edgecap
from conftest import REFERENCE, SMALL, VARIANTS, heavy
from exports import built_by_genai, exported, small

from edgecap.errors import UsageError
from edgecap.graph.onnx_file import inspect_graph, open_graph, write_graph
from edgecap.graph.scoring import scoring_graph
from edgecap.graph.tied_weights import tie_weights, untie_weights
from edgecap.meters.text_windows import split_windows
from edgecap.model.weight_files import count_parameters
from edgecap.pipeline.export_folder import export_folder
from edgecap.pipeline.profile import profile
from edgecap.pipeline.worker.handlers.score import ON_CPU
from edgecap.record import Absent, Decode, Estimate, Failure, Measurement
from edgecap.runtime.engine import OrtEngine
from edgecap.spec import Spec
from edgecap.storage.files import list_files, resolve_paths
from edgecap.text.corpus import read_corpus
from edgecap.text.tokenizer import read_tokenizer


def open_engine(folder, scoring=False, vocabulary=8192):
    graph = folder / "model.onnx"
    return OrtEngine(
        graph, "cpu", 2, vocabulary=vocabulary, scoring=scoring_graph(graph) if scoring else None
    )


# --- export -----------------------------------------------------------------------------------


def test_tied_embeddings_are_stored_once(reference):
    """The reference model: 1.79 M parameters, tied included;
    the graph adds little to 4 bytes each.
    """
    weights = 4 * count_parameters(REFERENCE)
    assert (reference / "fp32/model.onnx").stat().st_size < 1.04 * weights
    assert (reference / "fp16/model.onnx").stat().st_size < 1.12 * weights / 2
    assert (reference / "int8/model.onnx").stat().st_size < 1.30 * weights / 4
    assert (reference / "int4/model.onnx").stat().st_size < 1.90 * weights / 8  # tables in 8 bits


def test_a_transposed_copy_is_found_and_tied(reference, tmp_path):
    model = open_graph(reference / "fp32/model.onnx")
    size = model.ByteSize()
    assert len(untie_weights(model)) == 1
    table = next(t for t in model.graph.initializer if list(t.dims) == [128, 8192])
    gathered = next(
        n
        for n in model.graph.node
        if n.op_type == "Gather" and len(n.input) == 2 and "embed" in n.input[0]
    )
    assert table
    assert gathered
    assert tie_weights(model) == 128 * 8192 * 4
    assert abs(model.ByteSize() - size) < 1000
    assert tie_weights(model) == 0


def test_weights_beyond_the_limit_go_beside_the_graph(reference, tmp_path, monkeypatch):
    from edgecap.graph import onnx_file

    model = open_graph(reference / "fp32/model.onnx")
    monkeypatch.setattr(onnx_file, "BESIDE", 1000)
    assert write_graph(model, tmp_path) == ["model.onnx", "model.onnx.data"]
    assert inspect_graph(tmp_path / "model.onnx").files == ("model.onnx", "model.onnx.data")
    ids = np.arange(1, 40)
    whole, beside = (
        open_engine(reference / "fp32", scoring=True),
        open_engine(tmp_path, scoring=True),
    )
    assert np.allclose(whole.nll(ids[:-1], ids[1:]), beside.nll(ids[:-1], ids[1:]), atol=1e-6)
    data = tmp_path / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(UsageError, match="cut short: 1000 bytes"):
        inspect_graph(tmp_path / "model.onnx")
    data.unlink()
    with pytest.raises(UsageError, match="model.onnx.data, which is missing"):
        inspect_graph(tmp_path / "model.onnx")


@pytest.mark.export
def test_no_code_from_a_model_folder_runs(tiny, tmp_path, cache):
    folder = tmp_path / "evil"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    for name in ("config.json", "tokenizer_config.json"):
        changed = {**json.loads((folder / name).read_text()), "auto_map": {
            "AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil",
            "AutoTokenizer": ["evil.Evil", None]}}  # fmt: skip
        (folder / name).write_text(json.dumps(changed))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').write('ran')\n")
    export_folder(
        Spec(model=str(folder), precisions=("fp32",)), tmp_path / "out", resolve_paths(cache)
    )
    assert not (tmp_path / "ran").exists()
    unknown = {
        **config,
        "model_type": "evil",
        "architectures": ["EvilForCausalLM"],
        "auto_map": {"AutoConfig": "evil.EvilConfig"},
    }
    (folder / "config.json").write_text(json.dumps(unknown))
    with pytest.raises(UsageError, match="transformers does not know"):
        export_folder(
            Spec(model=str(folder), precisions=("fp32",)), tmp_path / "out2", resolve_paths(cache)
        )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", heavy(SMALL, pytest.mark.export, core=("llama",)))
def test_every_kind_exports_and_all_variants_run(kind, cache):
    """Untied and tied heads, Gemm and MatMul, learned and rotary positions:
    each variant stays near fp32.
    """
    folder = exported(small(kind, cache), cache, VARIANTS)
    ids = np.random.default_rng(1).integers(1, 8192, 100)
    expected = open_engine(folder / "fp32").log_probabilities(ids)
    for precision, bits in (("fp16", 1e-4), ("int8", 1e-2), ("int4", 5e-2)):
        assert inspect_graph(folder / precision / "model.onnx").precision == precision
        found = open_engine(folder / precision).log_probabilities(ids)
        divergence = (np.exp2(expected) * (expected - found)).sum(axis=1).mean()
        assert 0 <= divergence < bits, (precision, divergence)


# --- engine -----------------------------------------------------------------------------------


def test_scoring_in_pieces_gives_the_same_bits(reference, monkeypatch):
    from edgecap.runtime import engine

    ids = np.random.default_rng(2).integers(1, 8192, 300)
    scorer = open_engine(reference / "fp32", scoring=True)
    whole = scorer.nll(ids[:-1], ids[1:])
    monkeypatch.setattr(engine, "MAX_SCORED_POSITIONS", 37)
    assert np.allclose(scorer.nll(ids[:-1], ids[1:]), whole, atol=1e-5)
    plain = open_engine(reference / "fp32").log_probabilities(ids[:-1])
    assert np.allclose(-plain[np.arange(299), ids[1:]], whole, atol=1e-4)


def test_decoding_is_prefill_one_by_one(reference):
    engine = open_engine(reference / "fp32")
    ids = np.random.default_rng(3).integers(1, 8192, 20)
    cache = engine.prefill(ids[:10])
    for token in ids[10:].tolist():
        cache = engine.decode(cache, token)
    whole = engine.prefill(ids)
    assert cache.length == whole.length == 20
    for name, value in whole.values.items():
        assert np.allclose(
            value.numpy()[:, :, :20], cache.values[name].numpy()[:, :, :20], atol=1e-4
        )
    assert engine.cache_bytes(whole) == 20 * 4 * 2 * 2 * 32 * 4


@pytest.mark.oracle
def test_bits_agree_with_transformers(cache, shared):
    """The exact protocol once more, in PyTorch with the transformers class, on the same windows."""
    texts = [d.text for d in read_corpus(str(shared / "data/eval/books.jsonl"), 3).documents]
    for model in (REFERENCE, shared / "models/stories260K"):
        ours, theirs = bits_by_edgecap(model, cache, texts), bits_by_transformers(model, texts)
        assert ours == pytest.approx(theirs, rel=1e-4)


def bits_by_edgecap(model, cache, texts):
    folder = exported(model, cache)
    tokenizer = read_tokenizer(model)
    scorer = open_engine(folder / "fp32", scoring=True, vocabulary=512)
    context = json.loads((model / "config.json").read_text())["max_position_embeddings"]
    found = [
        scorer.nll(w.inputs, w.targets).sum()
        for t in texts
        for w in split_windows(tokenizer.encode(t), tokenizer.start, context, 0)
    ]
    return sum(found) / sum(len(t.encode()) for t in texts)


def bits_by_transformers(model, texts):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(model)
        total, width = 0.0, network.config.max_position_embeddings - 1
        for text in texts:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            for begin in range(0, len(ids), width):
                row = torch.tensor([[tokenizer.bos_token_id, *ids[begin : begin + width]]])
                with torch.no_grad():
                    logits = network(row[:, :-1]).logits.double()
                total += torch.nn.functional.cross_entropy(
                    logits[0], row[0, 1:], reduction="sum"
                ).item()
    return total / math.log(2) / sum(len(t.encode()) for t in texts)


# --- the main job -----------------------------------------------------------------------------


def test_profile_of_a_portable_folder(reference, corpus_file, tmp_path, cache):
    spec = Spec(
        model=str(reference), corpus=str(corpus_file), precisions=("fp32", "int8"), limit_s=2
    )
    record = profile(spec, resolve_paths(cache, tmp_path / "profiles"))
    fp32, int8 = record.cells
    assert isinstance(fp32.outcome, Measurement)
    assert isinstance(int8.outcome, Measurement)
    assert fp32.graph.divergence_bits == 0.0
    assert 0 < int8.graph.divergence_bits < 0.05
    assert int8.outcome.compression.bits_per_byte == pytest.approx(
        fp32.outcome.compression.bits_per_byte, rel=0.02
    )
    assert fp32.outcome.memory.peak_bytes >= fp32.outcome.memory.baseline_bytes
    assert fp32.outcome.memory.kv_bytes_per_token == 4 * 2 * 2 * 32 * 4
    assert fp32.outcome.placement == ON_CPU
    assert record.source.parameters == 1787008


@pytest.mark.export
def test_profile_of_a_builder_folder(reference, corpus_file, tmp_path, cache):
    """onnxruntime-genai's builder: fused attention, no config.json, weights beside the graph."""
    spec = Spec(model=str(built_by_genai("fp32", cache)), corpus=str(corpus_file), limit_s=2)
    record = profile(spec, resolve_paths(cache, tmp_path / "profiles"))
    plain = profile(
        Spec(model=str(reference), corpus=str(corpus_file), precisions=("fp32",), limit_s=2),
        resolve_paths(cache, tmp_path / "profiles"),
    )
    (built,), (exported_cell,) = record.cells, plain.cells
    assert built.graph.exporter == "genai"
    assert built.outcome.compression.bits_per_byte == pytest.approx(
        exported_cell.outcome.compression.bits_per_byte, rel=1e-4
    )
    assert record.flops.per_token == plain.flops.per_token


@pytest.mark.export
def test_profile_of_an_optimum_folder(tiny, corpus_file, tmp_path, cache):
    """One model.onnx with a config: fp32 is found, int8 is made from it."""
    portable = exported(tiny, cache)
    folder = tmp_path / "optimum"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(portable / name, folder)
    shutil.copy(portable / "fp32/model.onnx", folder)
    spec = Spec(model=str(folder), corpus=str(corpus_file), precisions=("fp32", "int8"), limit_s=1)
    record = profile(spec, resolve_paths(cache, tmp_path / "profiles"))
    assert all(isinstance(c.outcome, Measurement) for c in record.cells)
    assert isinstance(record.source.parameters, Absent)


@pytest.mark.export
def test_a_model_that_cannot_be_counted_is_profiled(tiny, corpus_file, tmp_path, cache):
    """Its config tells of recurrent layers: FLOPs and capacity are absent, all others are there."""
    portable, folder = exported(tiny, cache), tmp_path / "uncounted"
    folder.mkdir()
    for name in ("fp32/model.onnx", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(portable / name, folder)
    config = json.loads((portable / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "my_mamba"}))
    spec = Spec(model=str(folder), corpus=str(corpus_file), limit_s=1)
    record = profile(spec, resolve_paths(cache, tmp_path / "profiles"))
    (cell,), (path,) = record.cells, (tmp_path / "profiles").glob("*.json")
    decoded = cell.outcome.latency.decode
    assert isinstance(decoded, Decode)
    assert decoded.context == pytest.approx(config["max_position_embeddings"] / 2, abs=1)
    assert "my_mamba" in record.flops.reason and record.source.architecture == record.flops
    assert cell.score.information_capacity == record.flops
    assert isinstance(cell.score.gain_bits_per_s, Estimate)
    for words in (("show", path), ("show", path, "--details"), ("compare", path, path),
                  ("recommend", path), ("report", path, "-o", tmp_path / "report.html"),
                  ("board", path, "-o", tmp_path / "board.html")):  # fmt: skip
        shown = edgecap(*words)
        assert shown.returncode == 0, shown.stderr
    refused = edgecap("predict", path, path, "--config", "edgecap-ref-xs")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr


@pytest.mark.export
def test_a_graph_without_cache_is_decoded_without(tiny, corpus_file, tmp_path, cache):
    """Optimum's plain text-generation export, in a folder without config: slow, and it says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from optimum.exporters.onnx import main_export

        main_export(str(tiny), tmp_path / "plain", task="text-generation", do_validation=False)
    (tmp_path / "plain/config.json").unlink()
    spec = Spec(model=str(tmp_path / "plain"), corpus=str(corpus_file), limit_s=1, context=64)
    (cell,) = profile(spec, resolve_paths(cache, tmp_path / "profiles")).cells
    assert isinstance(cell.outcome, Measurement), cell.outcome
    assert "no-kv-cache" in {c.code for c in cell.cautions}
    assert cell.score.information_capacity.reason == "the folder has no config.json"
    with_cache = profile(
        Spec(model=str(exported(tiny, cache)), corpus=str(corpus_file), limit_s=1, context=64),
        resolve_paths(cache, tmp_path / "profiles"),
    ).cells[0]
    assert cell.outcome.compression.bits_per_byte == pytest.approx(
        with_cache.outcome.compression.bits_per_byte, rel=1e-5
    )


def test_a_variant_that_answers_nonsense_is_a_failure(reference, corpus_file, tmp_path, cache):
    """fp16 weights overwritten with NaN: a Failure that says so, never a number."""
    folder = tmp_path / "nan"
    shutil.copytree(reference, folder)
    model = open_graph(folder / "fp16/model.onnx")
    largest = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    largest.raw_data = np.full(len(largest.raw_data) // 2, np.nan, np.float16).tobytes()
    write_graph(model, folder / "fp16")
    manifest = json.loads((folder / "edgecap.json").read_text())
    for graph in manifest["graphs"]:
        graph["files"] = [
            {"path": f.path, "bytes": f.bytes, "sha256": f.sha256}
            for f in list_files(folder / graph["precision"], ["model.onnx"])
        ]
    (folder / "edgecap.json").write_text(json.dumps(manifest))
    spec = Spec(model=str(folder), corpus=str(corpus_file), precisions=("fp16",), limit_s=1)
    (cell,) = profile(spec, resolve_paths(cache, tmp_path / "profiles")).cells
    assert isinstance(cell.outcome, Failure)
    assert (cell.outcome.stage, cell.outcome.error) == ("divergence", "Garbage")


def test_rotary_angles_stay_in_fp32(reference):
    """Position 1,000 times a frequency of 1 has an error of half a radian in fp16;
    predictions must not drift.
    """
    ids = np.random.default_rng(4).integers(1, 8192, 1000)
    full = open_engine(reference / "fp32").log_probabilities(ids)
    half = open_engine(reference / "fp16").log_probabilities(ids)
    by_position = (np.exp2(full) * (full - half)).sum(axis=1)
    assert by_position[-100:].mean() < 1e-3


POWERCAP = """
import sys, time
files = [open(p, "r+") for p in sys.argv[2:]]
started = time.time()
while True:
    for file in files:
        file.seek(0)
        microjoules = int((time.time() - started) * float(sys.argv[1]) * 1e6)
        file.write(f"{microjoules % 262143328850:012d}\\n")
        file.flush()
    time.sleep(0.001)
"""


@pytest.mark.slow
def test_joules_from_a_driven_powercap_tree(reference, corpus_file, tmp_path, cache, monkeypatch):
    """Another process lets package-0 and dram draw 10 W each, psys 50 W:
    the record says 20 W, nothing twice.
    """
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "psys",
    }
    for name, kind in zones.items():
        folder = tmp_path / "sys/class/powercap" / name
        folder.mkdir(parents=True)
        (folder / "name").write_text(kind)
        (folder / "max_energy_range_uj").write_text("262143328850")
        (folder / "energy_uj").write_text("000000000000\n")
    counted = [str(tmp_path / "sys/class/powercap" / z / "energy_uj") for z in zones]
    monkeypatch.setenv("EDGECAP_SYSFS", str(tmp_path / "sys"))
    driver = subprocess.Popen([sys.executable, "-c", POWERCAP, "10", *counted])
    try:
        spec = Spec(model=str(reference), corpus=str(corpus_file), precisions=("fp32",), limit_s=1)
        (cell,) = profile(spec, resolve_paths(cache, tmp_path / "profiles")).cells
    finally:
        driver.kill()
        driver.wait()
    energy = cell.outcome.energy
    assert sorted(energy.domains) == ["dram", "package-0"]
    assert (energy.counter, energy.provenance) == ("rapl", "counter")
    for window in (*energy.prefill, *energy.decode):
        assert window.joules == pytest.approx(20 * window.seconds, rel=0.02)
    assert cell.score.energy_capacity.value > 0
    assert cell.score.hardware_capacity.value > 0


# --- the scoring copy -------------------------------------------------------------------------


def test_weights_left_on_the_disk_are_the_same_weights(reference):
    import onnx

    from edgecap.graph.external_data import MIN_EXTERNAL_BYTES, parse_without_weights

    path = reference / "fp32/model.onnx"
    lean, whole = parse_without_weights(path), onnx.load(str(path))
    assert len(lean.SerializeToString()) < 0.2 * path.stat().st_size
    left = [t for t in lean.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert left and all(
        {e.key for e in t.external_data} == {"location", "offset", "length"} for t in left
    )
    onnx.load_external_data_for_model(lean, str(path.parent))
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in whole.graph.initializer}
    assert {t.name for t in lean.graph.initializer} == set(stored)
    assert all(
        np.array_equal(onnx.numpy_helper.to_array(t), stored[t.name])
        for t in lean.graph.initializer
    )
    assert [n.name for n in lean.graph.node] == [n.name for n in whole.graph.node]
    assert any(len(t.raw_data) >= MIN_EXTERNAL_BYTES for t in whole.graph.initializer)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_the_scoring_copy_answers_as_the_graph_does(reference, precision):
    graph = reference / precision / "model.onnx"
    rng = np.random.default_rng(0)
    inputs, targets = rng.integers(0, 8192, 40), rng.integers(0, 8192, 40)
    near = {
        "rtol": 1e-4,
        "atol": 0.03 if precision == "fp16" else 1e-3,
    }  # other fusions round fp16 elsewhere
    plain = OrtEngine(graph, "cpu", 2, vocabulary=8192).log_probabilities(inputs)
    scorer = OrtEngine(graph, "cpu", 2, vocabulary=8192, scoring=scoring_graph(graph))
    assert np.allclose(scorer.nll(inputs, targets), -plain[np.arange(40), targets], **near)
    limited = OrtEngine(
        graph, "cpu", 2, vocabulary=8192, scoring=scoring_graph(graph, vocabulary=100)
    )
    few = plain[:, :100] - np.log2(np.exp2(plain[:, :100]).sum(axis=1, keepdims=True))
    assert np.allclose(
        limited.nll(inputs, targets % 100), -few[np.arange(40), targets % 100], **near
    )


@pytest.mark.export
def test_guards_against_padding_are_taken_out(cache):
    from edgecap.graph.scoring import drop_guards

    graph = open_graph(
        exported(REFERENCE, cache, fused=False) / "fp32/model.onnx", weights=False
    ).graph
    layers = sum(n.op_type == "Softmax" for n in graph.node)
    assert drop_guards(graph) == layers > 0
    assert not any(n.op_type == "IsNaN" for n in graph.node)
    assert drop_guards(graph) == 0


# --- weights behind links -----------------------------------------------------------------------


@pytest.fixture(scope="session")
def beside(reference, tmp_path_factory):
    """The fp32 graph of the reference model with its weights in a second file."""
    import onnx

    folder = tmp_path_factory.mktemp("beside")
    model = onnx.load(str(reference / "fp32/model.onnx"))
    options = {"save_as_external_data": True, "location": "model.onnx_data"}
    onnx.save(model, str(folder / "model.onnx"), **options)
    return folder


def linked(kind, beside, folder):
    """Lay out the graph and its weights in a folder, by one kind of link."""
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    folder.mkdir()
    for file in beside.iterdir():
        blob = blobs / file.name.replace(".", "-")
        shutil.copyfile(file, blob)
        if kind == "hard" or (kind == "data" and file.suffix == ".onnx"):
            os.link(blob, folder / file.name)
        else:
            (folder / file.name).symlink_to(os.path.relpath(blob, folder))
    return folder


@pytest.mark.parametrize("kind", ["all", "data", "hard"])
def test_weights_behind_links_are_the_same_weights(kind, beside, tmp_path):
    """Links for both files as in the Hub's cache, for the weights alone, and hard links."""
    folder = linked(kind, beside, tmp_path / "m")
    path, ids = folder / "model.onnx", np.arange(40)
    same, whole = open_graph(path), open_graph(beside / "model.onnx")
    assert same.SerializeToString() == whole.SerializeToString()
    for scoring in (False, True):
        plain, behind = (open_engine(f, scoring) for f in (beside, folder))
        if scoring:
            assert (plain.nll(ids[:-1], ids[1:]) == behind.nll(ids[:-1], ids[1:])).all()
        else:
            assert (plain.log_probabilities(ids) == behind.log_probabilities(ids)).all()
    facts = inspect_graph(path)
    assert facts.files == ("model.onnx", "model.onnx_data")
    assert list_files(folder, list(facts.files)) == list_files(beside, list(facts.files))


def test_weights_are_those_beside_the_path_that_was_given(beside, tmp_path):
    """The graph is a link to another folder, which holds other weights under the same name."""
    folder = tmp_path / "m"
    folder.mkdir()
    shutil.copytree(beside, tmp_path / "other")
    weights = (beside / "model.onnx_data").read_bytes()
    (tmp_path / "other/model.onnx_data").write_bytes(bytes(len(weights)))
    (folder / "model.onnx").symlink_to("../other/model.onnx")
    (folder / "model.onnx_data").write_bytes(weights)
    ids = np.arange(20)
    for scoring in (False, True):
        plain, behind = (open_engine(f, scoring) for f in (beside, folder))
        run = (
            (lambda e: e.nll(ids[:-1], ids[1:])) if scoring else lambda e: e.log_probabilities(ids)
        )
        assert (run(plain) == run(behind)).all()
    assert open_graph(folder / "model.onnx") == open_graph(beside / "model.onnx")


def test_weights_beside_a_graph_that_cannot_be_read(beside, tmp_path):
    import onnx

    folder = linked("all", beside, tmp_path / "m")
    (tmp_path / "blobs/model-onnx_data").unlink()
    with pytest.raises(UsageError, match=r"missing \(a link to \.\./blobs/model-onnx_data"):
        inspect_graph(folder / "model.onnx")
    (folder / "model.onnx").unlink()
    for location, words in (
        ("../m/model.onnx_data", "outside its folder"),
        ("/tmp/model.onnx_data", "outside its folder"),
        ("sub/../../x", "outside its folder"),
        ("", "no place in a file"),
    ):
        model = onnx.load(str(beside / "model.onnx"), load_external_data=False)
        entry = next(e for t in model.graph.initializer for e in t.external_data)
        entry.value = location
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(UsageError, match=words):
            inspect_graph(folder / "model.onnx")


def test_a_snapshot_of_graphs_is_profiled_and_exported(
    reference, beside, corpus_file, tmp_path, cache
):
    """As repositories of graphs lie in the Hub's cache: configs above onnx/, a q4 graph beside."""
    home = tmp_path / "models--org--name"
    snapshot = home / "snapshots" / "abc"
    files = {f"onnx/{p.name}": p for p in beside.iterdir()}
    files |= {"onnx/model_q4.onnx": reference / "int4/model.onnx"}
    files |= {n: reference / n for n in ("config.json", "tokenizer.json", "tokenizer_config.json")}
    (home / "blobs").mkdir(parents=True)
    for number, (name, source) in enumerate(files.items()):
        shutil.copyfile(source, home / "blobs" / str(number))
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        blob = os.path.relpath(home / "blobs" / str(number), (snapshot / name).parent)
        (snapshot / name).symlink_to(blob)
    spec = Spec(
        model=str(snapshot), corpus=str(corpus_file), precisions=("fp32", "int8"), limit_s=1
    )
    paths = resolve_paths(cache, tmp_path / "profiles")
    record = profile(spec, paths)
    assert all(isinstance(c.outcome, Measurement) for c in record.cells)
    source = record.source
    assert (source.name, source.revision, source.other_graphs) == (
        ("org/name", "abc", ("onnx/model_q4.onnx",))
    )
    export_folder(msgspec.structs.replace(spec, precisions=("int8",)), tmp_path / "out", paths)
    assert (tmp_path / "out/int8/model.onnx").is_file()
    chosen = msgspec.structs.replace(
        spec, model=str(snapshot / "onnx/model_q4.onnx"), precisions=()
    )
    (cell,) = profile(chosen, paths).cells
    assert (cell.precision, type(cell.outcome)) == ("int4", Measurement)


def test_a_file_that_is_cut_short_is_damaged(reference, tmp_path):
    raw = (reference / "fp32/model.onnx").read_bytes()
    for length in (0, 10, len(raw) // 2, len(raw) - 1):
        (tmp_path / "model.onnx").write_bytes(raw[:length])
        with pytest.raises(UsageError, match="damaged"):
            open_graph(tmp_path / "model.onnx", weights=False)
