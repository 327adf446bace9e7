"""The graph as it is deployed: fused where that answers alike, plain with a reason where not;
and what else went on.
"""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REFERENCE, build_model
from exports import stepped
from onnx import helper, numpy_helper

from edgecap.errors import UsageError
from edgecap.graph import finish as optimize
from edgecap.graph.empty_decoder import empty_decoder
from edgecap.graph.export.optimum import TASK
from edgecap.graph.fusion.join_matmuls import join_matmuls
from edgecap.graph.onnx_file import open_graph, weight_bytes
from edgecap.machine.info import pin_process
from edgecap.machine.noise import NoiseMonitor
from edgecap.meters.divergence import max_divergence, sample_answers
from edgecap.pipeline.export_folder import optimize_folder
from edgecap.pipeline.worker import BuiltGraph, Export, Optimize, ignore_progress, in_child
from edgecap.runtime.engine import OrtEngine
from edgecap.spec import Spec
from edgecap.storage.files import resolve_paths


def operators(path):
    return {n.op_type for n in open_graph(path, weights=False).graph.node}


def exported(model, out, exporter="optimum", finish="fused"):
    out.mkdir(parents=True)
    asked = {"trust_remote_code": False, "exporter": exporter, "task": TASK, "finish": finish}
    step = Export(folder=str(model), out=str(out), **asked)
    return in_child(step, ignore_progress, 600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("torch")
    return tmp_path_factory.mktemp("optimize")


@pytest.fixture(scope="module")
def plain(cache):
    pytest.importorskip("torch")
    folder, answer = stepped(REFERENCE, cache, "plain")
    assert (answer.files, answer.unfused) == (("model.onnx",), ())
    return folder / "model.onnx"


@pytest.mark.export
def test_an_export_is_fused_and_answers_as_the_plain_graph(plain, cache):
    folder, answer = stepped(REFERENCE, cache)
    assert (answer.files, answer.unfused) == (("model.onnx",), ())
    fused = folder / "model.onnx"
    assert {"GroupQueryAttention", "SkipSimplifiedLayerNormalization"} <= operators(fused)
    assert not {"GroupQueryAttention"} & operators(plain)
    a, b = (sample_answers(OrtEngine(p, "cpu", 2)) for p in (plain, fused))
    assert max_divergence(a, b) < optimize.MAX_DIVERGENCE_BITS
    assert (folder / "tokenizer.json").is_file()
    assert not list(folder.glob("tmp*"))


@pytest.mark.export
def test_products_of_one_tensor_are_joined(plain, folder):
    """Query, key and value; gate and up: 3 of 7 products a layer are gone,
    and every weight is there once.
    """
    model = open_graph(plain)
    before = sum(n.op_type == "MatMul" for n in model.graph.node)
    size = weight_bytes(model)
    layers = sum(i.name.endswith(".key") for i in model.graph.input)
    gone = join_matmuls(model)
    assert gone == 3 * layers
    assert sum(n.op_type == "MatMul" for n in model.graph.node) == before - gone
    assert weight_bytes(model) == size + 8 * 5 * layers  # the sizes of the Splits
    assert join_matmuls(model) == 0


def test_what_is_used_twice_or_is_an_output_is_not_joined():
    def gone(extra, outputs=("y", "z")):
        values = [helper.make_tensor_value_info(n, 1, [2, None]) for n in ("x", *outputs)]
        stored = [numpy_helper.from_array(np.ones((3, k), np.float32), f"w{k}") for k in (4, 5)]
        nodes = [helper.make_node("MatMul", ["x", f"w{k}"], [f"p{k}"]) for k in (4, 5)]
        nodes += [
            helper.make_node("Neg", ["p4"], ["y"]),
            helper.make_node("Neg", ["p5"], ["z"]),
            *extra,
        ]
        graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
        return join_matmuls(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))

    assert gone([]) == 1
    assert gone([helper.make_node("Neg", ["w4"], ["again"])], ("y", "z", "again")) == 0
    assert gone([], ("y", "z", "p4")) == 0


@pytest.mark.export
def test_a_graph_of_a_folder_is_fused(folder, plain):
    (folder / "again").mkdir()
    step = Optimize(graph=str(plain), out=str(folder / "again"))
    assert in_child(step, ignore_progress, 600).files == ("model.onnx",)
    assert "GroupQueryAttention" in operators(folder / "again" / "model.onnx")


@pytest.mark.export
def test_what_cannot_be_fused_stays_plain_and_says_so(folder):
    """ALiBi: positions enter as a bias of the scores."""
    found = exported(
        build_model(folder / "bloom", "bloom", n_layer=2, n_head=4), folder / "bloom-onnx"
    )
    assert isinstance(found, BuiltGraph)
    assert found.unfused and "layer 0" in found.unfused[0]
    assert "GroupQueryAttention" not in operators(folder / "bloom-onnx" / "model.onnx")


def test_a_graph_without_cache_cannot_be_fused(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").write_bytes(empty_decoder(0))
    with pytest.raises(UsageError, match=r"model\.onnx cannot be fused: it has no KV cache$"):
        optimize_folder(
            Spec(model=str(tmp_path / "onnx")),
            tmp_path / "fused",
            resolve_paths(tmp_path / "cache"),
        )
    assert not (tmp_path / "fused").exists()


@pytest.mark.export
@pytest.mark.parametrize("bits", [2e-5, float("nan")])
def test_a_fused_graph_that_answers_otherwise_is_not_kept(plain, tmp_path, bits):
    found = optimize.write_fused(plain, tmp_path, lambda a, b: bits)
    assert found.files == ["model.onnx"]
    assert "bits a token away" in found.unfused[0]
    assert "GroupQueryAttention" not in operators(tmp_path / "model.onnx")


@pytest.mark.export
def test_a_fused_graph_that_does_not_run_is_not_kept(plain, tmp_path):
    def refuse(a, b):
        raise RuntimeError("GroupQueryAttention(1) is not\n a registered operator")

    found = optimize.write_fused(plain, tmp_path, refuse)
    assert found.unfused == (
        "the runtime does not run the fused graph: "
        "GroupQueryAttention(1) is not a registered operator",
    )


def test_divergence_of_nan_is_the_largest():
    p = np.log2(np.full((1, 2), 0.5))
    assert max_divergence([p, p], [p, p]) == 0
    assert np.isnan(max_divergence([p, p], [p, np.full((1, 2), np.nan)]))


@pytest.mark.export
def test_an_exporter_that_does_not_know_the_model_says_so(folder):
    pytest.importorskip("onnxruntime_genai")
    with pytest.raises(UsageError, match="gpt2.*--exporter optimum"):
        exported(build_model(folder / "gpt2", "gpt2"), folder / "gpt2-genai", exporter="genai")


# --- rows, levels, processors -----------------------------------------------------------------


@pytest.mark.export
def test_rows_of_a_batch_answer_as_one_row_does(plain):
    engine = OrtEngine(plain, "cpu", 2)
    ids = np.random.default_rng(0).integers(0, 8192, (3, 12))
    cache = engine.decode(engine.prefill(ids), np.array([5, 6, 7]))
    logits, _ = engine.step(cache, np.array([1, 2, 3]))
    alone, _ = engine.step(engine.decode(engine.prefill(ids[1]), 6), np.array([2]))
    assert np.allclose(logits[1], alone[0], atol=1e-3)


@pytest.mark.parametrize("level", ["off", "basic", "extended", "all"])
def test_every_graph_level_opens(tmp_path, level):
    (tmp_path / "m.onnx").write_bytes(empty_decoder(2))
    engine = OrtEngine(tmp_path / "m.onnx", "cpu", 1, level=level, arena=False)
    assert engine.decode(engine.prefill(np.arange(4)), 1).length == 5


def test_a_processor_that_is_not_there():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system lets no process choose its processors")
    had = os.sched_getaffinity(0)
    try:
        pin_process((min(had),))
        assert os.sched_getaffinity(0) == {min(had)}
        with pytest.raises(UsageError, match="--affinity 4000"):
            pin_process((4000,))
    finally:
        os.sched_setaffinity(0, had)


# --- what else went on ------------------------------------------------------------------------


@pytest.fixture
def cpus(tmp_path, monkeypatch):
    """A sysfs of two processors at 2 GHz, with a counter of throttling each."""
    monkeypatch.setenv("EDGECAP_SYSFS", str(tmp_path))
    for number in range(2):
        tell(tmp_path, number, "cpufreq/scaling_cur_freq", 2_000_000)
        tell(tmp_path, number, "thermal_throttle/core_throttle_count", 5)
    return tmp_path


def tell(root: Path, number, name, value):
    path = root / f"devices/system/cpu/cpu{number}/{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


def test_frequency_and_throttling_are_watched(cpus, monkeypatch):
    import psutil

    before = SimpleNamespace(_fields=("user", "idle", "steal"), user=10.0, idle=10.0, steal=0.0)
    busy = SimpleNamespace(_fields=before._fields, user=1010.0, idle=2010.0, steal=1000.0)
    monkeypatch.setattr(psutil, "cpu_times", lambda: before)
    watch = NoiseMonitor()
    watch.sample()
    tell(cpus, 1, "cpufreq/scaling_cur_freq", 1_000_000)
    tell(cpus, 1, "thermal_throttle/core_throttle_count", 8)
    watch.sample()
    monkeypatch.setattr(psutil, "cpu_times", lambda: busy)
    found = watch.conditions()
    assert found.frequencies_hz == (2e9, 1.5e9)
    assert found.throttle_events == 3
    assert found.other_load == pytest.approx(
        1 / 4, abs=0.01
    ) and found.steal_share == pytest.approx(1 / 4)


def test_a_system_that_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECAP_SYSFS", str(tmp_path))
    watch = NoiseMonitor()
    watch.sample()
    assert (watch.conditions().frequencies_hz, watch.conditions().throttle_events) == ((), None)


def test_where_times_of_processors_stand_still_no_load_is_claimed(monkeypatch):
    import psutil

    still = SimpleNamespace(_fields=("user", "idle"), user=0.0, idle=0.0)
    monkeypatch.setattr(psutil, "cpu_times", lambda: still)
    found = NoiseMonitor().conditions()
    assert (found.steal_share, found.other_load) == (None, None)


def test_a_clock_that_is_set_and_a_machine_that_slept(monkeypatch):
    import time

    watch = NoiseMonitor()
    wall, clock = time.time, time.clock_gettime
    monkeypatch.setattr(time, "time", lambda: wall() + 70)
    monkeypatch.setattr(
        time,
        "clock_gettime",
        lambda which: clock(which) + (60 if which == time.CLOCK_BOOTTIME else 0),
    )
    found = watch.conditions()
    assert found.slept_s == pytest.approx(60, abs=1)
    assert found.clock_step_s == pytest.approx(10, abs=1)


@pytest.mark.export
def test_a_graph_for_providers_that_compile_has_no_guards(plain, cache):
    folder, answer = stepped(REFERENCE, cache, "bare")
    assert (answer.files, answer.unfused) == (("model.onnx",), ())
    found = operators(folder / "model.onnx")
    assert not {"GroupQueryAttention", "IsNaN"} & found
