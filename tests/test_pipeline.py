"""pipeline: the whole job with a fake child, in milliseconds."""

import json
import os
import random
import shutil

import msgspec
import pytest
from conftest import REFERENCE
from fakes import scripted

from edgecap.analysis.metrics import BY_NAME
from edgecap.analysis.outcomes import has_failure
from edgecap.errors import Interrupted, UsageError
from edgecap.graph.onnx_file import GraphFacts
from edgecap.graph.variants import Form, form_of
from edgecap.meters.compression import ScoredDocument
from edgecap.pipeline import cells, judging, prepare, record_draft
from edgecap.pipeline.compress import compress
from edgecap.pipeline.export_folder import export_folder
from edgecap.pipeline.profile import profile
from edgecap.pipeline.run_context import KnownScores
from edgecap.pipeline.worker import (
    Export,
    Inspect,
    Inspected,
    MeasureCell,
    MeasureLatency,
    MeasureMemory,
    Quantize,
)
from edgecap.record import (
    LEFT_OUT,
    SCHEMA,
    Absent,
    Compression,
    DocumentBits,
    Failure,
    Flops,
    Measurement,
    Score,
)
from edgecap.report.page.report import describe
from edgecap.report.terminal.details import details
from edgecap.spec import PRECISIONS, CellSpec, Spec
from edgecap.storage.files import resolve_paths
from edgecap.storage.jsonl_log import JsonlLog
from edgecap.storage.records import load
from edgecap.text import bias_card
from edgecap.text.corpus import excerpt, read_corpus


@pytest.fixture
def place(tmp_path):
    return resolve_paths(tmp_path / "cache", tmp_path / "profiles")


@pytest.fixture
def spec(corpus_file):
    return Spec(corpus=str(corpus_file))


@pytest.fixture
def corpus(corpus_file):
    return read_corpus(str(corpus_file))


def written(place):
    paths = sorted(place.profiles.glob("*.json"))
    return [load(p) for p in paths]


def test_the_record_of_a_whole_run(spec, corpus, place):
    events = []
    record = profile(spec, place, events.append, scripted(corpus))
    assert written(place) == [record]
    assert record.complete
    assert [c.precision for c in record.cells] == ["fp32", "fp16", "int8", "int4"]
    assert all(isinstance(c.outcome, Measurement) for c in record.cells)
    assert isinstance(record.flops, Flops)
    assert record.corpus.documents == 6
    assert record.cells[2].graph.divergence_bits == 0.01
    assert {e.cell.precision for e in events if e.cell} == {"fp32", "fp16", "int8", "int4"}
    assert json.loads(sorted(place.profiles.glob("*.json"))[0].read_text())["schema"] == SCHEMA


def test_graphs_are_made_once(spec, corpus, place):
    first, second = scripted(corpus), scripted(corpus)
    profile(spec, place, run=first)
    profile(spec, place, run=second)
    assert sum(isinstance(s, Export | Quantize) for s in first.asked) == 4
    assert sum(isinstance(s, Export | Quantize) for s in second.asked) == 0


def test_variants_of_graphs_with_the_same_file_but_other_weights_differ(
    spec, corpus, place, tmp_path
):
    """Weights beside the graph: two fine-tunes share model.onnx to the byte."""
    import msgspec

    made = {}
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"fp32 the same graph")
        (folder / "model.onnx.data").write_bytes(name.encode())
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (folder / file).write_bytes((REFERENCE / file).read_bytes())
        base = scripted(corpus)

        def run(step, watch, timeout_s, base=base):
            found = base(step, watch, timeout_s)
            if not isinstance(found, Inspected):
                return found
            graphs = tuple(
                msgspec.structs.replace(g, files=("model.onnx", "model.onnx.data"))
                for g in found.graphs
            )
            return msgspec.structs.replace(found, graphs=graphs)

        profile(
            msgspec.structs.replace(spec, model=str(folder), precisions=("int8",)), place, run=run
        )
        made[name] = [s.out for s in base.asked if isinstance(s, Quantize)]
    assert len(made["one"]) == len(made["two"]) == 1


def test_a_late_error_says_what_is_kept(spec, corpus, place):
    from edgecap.errors import DiskFull

    good = scripted(corpus)

    def run(step, watch, timeout_s):
        if isinstance(step, Quantize):
            raise DiskFull("no room left on the disk of /cache")
        return good(step, watch, timeout_s)

    with pytest.raises(DiskFull, match="no room left on the disk of /cache; 1 of 4 cells are in"):
        profile(spec, place, run=run)
    assert len(written(place)[0].cells) == 1


def test_a_damaged_cache_is_made_again(spec, corpus, place):
    profile(spec, place, run=scripted(corpus))
    for number, graph in enumerate(sorted(place.cache.rglob("model.onnx"))):
        changed = b"short" if number % 2 else b"x" * graph.stat().st_size
        graph.write_bytes(changed)
    (place.cache / "exports").joinpath(
        next(iter(os.listdir(place.cache / "exports"))), "graph.json"
    ).write_text("{")
    again = scripted(corpus)
    profile(spec, place, run=again)
    assert sum(isinstance(s, Export | Quantize) for s in again.asked) == 4


def test_a_failed_cell_is_a_row_and_the_run_goes_on(spec, corpus, place):
    record = profile(spec, place, run=scripted(corpus, broken=("fp16",)))
    outcomes = {c.precision: c.outcome for c in record.cells}
    assert outcomes["fp16"] == Failure(
        stage="compression", error="NotFinite", message="NaN for a token's probability; try bf16"
    )
    assert isinstance(outcomes["int4"], Measurement)


def test_an_export_that_fails_fails_every_cell(spec, corpus, place):
    good = scripted(corpus)

    tried = []

    def run(step, watch, timeout_s):
        if isinstance(step, Export):
            tried.append(step)
            return Failure(stage="export", error="RuntimeError", message="no such operator")
        return good(step, watch, timeout_s)

    record = profile(spec, place, run=run)
    assert [c.outcome.error for c in record.cells] == ["RuntimeError"] * 4
    assert len(tried) == 1
    assert all(isinstance(c.graph, Absent) for c in record.cells)
    assert not list(place.cache.rglob("*.onnx"))


def test_ctrl_c_keeps_what_was_finished(spec, corpus, place):
    with pytest.raises(Interrupted, match="2 of 4 cells are in"):
        profile(spec, place, run=scripted(corpus, interrupt_at="int8"))
    (record,) = written(place)
    assert not record.complete
    assert [c.precision for c in record.cells] == ["fp32", "fp16"]
    for cell in record.cells:  # scored without their latency
        assert isinstance(cell.score, Score)
        assert cell.outcome.latency == cells.LATENCY_PENDING


def test_a_model_is_read_once_and_a_cell_is_judged_once(spec, corpus, place, monkeypatch):
    calls = []

    def counted(module, name):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: calls.append(name) or real(*given))

    counted(prepare, "read_model")
    counted(record_draft, "judge")
    record = profile(spec, place, run=scripted(corpus))
    assert all(isinstance(c.score, Score) for c in record.cells)
    assert sorted(calls) == ["judge"] * len(record.cells) + ["read_model"]


def test_a_cell_that_waits_for_its_latency_has_no_score_yet(spec, corpus, place):
    """The record on the disk of a run that is killed while it times."""
    saved = []

    def run(step, watch, timeout_s):
        if isinstance(step, MeasureLatency):
            saved.extend(written(place))
        return scripted(corpus)(step, watch, timeout_s)

    profile(spec, place, run=run)
    assert [c.score for c in saved[0].cells] == [judging.PENDING] * 4


def test_ctrl_c_before_anything_was_finished(spec, corpus, place):
    with pytest.raises(Interrupted, match="no cell was finished"):
        profile(spec, place, run=scripted(corpus, interrupt_at="fp32"))
    assert written(place) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"context": 5000}, "longer than the model's 1024 positions"),
        ({"providers": ("cuda",)}, "'cuda' is not available in the installed ONNX Runtime"),
        ({"threads": 5000}, "--threads 5000 is more than the "),
        ({"model": "no-such-model"}, "no model 'no-such-model'"),
        ({"corpus": "no-such-corpus"}, "cannot read corpus"),
    ],
)
def test_refused_before_anything_is_written(spec, corpus, place, fields, words):
    import msgspec

    with pytest.raises(UsageError, match=words):
        profile(msgspec.structs.replace(spec, **fields), place, run=scripted(corpus))
    assert not place.profiles.exists()


def test_a_look_that_dies_names_what_was_tried(spec, place):
    def run(step, watch, timeout_s):
        return Failure(
            stage="look", error="SIGSEGV", message="the process was ended by SIGSEGV (11)"
        )

    asked = msgspec.structs.replace(spec, providers=("cpu", "cuda"))
    with pytest.raises(
        UsageError, match=r"cannot be used here with cpu, cuda: the process was ended by SIGSEGV"
    ):
        profile(asked, place, run=run)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("tokenizer.json", '"<bos>"', "the start token has id 8192, and the model has 8192 emb"),
        ("tokenizer.json", None, "is not a tokenizer that the tokenizers library reads"),
        ("tokenizer_config.json", None, "cannot read tokenizer_config.json"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused_before_an_export(
    spec, corpus, place, tmp_path, name, change, words
):
    folder = shutil.copytree(REFERENCE, tmp_path / "model")
    text = (folder / name).read_text("utf-8")
    if change:
        token = {**json.loads(text)["added_tokens"][0], "id": 8192, "content": "<bos>"}
        made = {**json.loads(text), "added_tokens": [token]}
        (folder / name).write_text(json.dumps(made))
        (folder / "tokenizer_config.json").write_text(f'{{"bos_token": {change}}}')
    else:
        (folder / name).write_text(text[:100])
    run = scripted(corpus)
    asked = msgspec.structs.replace(spec, model=str(folder))
    for work in (
        lambda: profile(asked, place, run=run),
        lambda: export_folder(asked, tmp_path / "out", place, run=run),
    ):
        with pytest.raises(UsageError, match=words):
            work()
    assert not place.profiles.exists()
    assert not (tmp_path / "out").exists()
    assert not any(isinstance(step, Export) for step in run.asked)


def test_a_model_without_tokenizer_is_refused_before_an_export(spec, corpus, place, tmp_path):
    folder, run = shutil.copytree(REFERENCE, tmp_path / "model"), scripted(corpus)
    for path in folder.glob("*token*"):
        path.unlink()
    asked = msgspec.structs.replace(spec, model=str(folder), precisions=("int8s",))
    (tmp_path / "text").write_text("a text")
    for work in (
        lambda: profile(asked, place, run=run),
        lambda: export_folder(asked, tmp_path / "out", place, run=run),
        lambda: compress(tmp_path / "text", tmp_path / "text.ecap", asked, place, run=run),
    ):
        with pytest.raises(UsageError, match="holds no tokenizer"):
            work()
    assert not any(isinstance(step, Export) for step in run.asked)
    fp32 = msgspec.structs.replace(asked, precisions=("fp32",))
    assert set(export_folder(fp32, tmp_path / "out", place, run=run)) == {"fp32"}


def test_an_unwritable_output_is_refused_first(spec, corpus, place, tmp_path):
    (tmp_path / "profiles").write_text("in the way")
    run = scripted(corpus)
    with pytest.raises(UsageError, match="cannot write"):
        profile(spec, place, run=run)
    assert not any(isinstance(s, MeasureCell) for s in run.asked)


def test_export_writes_one_portable_folder(spec, corpus, place, tmp_path):
    import msgspec

    asked = msgspec.structs.replace(spec, precisions=("fp16", "int8"))
    graphs = export_folder(asked, tmp_path / "out", place, run=scripted(corpus))
    assert sorted(graphs) == ["fp16", "int8"]
    names = {
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert {
        "edgecap.json",
        "config.json",
        "tokenizer.json",
        "fp16/model.onnx",
        "int8/model.onnx",
    } <= names
    with pytest.raises(UsageError, match="is there already"):
        export_folder(asked, tmp_path / "out", place, run=scripted(corpus))


def test_precisions_that_a_folder_cannot_give(spec, corpus, place, tmp_path):
    import msgspec

    asked = msgspec.structs.replace(spec, precisions=("fp16",))
    export_folder(asked, tmp_path / "out", place, run=scripted(corpus))
    wanted = msgspec.structs.replace(spec, model=str(tmp_path / "out"), precisions=("int4",))
    with pytest.raises(UsageError, match="holds fp16; int4 cannot be made from that"):
        profile(wanted, place, run=scripted(corpus))
    record = profile(msgspec.structs.replace(wanted, precisions=()), place, run=scripted(corpus))
    assert [c.precision for c in record.cells] == ["fp16"]
    assert record.source.parameters == 1787008


def folder_of_graphs(folder, *names):
    """Write a folder whose `onnx` holds graphs that the scripted child takes as fp32."""
    (folder / "onnx").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((REFERENCE / name).read_bytes())
    for name in names:
        (folder / "onnx" / name).write_bytes(b"fp32" * 10)
    return folder


def test_graphs_beside_the_measured_one_are_named(spec, corpus, place, tmp_path):
    folder = folder_of_graphs(tmp_path / "m", "model.onnx", "model_q4.onnx", "model_fp16.onnx")
    events = []
    asked = msgspec.structs.replace(spec, model=str(folder), precisions=("fp32",))
    record = profile(asked, place, events.append, scripted(corpus))
    assert record.source.other_graphs == ("onnx/model_fp16.onnx", "onnx/model_q4.onnx")
    line = "m: onnx/model.onnx; not measured: onnx/model_fp16.onnx, onnx/model_q4.onnx"
    assert sum(line in e.stage for e in events) == 1
    text = "not measured, in the same folder: onnx/model_fp16.onnx, onnx/model_q4.onnx"
    assert text in " ".join(details(record).split())
    assert "model_q4.onnx" in dict(describe(record))["Not measured"]


def test_what_takes_precedence_is_told(spec, corpus, place, tmp_path):
    folder = folder_of_graphs(tmp_path / "m", "model.onnx")
    (folder / "model.safetensors").symlink_to(REFERENCE / "model.safetensors")
    events = []
    asked = msgspec.structs.replace(spec, model=str(folder), precisions=("fp32",))
    record = profile(asked, place, events.append, scripted(corpus))
    assert (record.source.kind, record.source.other_graphs) == ("folder", ("onnx/model.onnx",))
    assert any("m: its safetensors; not measured: onnx/model.onnx" in e.stage for e in events)
    asked = msgspec.structs.replace(asked, model=str(folder / "onnx" / "model.onnx"))
    graph = profile(asked, place, events.append, scripted(corpus))
    assert graph.source.weights_sha256 != record.source.weights_sha256
    assert isinstance(graph.source.parameters, Absent)
    assert "not measured: its safetensors" in events[-1].stage or any(
        "m: onnx/model.onnx; not measured: its safetensors" in e.stage for e in events
    )


def test_a_graph_with_inputs_of_other_kinds_is_refused_first(spec, corpus, place, tmp_path):
    """A merged decoder of older Optimum, one behind an encoder, one that takes embeddings."""
    folder = folder_of_graphs(tmp_path / "m", "decoder_model_merged.onnx")
    asked = msgspec.structs.replace(spec, model=str(folder), precisions=("fp32",))
    for name in ("use_cache_branch", "encoder_hidden_states", "inputs_embeds"):

        def run(step, watch, timeout_s, name=name):
            assert isinstance(step, Inspect)
            inputs = ("input_ids", "past_key_values.0.key", name)
            facts = GraphFacts("fp32", inputs, 16, True, ("decoder_model_merged.onnx",), 100)
            return Inspected(providers=("cpu",), graphs=(facts,))

        with pytest.raises(UsageError, match=f"merged.onnx has inputs .* know: {name}; give a"):
            profile(asked, place, run=run)
    assert not place.profiles.exists()


def test_a_chosen_graph_travels_under_its_own_name(spec, corpus, place, tmp_path):
    folder = folder_of_graphs(tmp_path / "m", "model.onnx")
    asked = msgspec.structs.replace(
        spec, model=str(folder / "onnx" / "model.onnx"), precisions=("fp32",)
    )
    export_folder(asked, tmp_path / "out", place, run=scripted(corpus))
    again = msgspec.structs.replace(asked, model=str(tmp_path / "out" / "fp32" / "model.onnx"))
    record = profile(again, place, run=scripted(corpus))
    assert (record.source.name, record.source.kind) == ("out", "onnx")
    (tmp_path / "out" / "fp32" / "stray.onnx").write_bytes(b"graph")
    stray = msgspec.structs.replace(again, model=str(tmp_path / "out" / "fp32" / "stray.onnx"))
    with pytest.raises(UsageError, match=r"edgecap.json does not list .*stray.onnx"):
        profile(stray, place, run=scripted(corpus))


def test_a_variant_that_will_not_pay_is_left_out_and_stays_a_row(spec, corpus, place, monkeypatch):
    """int8 without a dot product; nothing is made or measured for it."""
    read_machine = record_draft.read_machine
    monkeypatch.setattr(
        record_draft,
        "read_machine",
        lambda p, on_cuda: msgspec.structs.replace(read_machine(p), flags=("avx2",)),
    )
    run = scripted(corpus)
    asked = msgspec.structs.replace(spec, precisions=("fp32", "int8"), skip_unfit=True)
    fp32, int8 = profile(asked, place, run=run).cells
    assert isinstance(fp32.outcome, Measurement)
    assert int8.outcome.stage == LEFT_OUT
    assert "no int8 dot product" in int8.outcome.message
    assert not any(isinstance(s, Quantize) for s in run.asked)


def test_a_graph_is_finished_for_its_provider(spec, corpus, place, monkeypatch):
    """Providers that compile plain graphs get one;
    sessions are given the options that were asked for.
    """
    run = scripted(corpus)

    def offers(step, watch, timeout_s):
        found = run(step, watch, timeout_s)
        return (
            msgspec.structs.replace(found, providers=("cpu", "openvino"))
            if isinstance(found, Inspected)
            else found
        )

    providers = ("cpu", "openvino:device_type=CPU")
    asked = msgspec.structs.replace(
        spec, precisions=("fp32", "int8"), providers=providers, graph_level="basic", arena=False
    )
    record = profile(asked, place, run=offers)
    assert [c.provider for c in record.cells] == [p for p in providers for _ in range(2)]
    made = [s for s in run.asked if isinstance(s, Quantize)]
    assert [s.operators for s in made] == ["contrib", "standard"]
    recipes = [c.graph.recipe for c in record.cells if c.precision == "int8"]
    assert ["DequantizeLinear" in recipe for recipe in recipes] == [False, True]
    assert [s.finish for s in run.asked if isinstance(s, Export)] == ["fused", "bare"]
    sessions = [s.plan.session for s in run.asked if isinstance(s, MeasureCell)]
    assert [(s.provider, s.level, s.arena) for s in sessions] == [
        (p, "basic", False) for p in providers for _ in range(2)
    ]


def test_static_int8_is_made_on_the_text_and_again_on_another(spec, corpus, place, tmp_path):
    run = scripted(corpus)
    asked = msgspec.structs.replace(spec, precisions=("int8s",), energy="off")
    profile(asked, place, run=run)
    profile(msgspec.structs.replace(asked, documents=3), place, run=run)
    made = [s for s in run.asked if isinstance(s, Quantize)]
    assert [s.corpus.count for s in made] == [6, 3]
    assert all(s.tokenizer for s in made)


@pytest.mark.parametrize("broken", [MeasureLatency, MeasureMemory])
def test_a_part_that_died_is_told_and_the_rest_is_kept(spec, corpus, place, broken):
    """The child that times, or weighs, is killed: a caution, no number,
    and the run has not gone well.
    """
    run = scripted(corpus)

    def dies(step, watch, timeout_s):
        killed = Failure(
            stage="latency", error="Killed", message="the process was ended by SIGKILL (9)"
        )
        return killed if isinstance(step, broken) else run(step, watch, timeout_s)

    record = profile(msgspec.structs.replace(spec, precisions=("fp32",)), place, run=dies)
    (cell,) = record.cells
    assert isinstance(cell.outcome.compression, Compression)
    part = "latency" if broken is MeasureLatency else "memory"
    assert getattr(cell.outcome, part).failed
    assert f"{part}-failed" in {c.code for c in cell.cautions}
    assert has_failure(cell)
    assert "SIGKILL" in details(record)


def test_a_quick_run_measures_an_excerpt(place, tmp_path):
    rng = random.Random(5)
    lines = [
        json.dumps({"text": "".join(rng.choices("abc ", k=900)), "domain": d}) for d in "aab" * 9
    ]
    text = tmp_path / "long.jsonl"
    text.write_text("\n".join(lines))
    part = excerpt(read_corpus(str(text)))
    run = scripted(part)
    record = profile(Spec(corpus=str(text), quick=True), place, run=run)
    assert record.corpus.documents == 24
    assert {name: d.documents for name, d in record.corpus.domains.items()} == {"a": 16, "b": 8}
    assert record.corpus.sha256 == part.sha256
    (timed,) = [s for s in run.asked if isinstance(s, MeasureLatency)]
    assert (timed.prefill_tokens, timed.decode_context, timed.few_rounds) == (128, 128, True)
    assert timed.limit_s == record.spec.limit_s == 8
    amounts = [
        (s.prefill_tokens, s.decode_steps, s.samples)
        for s in run.asked
        if isinstance(s, MeasureCell)
    ]
    assert set(amounts) == {(128, 8, 2)}


def test_a_log_of_more_documents_than_the_text_is_begun_anew(spec, corpus, place, tmp_path):
    asked, known = msgspec.structs.replace(spec, precisions=("fp32",)), KnownScores(tmp_path / "s")

    def documents_of(record):
        return record.cells[0].outcome.compression.per_document

    def again():
        return documents_of(profile(asked, place, run=scripted(corpus), scores=known))

    whole = again()
    (log,) = known.folder.iterdir()
    finished = JsonlLog(log, ScoredDocument)
    assert len(finished.finished) == corpus.count
    finished.add(finished.finished[0])
    assert again() == whole
    assert len(JsonlLog(log, ScoredDocument).finished) == corpus.count


def test_more_documents_than_the_text_has_are_refused(spec, corpus, place):
    bits = DocumentBits(id="x", domain="a", bytes=9, tokens=3, nll_bits=1.0)
    known = KnownScores(documents=(ScoredDocument(bits, True, 1.0),) * (corpus.count + 1))
    run = scripted(corpus)
    with pytest.raises(UsageError, match="7 documents were scored elsewhere, of a text of 6"):
        profile(spec, place, run=run, scores=known)
    assert not any(isinstance(step, MeasureCell) for step in run.asked)


@pytest.mark.parametrize(
    ("asked", "limit_s"),
    [
        ({}, 30),
        ({"quick": True}, 8),
        ({"quick": True, "limit_s": 60.0}, 60),
        ({"quick": True, "limit_s": 30.0}, 30),
    ],
)
def test_a_limit_that_was_given_holds_in_a_quick_run_too(spec, corpus, place, asked, limit_s):
    run = scripted(corpus)
    fields = {"corpus": spec.corpus, "precisions": ("fp32",), **asked}
    assert profile(Spec(**fields), place, run=run).spec.limit_s == limit_s
    (timed,) = [s for s in run.asked if isinstance(s, MeasureLatency)]
    assert timed.limit_s == limit_s


def test_a_quick_run_measures_the_graphs_of_a_full_one(place, tmp_path):
    """Ranges of int8s come from the whole text, so that its file and its cache key are the same."""
    text = tmp_path / "long.jsonl"
    text.write_text("\n".join(json.dumps({"text": f"{n} " * 400}) for n in range(9)))
    names = tuple(name for name in PRECISIONS if name != "tuned")
    quick = Spec(corpus=str(text), precisions=names, quick=True)
    run = scripted(excerpt(read_corpus(str(text))))
    profile(quick, place, run=run)
    made = {Form(s.weights, s.arithmetic): s for s in run.asked if isinstance(s, Quantize)}
    assert set(made) == {form_of(name, "cpu") for name in names if name != "fp32"}
    assert not any(s.corpus and s.corpus.pieces for s in made.values())
    assert made[Form("int8s")].corpus == read_corpus(str(text))
    run = scripted(read_corpus(str(text)))
    profile(msgspec.structs.replace(quick, quick=False), place, run=run)
    assert not [s for s in run.asked if isinstance(s, Quantize)]


def announced(spec, place, run):
    """The parts of the work that a run announces, and what it tells first."""
    events = []
    profile(spec, place, events.append, run)
    (work,) = [event.work for event in events if event.work]
    return work, events[0]


def test_work_is_announced_first_and_none_for_what_is_cached(spec, corpus, place):
    asked = msgspec.structs.replace(spec, precisions=("int8", "int4"))
    fp32, int8, int4 = (CellSpec(name, "cpu") for name in ("fp32", "int8", "int4"))
    work, first = announced(asked, place, scripted(corpus))
    assert (first.cell, first.stage) == (None, "inspecting model and runtime")
    assert [(part.cell, part.kind) for part in work] == [
        (fp32, "build"),
        (None, "set up"),
        (int8, "build"),
        (int8, "measure"),
        (int4, "build"),
        (int4, "measure"),
        (None, "rounds"),
    ]
    again, _ = announced(asked, place, scripted(corpus))
    assert again == tuple(p for p in work if p.kind in ("measure", "rounds"))
    more = msgspec.structs.replace(
        asked, precisions=("int8", "fp16"), batches=(1, 4), calibrate=True
    )
    kinds = [
        (part.cell and part.cell.precision, part.kind)
        for part in announced(more, place, scripted(corpus))[0]
    ]
    assert ("fp16", "build") in kinds and ("int8", "build") not in kinds
    assert (None, "set up") in kinds and (None, "sweeps") in kinds


def test_a_larger_model_has_more_work_in_the_same_proportions(spec, corpus, place, tmp_path):
    asked = msgspec.structs.replace(spec, precisions=("int4",))
    small, _ = announced(asked, place, scripted(corpus))
    larger = msgspec.structs.replace(asked, model=str(REFERENCE.parent / "edgecap-ref-m"))
    large, _ = announced(larger, place, scripted(corpus))
    seconds = [
        {(p.cell, p.kind): p.seconds for p in work if p.kind in ("build", "measure")}
        for work in (small, large)
    ]
    assert seconds[0].keys() == seconds[1].keys()
    assert all(seconds[1][key] > value for key, value in seconds[0].items())


def test_rounds_know_what_the_bits_of_each_cell_are_worth(spec, corpus, place):
    run = scripted(corpus)
    profile(spec, place, run=run)
    for changes in ({"precision_target": 0.01}, {"precisions": ("fp32",)}):
        profile(msgspec.structs.replace(spec, **changes), place, run=run)
    deciding, precise, alone = [s for s in run.asked if isinstance(s, MeasureLatency)]
    baseline, *others = deciding.gains
    assert baseline is None
    assert all(low <= high for low, high in others)
    assert others[-1][1] < 1  # the fake variants predict worse than fp32
    assert deciding.margin == BY_NAME["effective_flops_per_s"].margin
    assert precise.gains == alone.gains == ()


def test_of_one_document_only_the_baseline_has_no_gain(corpus, place, spec):
    run = scripted(read_corpus(spec.corpus, 1))
    asked = msgspec.structs.replace(spec, documents=1, precisions=("int8", "fp32", "int4"))
    profile(asked, place, run=run)
    (timed,) = [s for s in run.asked if isinstance(s, MeasureLatency)]
    assert [gain is None for gain in timed.gains] == [False, True, False]
    assert timed.gains[0][0] == timed.gains[0][1]  # no interval


def test_the_usual_contexts_are_timed_for_details(spec, corpus, place):
    run = scripted(corpus)
    for changes in ({"details": True}, {"batches": (1, 4)}):
        asked = msgspec.structs.replace(spec, precisions=("fp32",), **changes)
        profile(asked, place, run=run)
    usual, none = [s for s in run.asked if isinstance(s, MeasureLatency)]
    assert usual.sweep == (
        128,
        512,
    )  # the reference model has 1024 positions, and 8 are decoded behind
    assert (none.sweep, none.batches) == ((), (1, 4))


# --- a bias of another protocol ---------------------------------------------------------------


def carded(path, context=1024):
    """A card beside a corpus, whose bias was fitted under the exact protocol;
    the path of the corpus.
    """
    found = bias_card.BiasCard(
        corpus="six", sha256=read_corpus(str(path)).sha256, bias_bits=-1.25, low=None, high=None,
        criterion="c", spread_with_zero=0.1, spread_fitted=0.01, protocol="exact", context=context,
        stride=None, precision="fp32", edgecap="0", models=(),
    )  # fmt: skip
    bias_card.card_path(path).write_text(bias_card.encode_card(found))
    return path


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, None),
        ({"context": 256}, "protocol exact, window 256"),
        ({"protocol": "paper"}, "protocol paper, window 1024"),
        ({"stride": 128}, "protocol exact, window 1024, stride 128"),
        ({"context": 256, "bias_bits": -1.25}, None),
        ({"documents": 3, "context": 256}, None),
    ],
)
def test_a_bias_that_was_fitted_otherwise_is_told_and_applied(
    spec, corpus_file, place, asked, said
):
    carded(corpus_file)
    asked = msgspec.structs.replace(spec, precisions=("fp32", "int8"), **asked)
    record = profile(asked, place, run=scripted(read_corpus(asked.corpus, asked.documents)))
    assert record.corpus.bias_bits == (0 if asked.documents else -1.25)
    for cell in record.cells:
        told = [c.message for c in cell.cautions if c.code == "bias-of-another-protocol"]
        fitted = "the bias -1.25 was fitted under protocol exact, window 1024"
        words = f"{fitted}; this text was scored under {said}"
        assert told == ([] if said is None else [words])


def test_a_model_with_fewer_positions_than_the_card_was_fitted_with_is_told(
    spec, corpus_file, place
):
    carded(corpus_file, context=2048)
    record = profile(
        msgspec.structs.replace(spec, precisions=("fp32",)),
        place,
        run=scripted(read_corpus(spec.corpus)),
    )
    (told,) = [c for c in record.cells[0].cautions if c.code == "bias-of-another-protocol"]
    assert "window 2048; this text was scored under protocol exact, window 1024" in told.message


def test_a_cell_that_was_not_scored_has_no_bias_to_doubt(spec, corpus_file, place):
    carded(corpus_file, context=2048)
    asked = msgspec.structs.replace(spec, precisions=("fp32",))
    record = profile(asked, place, run=scripted(read_corpus(spec.corpus), broken=("fp32",)))
    assert record.cells[0].cautions == ()
