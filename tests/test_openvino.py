"""A real provider that is not the CPU's: ONNX Runtime with OpenVINO,
in the environment of scripts/test-openvino.
"""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgecap.graph.scoring import scoring_graph
from edgecap.pipeline.worker.handlers.score import ON_CPU
from edgecap.record import Latency, Measurement, Peaks, Placement, Profile
from edgecap.runtime.engine import OrtEngine
from edgecap.runtime.providers import built_providers, provider_problem

PRECISIONS = ("fp32", "int8", "int4")
MODEL = os.environ.get("EDGECAP_OPENVINO_MODEL", "")
IDS = np.random.default_rng(0).integers(1, 8192, 120)

pytestmark = [
    pytest.mark.skipif(
        "openvino" not in built_providers(),
        reason="the runtime has no OpenVINO: scripts/test-openvino",
    ),
    pytest.mark.skipif(
        not MODEL, reason="EDGECAP_OPENVINO_MODEL names no portable folder: scripts/test-openvino"
    ),
]


def profile(*arguments):
    """The command as a person gives it, of few documents and seconds."""
    command = [
        sys.executable,
        "-m",
        "edgecap",
        "profile",
        "--model",
        MODEL,
        "--documents",
        "4",
        "--limit",
        "2",
    ]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """All graphs on OpenVINO and on the CPU provider of the same runtime."""
    out = tmp_path_factory.mktemp("profiles")
    done = profile(
        "--precision", ",".join(PRECISIONS), "--provider", "openvino,cpu", "-o", str(out)
    )
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.json")
    return msgspec.json.decode(path.read_bytes(), type=Profile)


@pytest.fixture(scope="module")
def cells(record):
    found = {(c.precision, c.provider): c.outcome for c in record.cells}
    assert all(isinstance(o, Measurement) for o in found.values()), found
    return found


@pytest.fixture(scope="module")
def graph():
    return Path(MODEL) / "fp32/model.onnx"


# --- the record -------------------------------------------------------------------------------


def test_the_record_is_whole_and_names_its_runtime(record, cells):
    assert record.complete
    assert len(cells) == 2 * len(PRECISIONS)
    assert {"openvino", "cpu"} <= set(record.machine.providers)
    assert "onnxruntime-openvino" in record.machine.versions
    assert all(isinstance(record.peaks[p], Peaks) for p in ("openvino", "cpu")), record.peaks


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_work_is_done_by_openvino(cells, precision):
    """Its nodes in the runtime's profile are whole subgraphs, of which there are few."""
    placement = cells[precision, "openvino"].placement
    assert isinstance(placement, Placement)
    assert placement.by_provider["openvino"].nodes >= 1
    assert placement.by_provider["openvino"].time_share > 0.95
    assert cells[precision, "cpu"].placement == ON_CPU


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bits_are_those_of_the_cpu_provider(cells, precision):
    bits = {p: cells[precision, p].compression.bits_per_byte for p in ("openvino", "cpu")}
    assert bits["openvino"] == pytest.approx(bits["cpu"], abs=1e-3)


@pytest.mark.parametrize(("precision", "near"), [("int8", 4e-3), ("int4", 0.06)])
def test_weights_in_blocks_stay_near_fp32(record, precision, near):
    graphs = {c.precision: c.graph for c in record.cells if c.provider == "openvino"}
    assert "DequantizeLinear" in graphs[precision].recipe
    assert 0 < graphs[precision].divergence_bits < near
    assert graphs[precision].bytes < 0.31 * graphs["fp32"].bytes


@pytest.mark.parametrize("precision", PRECISIONS)
def test_latency_and_memory_are_measured(cells, precision):
    outcome = cells[precision, "openvino"]
    assert isinstance(outcome.latency, Latency), outcome.latency
    assert outcome.latency.load_s > 0
    assert outcome.latency.prefill
    assert outcome.latency.decode
    assert outcome.memory.peak_bytes >= outcome.memory.baseline_bytes > 0


# --- the engine -------------------------------------------------------------------------------


def test_prefill_decode_and_rows_agree_with_the_cpu_provider(graph):
    """An empty cache, a growing one, and one of several rows."""
    ours, theirs = OrtEngine(graph, "openvino", 2), OrtEngine(graph, "cpu", 2)
    cache = ours.prefill(IDS[:10])
    for token in IDS[10:20].tolist():
        cache = ours.decode(cache, token)
    for name, value in theirs.prefill(IDS[:20]).values.items():
        assert np.allclose(cache.values[name].numpy(), value.numpy(), atol=1e-3)
    here, there = None, None
    for tokens in IDS[:24].reshape(8, 3):
        (logits, here), (expected, there) = ours.step(here, tokens), theirs.step(there, tokens)
        assert np.allclose(logits, expected, atol=1e-3)


def test_the_scoring_copy_answers_as_the_graph_does(graph):
    """It is given as bytes, with its weights left in the file, and answers in pieces or at once."""
    scorer = OrtEngine(graph, "openvino", 2, scoring=scoring_graph(graph))
    plain = OrtEngine(graph, "cpu", 2).log_probabilities(IDS[:-1])
    assert np.allclose(scorer.nll(IDS[:-1], IDS[1:]), -plain[np.arange(119), IDS[1:]], atol=1e-3)


def test_sessions_give_the_same_bits_and_leave_in_peace(graph):
    code = (
        "import sys; from pathlib import Path; import numpy as np; "
        "from edgecap.runtime.engine import OrtEngine; ids = np.arange(1, 40); "
        "engines = [OrtEngine(Path(sys.argv[1]), 'openvino', 2) for _ in range(3)]; "
        "first, *others = [e.log_probabilities(ids) for e in engines]; "
        "sys.exit(not all(np.array_equal(first, o) for o in others))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(graph)], check=False).returncode == 0


# --- options ----------------------------------------------------------------------------------


def test_openvino_is_there():
    assert provider_problem("openvino") is None
    assert provider_problem("openvino:device_type=CPU") is None


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("device_type=GPU.7", "Device GPU.7 is not available"),
        (
            "device_type=XYZ",
            "no node",
        ),  # the runtime says nothing, lists OpenVINO first, and runs it all on the CPU
        ("num_of_threads=many", "Number of threads should be a number"),
        ("precision=FP16", "CPU only supports FP32, ACCURACY"),
        ("no_such_option=1", "Invalid OpenVINO EP option: no_such_option"),
    ],
)
def test_a_bad_option_is_refused_in_the_words_of_the_runtime(option, told, tmp_path):
    done = profile("--precision", "fp32", "--provider", f"openvino:{option}", "-o", str(tmp_path))
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]
    assert "onnxruntime::" not in done.stderr
    assert not list(tmp_path.glob("*.json"))
