"""builder: onnxruntime-genai's graphs are those of the model, their variants run,
and what it cannot do is said.
"""

import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import REFERENCE, SMALL, build_model

from edgecap.errors import UsageError
from edgecap.graph.export import genai as builder
from edgecap.graph.onnx_file import inspect_graph
from edgecap.graph.scoring import scoring_graph
from edgecap.graph.variants import Form, make_variant
from edgecap.meters.divergence import measure_divergence
from edgecap.runtime.engine import OrtEngine

# Variant -> divergence from fp32 at most, bits a token on random ids. Measured: half of these and
# more.
LIMITS = {"fp16": 1e-5, "bf16": 4e-4, "int8": 0.03, "int8s": 0.05, "int8w": 6e-3, "int4": 0.6}
WIDTH, WORDS = 64, 8192  # of the tiny models' tables
LONG = {
    "original_max_position_embeddings": 256
}  # phi3's, as long as its context: one set of angles
KINDS = {"qwen2": {}, "phi3": LONG, "llama": {}, "qwen3": {}, "gemma": {"head_dim": 32},
         "gemma3_text": {"head_dim": 32, "sliding_window": 32}}  # fmt: skip
UNTIED = ("qwen2", "phi3")
REFUSED = {
    "gpt2": ({}, "does not know model_type 'gpt2' (GPT2LMHeadModel in "),
    "smollm3": (
        {"no_rope_layers": [1, 0]},
        "fails on model_type 'smollm3' (SmolLM3ForCausalLM in ",
    ),
    "mistral": ({"head_dim": 8}, "cannot rotate 8 of the 8 numbers of a head of "),
}
UNNAMED = {
    "no-class": ({"architectures": None}, "names no 'architectures'; try --exporter optimum"),
    "no-type": (
        {"model_type": "evil", "architectures": ["EvilForCausalLM"]},
        "transformers does not know",
    ),
}

installed = all(
    importlib.util.find_spec(name) for name in ("onnxruntime_genai", "torch", "transformers")
)
needs_builder = pytest.mark.skipif(
    not installed,
    reason="onnxruntime-genai, torch or transformers is not installed: "
    "pip install 'edgecap[genai]'",
)
needs_optimum = pytest.mark.skipif(
    importlib.util.find_spec("optimum") is None,
    reason="optimum is not installed: pip install 'edgecap[export]'",
)

MAKE = """
import json, sys
from pathlib import Path
from edgecap.errors import UsageError
from edgecap.graph.export import export_fp32
said = {}
for exporter, model, out in json.loads(sys.argv[1]):
    Path(out).mkdir()
    try:
        made = export_fp32(Path(model), Path(out), False, exporter)
        assert made == Path(out) / "model.onnx"
    except UsageError as error:
        said[out] = str(error)
Path("said.json").write_text(json.dumps(said))
"""


def make_all(jobs, cwd):
    """Runs (exporter, model, out) in one process of its own,
    whose warnings and prints are not ours; what it refused.
    """
    command = [
        sys.executable,
        "-c",
        MAKE,
        json.dumps([[str(part) for part in job] for job in jobs]),
    ]
    made = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert made.returncode == 0, made.stderr[-2000:]
    return json.loads((cwd / "said.json").read_text())


def of_kind(folder, kind, **changes):
    """A tiny model with the sizes of the fixtures' llama, where they have none of its kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SMALL, kind, SMALL.get(kind) or {**SMALL["llama"], "pad_token_id": 0})
        return build_model(folder / kind, kind, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All graphs of this file: their folder, and the refusals by the folder that
    was to hold the graph.
    """
    folder = tmp_path_factory.mktemp("made")
    models = {"reference": REFERENCE, "ernie4_5": of_kind(folder, "ernie4_5", head_dim=16)}
    models |= {
        k: of_kind(folder, k, tie_word_embeddings=k not in UNTIED, **more)
        for k, more in KINDS.items()
    }
    refused = {k: of_kind(folder, k, **more) for k, (more, _) in REFUSED.items()}
    for name, (changes, _) in UNNAMED.items():
        (folder / name).mkdir()
        config = {**json.loads((REFERENCE / "config.json").read_text()), **changes}
        (folder / name / "config.json").write_text(json.dumps(config))
        shutil.copy(REFERENCE / "model.safetensors", folder / name)
        refused[name] = folder / name
    jobs = [
        ("genai", model, folder / f"{name}-genai") for name, model in (models | refused).items()
    ]
    if importlib.util.find_spec("optimum"):
        jobs += [
            ("optimum", models[name], folder / f"{name}-optimum") for name in ("reference", *KINDS)
        ]
    (folder / "there").mkdir()
    said = make_all(jobs, folder / "there")
    assert [f.name for f in (folder / "there").iterdir()] == ["said.json"]
    return folder, said


@pytest.fixture
def graph(made):
    return lambda name, exporter="genai": made[0] / f"{name}-{exporter}" / "model.onnx"


@pytest.fixture
def reference(graph):
    return graph("reference")


def engine(path):
    """Without the config's head width: the graph must show it."""
    return OrtEngine(path, "cpu", 2, vocabulary=WORDS)


def random_ids(count=2, length=100):
    rng = np.random.default_rng(0)
    return [rng.integers(1, WORDS, length) for _ in range(count)]


def decoded(path, ids):
    """Logits of the next token after a prefill of 20 and decoding the rest, as log2 p."""
    runner = engine(path)
    cache = runner.prefill(ids[:20])
    for token in ids[20:-1].tolist():
        cache = runner.decode(cache, token)
    logits = runner.step(cache, ids[-1:])[0][0].astype(np.float64)
    logits -= logits.max()
    return (logits - np.log(np.exp(logits).sum())) / np.log(2)


# --- what comes out ---------------------------------------------------------------------------


@pytest.mark.export
@needs_builder
def test_the_folder_is_complete_and_nothing_is_left(reference):
    names = {f.name for f in reference.parent.iterdir()}
    assert {"model.onnx", "genai_config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert not [f for f in reference.parent.iterdir() if f.is_dir() or f.name.endswith(".data")]
    told = json.loads((reference.parent / "genai_config.json").read_text())["model"]["decoder"]
    assert (told["filename"], told["head_size"]) == ("model.onnx", 32)
    facts = inspect_graph(reference)
    assert (facts.precision, facts.vocabulary, facts.has_cache, facts.files) == (
        "fp32",
        8192,
        True,
        ("model.onnx",),
    )


@pytest.mark.export
@needs_builder
@pytest.mark.parametrize("precision", ["fp32", *LIMITS])
def test_variants_stay_near_decode_and_score(reference, precision, tmp_path):
    path = reference
    if precision != "fp32":
        make_variant(reference, Form(precision), tmp_path, samples=random_ids())
        path = tmp_path / "model.onnx"
    assert inspect_graph(path).precision == precision
    assert measure_divergence(engine(reference), engine(path), random_ids()).bits <= LIMITS.get(
        precision, 0.0
    )
    near = {"int8": 1.0, "fp16": 0.1, "int4": 0.3}.get(
        precision, 1e-3
    )  # 8-bit activations round otherwise in each run
    ids = random_ids()[0]
    assert (
        np.abs(decoded(path, ids[:25]) - engine(path).log_probabilities(ids[:25])[-1]).max() < near
    )
    scorer = OrtEngine(path, "cpu", 2, vocabulary=WORDS, scoring=scoring_graph(path))
    plain = -engine(path).log_probabilities(ids[:-1])[np.arange(99), ids[1:]]
    assert np.allclose(
        scorer.nll(ids[:-1], ids[1:]), plain, rtol=1e-4, atol=0.03 if precision == "fp16" else 1e-3
    )


@pytest.mark.export
@needs_builder
@needs_optimum
@pytest.mark.parametrize("kind", ["reference", *KINDS])
def test_it_answers_as_optimums_export_does(kind, graph):
    assert (
        measure_divergence(engine(graph(kind, "optimum")), engine(graph(kind)), random_ids()).bits
        < 1e-9
    )


@pytest.mark.export
@needs_builder
@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_table_is_stored_once(kind, graph, tmp_path):
    """In fp32, and in int8, which looks for the table in the head."""
    table, tables = WIDTH * WORDS * 4, 2 if kind in UNTIED else 1
    assert tables <= graph(kind).stat().st_size / table < tables + 0.6
    make_variant(graph(kind), Form("int8"), tmp_path)
    assert tables <= (tmp_path / "model.onnx").stat().st_size / (table / 4) < tables + 0.7


@pytest.mark.export
@needs_builder
def test_a_model_that_optimum_does_not_know(made, graph):
    import torch
    from transformers import AutoModelForCausalLM

    ids = random_ids(1)[0]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(made[0] / "ernie4_5")(
            torch.tensor(ids[None])
        ).logits[0]
    truth = torch.log_softmax(logits.double(), -1).numpy() / np.log(2)
    assert np.abs(engine(graph("ernie4_5")).log_probabilities(ids) - truth).max() < 1e-3


# --- what it refuses --------------------------------------------------------------------------


@pytest.mark.export
@needs_builder
@pytest.mark.parametrize("name", [*REFUSED, *UNNAMED])
def test_what_it_cannot_make_is_refused(name, made):
    folder, said = made
    told = said[str(folder / f"{name}-genai")]
    assert (REFUSED | UNNAMED)[name][1] in told
    assert ("try --exporter optimum" in told) == (name != "no-type")
    assert list((folder / f"{name}-genai").iterdir()) == []


# --- where it is not installed ----------------------------------------------------------------


def missing(monkeypatch, *names):
    installed = importlib.metadata.version

    def version(name):
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name in (*builder.WHEELS, *builder.TOOLS) else installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_the_recipe_names_all_that_decides(monkeypatch):
    missing(monkeypatch, "onnxruntime-genai-cuda", "onnxruntime-genai-directml")
    assert builder.recipe().endswith(
        "onnxruntime-genai 1.0, transformers 1.0, torch 1.0, onnx 1.0, onnx-ir 1.0"
    )


@pytest.mark.parametrize("gone", [builder.WHEELS, ("onnx-ir",)])
def test_what_is_missing_is_named(gone, monkeypatch):
    missing(monkeypatch, *gone)
    with pytest.raises(UsageError, match=r"needs onnx.*pip install 'edgecap\[genai\]'") as refused:
        builder.recipe()
    assert ("onnx-ir" in str(refused.value)) == (gone == ("onnx-ir",))


def test_a_library_that_does_not_load(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime_genai.models", None)
    with pytest.raises(UsageError, match=r"cannot load onnxruntime_genai.*pip install"):
        builder._library()
