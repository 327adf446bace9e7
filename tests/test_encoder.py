"""Encoders: what they are told by, what of them is measured,
and that what is not says so everywhere.
"""

import json
import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from click import unstyle
from conftest import REFERENCE
from fakes import FakeClock, FakeCounter, FakeEngine, scripted

from edgecap.analysis.compare import compare
from edgecap.errors import UsageError
from edgecap.graph.onnx_file import inspect_graph
from edgecap.meters.context_sweep import measure_context_sweep
from edgecap.meters.divergence import Garbage, measure_cosine
from edgecap.meters.energy import measure_energy
from edgecap.meters.throughput import measure_throughput
from edgecap.model.architecture import encoder_sizes, encoder_task, task_of
from edgecap.model.locate import LocatedModel
from edgecap.pipeline.capabilities import check_request, read_model
from edgecap.pipeline.compress import compress
from edgecap.pipeline.export_folder import export_folder, optimize_folder
from edgecap.pipeline.profile import profile
from edgecap.pipeline.worker import CompressBaselines
from edgecap.record import Absent, Energy, Measurement, Roofline
from edgecap.report.data import record_values
from edgecap.report.terminal.comparison import comparison
from edgecap.report.terminal.details import details
from edgecap.runtime.engine import OrtEngine
from edgecap.spec import Spec
from edgecap.storage import records
from edgecap.storage.files import resolve_paths
from edgecap.text.corpus import read_corpus

POSITIONS = 64
_BERT = {
    "vocab_size": 8192,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}
_DISTILBERT = {"vocab_size": 8192, "dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4}
KINDS = {
    "bert": ("AutoModelForMaskedLM", _BERT),
    "roberta": (
        "AutoModel",
        {**_BERT, "max_position_embeddings": POSITIONS + 2, "pad_token_id": 1},
    ),
    "distilbert": (
        "AutoModelForSequenceClassification",
        {**_DISTILBERT, "max_position_embeddings": POSITIONS},
    ),
}


def built(folder, kind):
    """An encoder of random weights with the reference tokenizer, as transformers saves it;
    and the model itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        import transformers

        torch.manual_seed(0)
        head, fields = KINDS[kind]  # eager: PyTorch counts no fused attention on the processor
        config = transformers.AutoConfig.for_model(kind, **fields)
        model = (
            getattr(transformers, head)
            .from_config(config, attn_implementation="eager")
            .float()
            .eval()
        )
        model.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(REFERENCE).save_pretrained(folder)
    return model


@pytest.fixture(scope="session")
def encoders(tmp_path_factory, cache):
    """Each kind: its folder, its export as fp32 and int8, and the PyTorch model."""
    root = tmp_path_factory.mktemp("encoders")
    found = {}
    for kind in KINDS:
        model = built(root / kind, kind)
        asked = Spec(model=str(root / kind), precisions=("fp32", "int8"))
        export_folder(asked, root / f"{kind}-onnx", resolve_paths(cache))
        found[kind] = root / kind, root / f"{kind}-onnx", model
    return found


# --- what it is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "encoder"),
        ({"model_type": "bert", "architectures": ["BertModel"], "is_decoder": False}, "encoder"),
        ({"model_type": "xlm", "architectures": ["XLMWithLMHeadModel"]}, "encoder"),
        ({"model_type": "unheard-of", "architectures": ["UnheardForMaskedLM"]}, "encoder"),
        (
            {"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True},
            "decoder",
        ),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "decoder"),
        ({"model_type": "llama", "architectures": ["LlamaModel"]}, "decoder"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "decoder"),
        ({}, None),
    ],
)
def test_the_config_tells_what_a_model_does(config, task):
    assert task_of(config) == task


def test_positions_begin_behind_the_padding_id():
    assert (
        encoder_sizes({"model_type": "bert", "max_position_embeddings": 512}, "c").positions == 512
    )
    roberta = {
        "model_type": "xlm-roberta",
        "max_position_embeddings": 514,
        "vocab_size": 250_002,
        "pad_token_id": 1,
    }
    assert encoder_sizes(roberta, "c") == (512, 250_002)
    assert encoder_task({"architectures": ["BertForMaskedLM"]}) == "fill-mask"
    assert (
        encoder_task({"architectures": ["BertModel"]}) == encoder_task({}) == "feature-extraction"
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"],
          "is_encoder_decoder": True}, "encoder-dec"),
        ({"model_type": "whisper", "is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_type": "vit", "architectures": ["ViTForImageClassification"]},
         "'vit' is not a causal"),
        ({"model_type": "clip", "architectures": ["CLIPModel"],
          "text_config": {"model_type": "clip_text_model"}}, "not a"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["folder", "onnx"])
def test_what_is_neither_is_refused_in_one_line(config, message, kind):
    with pytest.raises(UsageError, match=message) as refused:
        read_model(LocatedModel("m", kind, Path("m"), None, config))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["folder", "onnx"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_decoder_that_cannot_be_counted_has_its_sizes(kind, nested):
    config = {"model_type": "jamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 99,
              "max_position_embeddings": 32, "num_attention_heads": 4}  # fmt: skip
    config = {"model_type": "fruit", "text_config": config} if nested else config
    model = read_model(LocatedModel("m", kind, Path("m"), None, config))
    assert isinstance(model.architecture, Absent) and "'jamba'" in model.architecture.reason
    assert "config.json: " in model.architecture.reason and "m/" not in model.architecture.reason
    assert model.sizes == (32, 99) and model.horizon == 32
    with pytest.raises(UsageError, match="--context 33 is longer"):
        check_request(Spec(context=33), model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers is 'two'"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_type": "t5"}, "encoder-decoder"),
    ],
)
def test_an_impossible_config_is_no_reason_to_go_on(changes, message):
    config = {"model_type": "jamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 99}
    with pytest.raises(UsageError, match=message):
        read_model(LocatedModel("m", "folder", Path("m"), None, {**config, **changes}))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"protocol": "paper"}, "--protocol paper is about scoring"),
        ({"context": 32}, "--context is about scoring"),
        ({"exporter": "genai"}, "exported by optimum"),
        ({"context_sweep": (65,)}, "longer than the model's 64 positions"),
    ],
)
def test_what_an_encoder_does_not_do_is_refused(asked, message):
    model = read_model(
        LocatedModel("m", "folder", Path("m"), None, {"model_type": "bert", **_BERT})
    )
    check_request(Spec(context_sweep=(64,)), model)
    with pytest.raises(UsageError, match=message):
        check_request(Spec(**asked), model)


# --- real graphs ------------------------------------------------------------------------------


@pytest.mark.export
@pytest.mark.parametrize("kind", KINDS)
def test_an_export_answers_as_pytorch_does(kind, encoders):
    """The independent oracle: transformers and PyTorch on the same ids,
    as long as the model takes.
    """
    import torch

    _, folder, model = encoders[kind]
    ids = np.random.default_rng(0).integers(2, 8192, POSITIONS)
    inner = model if kind != "distilbert" else model.distilbert
    with torch.no_grad():
        theirs = inner(torch.tensor(ids[None]))[0][0].numpy()
    ours = OrtEngine(folder / "fp32/model.onnx", "cpu", 1).outputs(ids)[0]
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.export
def test_a_fill_mask_head_is_kept_and_tied_once(encoders):
    folder, exported, _ = encoders["bert"]
    facts = inspect_graph(exported / "fp32/model.onnx")
    assert facts.predicts
    assert (facts.vocabulary, facts.positions) == (8192, POSITIONS)
    weights = (folder / "model.safetensors").stat().st_size
    assert (exported / "fp32/model.onnx").stat().st_size < 1.05 * weights
    assert not inspect_graph(encoders["roberta"][1] / "fp32/model.onnx").predicts


@pytest.mark.export
def test_the_profile_of_an_encoder(encoders, corpus_file, cache, tmp_path):
    """From a Hugging Face folder; work is PyTorch's own count of the same prompt."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    folder, _, model = encoders["bert"]
    asked = Spec(
        model=str(folder), precisions=("fp32", "int8"), corpus=str(corpus_file), limit_s=0.5,
        assume_watts=5.0, batches=(1, 2), context_sweep=(16, 64), operators=True,
    )  # fmt: skip
    record = profile(asked, resolve_paths(cache, tmp_path / "p"))
    assert record.source.task == "encoder"
    assert all(isinstance(c.outcome, Measurement) for c in record.cells), record.cells
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.full((1, POSITIONS), 2), attention_mask=torch.ones(1, POSITIONS))
    for cell in record.cells:
        found = cell.outcome
        assert isinstance(found.compression, Absent)
        assert isinstance(found.latency.decode, Absent)
        assert found.latency.prefill.tokens == POSITIONS
        assert [(p.context, p.decode_s) for p in found.latency.sweep] == [(16, ()), (64, ())]
        assert [t.steps for t in found.latency.throughput] == [0, 0]
        assert isinstance(found.energy, Energy)
        assert (found.energy.decode, found.energy.nll) == ((), ())
        assert found.memory.kv_bytes_per_token == 0
        assert found.work.prefill.matrix_flops == pytest.approx(counter.get_total_flops(), rel=1e-6)
        assert isinstance(cell.roofline, Roofline)
        assert cell.roofline.decode is None
        assert "no-kv-cache" not in {c.code for c in cell.cautions}
    assert [c.graph.cosine for c in record.cells] == [
        pytest.approx(1.0),
        pytest.approx(1.0, abs=0.05),
    ]
    _check_reports(record)


def _check_reports(record):
    """No column, table or number of what was not measured."""
    text = unstyle(details(record))
    assert "cosine  prefill 64  " in text
    for strange in (
        "nan",
        "bits/byte",
        "KL",
        "Scores",
        "decode",
        "None",
        "KV cache",
        "FLOPs unknown",
    ):
        assert strange not in text.replace("nothing is scored or decoded", ""), strange
    assert "NaN" not in json.dumps(record_values(record))
    (compared,) = compare([record])
    assert {d.metric for d in compared.differences} >= {"prefill_s", "prefill_j", "peak_bytes"}
    assert not {d.metric for d in compared.differences} & {
        "decode_s",
        "decode_j",
        "bits_per_byte",
        "time_capacity",
    }
    assert "nan" not in comparison(compared)


@pytest.mark.export
def test_a_folder_with_nothing_but_a_graph(encoders, corpus_file, cache, tmp_path):
    """Neither config nor tokenizer: ids and positions are told by the graph's tables."""
    folder = tmp_path / "alone"
    folder.mkdir()
    shutil.copyfile(encoders["roberta"][1] / "int8/model.onnx", folder / "model.onnx")
    record = profile(
        Spec(model=str(folder), corpus=str(corpus_file), limit_s=0.3, energy="off"),
        resolve_paths(cache, tmp_path / "p"),
    )
    (cell,) = record.cells
    assert (record.source.task, cell.precision) == ("encoder", "int8")
    assert cell.outcome.latency.prefill.tokens == POSITIONS
    assert cell.graph.cosine is None  # there is no fp32 to compare with
    assert "cosine  " not in unstyle(details(record))


@pytest.mark.export
def test_static_int8_is_made_on_texts_as_long_as_the_positions(encoders, cache, tmp_path):
    out = tmp_path / "static"
    export_folder(
        Spec(model=str(encoders["roberta"][1]), precisions=("int8s",)), out, resolve_paths(cache)
    )
    assert inspect_graph(out / "int8s/model.onnx").precision == "int8s"


@pytest.mark.export
def test_the_codec_and_fusing_refuse_an_encoder(encoders, cache, tmp_path):
    folder, exported, _ = encoders["bert"]
    text = tmp_path / "text"
    text.write_text("text")
    with pytest.raises(UsageError, match="does not predict the next token"):
        compress(text, tmp_path / "packed", Spec(model=str(folder)), resolve_paths(cache))
    with pytest.raises(UsageError, match="holds an encoder"):
        optimize_folder(Spec(model=str(exported)), tmp_path / "fused", resolve_paths(cache))


# --- fakes ------------------------------------------------------------------------------------


def test_the_record_of_an_encoder_from_a_scripted_child(corpus_file, tmp_path):
    folder = tmp_path / "fake-bert"
    folder.mkdir()
    shutil.copyfile(REFERENCE / "model.safetensors", folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "bert", **_BERT, "architectures": ["BertModel"]})
    )
    run = scripted(read_corpus(str(corpus_file)))
    record = profile(
        Spec(model=str(folder), corpus=str(corpus_file)),
        resolve_paths(tmp_path / "c", tmp_path / "p"),
        run=run,
    )
    assert not any(isinstance(step, CompressBaselines) for step in run.asked)
    assert (record.source.task, record.corpus.baselines) == ("encoder", {})
    assert isinstance(record.flops, Absent)
    assert "decode" not in unstyle(details(record)).replace("nothing is scored or decoded", "")
    assert [records.load(p) for p in (tmp_path / "p").glob("*.json")] == [record]


def test_old_records_are_of_decoders():
    for path in sorted((Path(__file__).parent / "data").glob("record-*.json")):
        assert records.load(path).source.task == "decoder"


class _Answering(FakeEngine):
    def __init__(self, answer):
        super().__init__(FakeClock())
        self.outputs = lambda ids: [answer(len(ids)), np.ones((1, 1))]


def test_outputs_that_point_elsewhere_are_garbage():
    samples = [np.arange(8), np.arange(4)]
    right, turned = (
        _Answering(lambda n: np.ones((n, 3))),
        _Answering(lambda n: np.tile([1.0, 1.0, -1.0], (n, 1))),
    )
    assert measure_cosine(right, right, samples) == pytest.approx(1.0)
    with pytest.raises(Garbage, match="mean cosine with those of fp32 is 0.33"):
        measure_cosine(right, turned, samples)
    with pytest.raises(Garbage, match="NaN"):
        measure_cosine(right, _Answering(lambda n: np.full((n, 3), math.nan)), samples)
    assert measure_cosine(_Answering(lambda n: np.ones((n, 1))), turned, []) is None


def test_meters_without_decoding():
    clock = FakeClock()
    engine = FakeEngine(clock)
    (point,) = measure_context_sweep(engine, clock, (8,), 16, 10.0, steps=0)
    assert (len(point.prefill_s), point.decode_s) == (5, ())
    (load,) = measure_throughput(engine, clock, [(1, 1)], 8, 0, 16, 10.0)
    assert (load.steps, load.context, load.decode_s, load.step_s) == (0, 0.0, (), ())
    assert len(load.prefill_s) == 5

    def work():
        clock.time += 0.02
        return 4

    found = measure_energy(FakeCounter(clock), clock, work, None, lambda done, total: None)
    assert (len(found.prefill), found.decode, found.nll) == (3, (), ())
    assert engine.decoded == []
