"""benchmarks/quick.py with runs that are replaced; the PyTorch pass of nll.py on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from choosing import cell, failed, record, renamed
from conftest import ROOT, build_model

from edgecap.storage.records import record_path, save

sys.path.append(str(ROOT / "benchmarks"))

import nll
import quick

FAST = {"decode": (0.002, 0.0021, 0.0019, 0.002, 0.002), "ttft": 0.1}
PASS = {"published_s": 4.0, "load_s": 1.0}


def run_with(monkeypatch, records, *options, fails_at=None, status=1):
    """Run the script; each profile writes `records`, the run of number `fails_at` fails."""
    commands = []

    def run(command, **_):
        commands.append(command)
        if "--published" in command:
            return subprocess.CompletedProcess(command, 0, json.dumps(PASS), "")
        folder = Path(command[command.index("-o") + 1])
        for made in records:
            save(made, record_path(folder, made))
        bad = len(commands) == fails_at
        said = "\n".join(f"line {n}" for n in range(99)) if bad else "fine"
        return subprocess.CompletedProcess(command, status if bad else 0, "", said)

    monkeypatch.setattr(quick.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["quick.py", *options])
    quick.main()
    return commands


def test_cells_of_two_models_and_providers_have_numbers_of_their_own(monkeypatch, tmp_path, capsys):
    both = record(cell(), cell("int8", **FAST), cell("int8", provider="cuda"))
    out = tmp_path / "r.json"
    records = [both, renamed(both, model="another")]
    run_with(monkeypatch, records, "--repeats", "2", "--json", str(out))
    numbers = json.loads(out.read_text())
    names = [f"int8 {p} ({m})" for m in ("another", "edgecap-ref-xs") for p in ("cpu", "cuda")]
    assert list(numbers["full"]) == names == list(numbers["agreement"])
    assert [numbers["full"][name] == "better" for name in names] == [True, False, True, False]
    assert numbers["agreement"][names[0]] == {"agrees": 2}
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_a_variant_that_no_quick_run_has_is_missing(monkeypatch, tmp_path):
    full, out = tmp_path / "full.json", tmp_path / "r.json"
    save(record(cell(), cell("int8", **FAST), cell("fp16")), full)
    options = ["--full", str(full), "--repeats", "1", "--json", str(out)]
    run_with(monkeypatch, [record(cell(), cell("int8", **FAST))], *options)
    numbers = json.loads(out.read_text())
    assert numbers["agreement"] == {"int8": {"agrees": 1}, "fp16": {"missing": 1}}
    assert numbers["full_s"] is None


def test_a_failed_run_says_which_and_why_and_keeps_what_was_measured(monkeypatch, tmp_path):
    out = tmp_path / "r.json"
    options = ["--repeats", "3", "--json", str(out)]
    with pytest.raises(SystemExit) as ended:
        run_with(
            monkeypatch, [record(cell(), cell("int8", **FAST))], *options, fails_at=3, status=2
        )
    lines = str(ended.value.code).splitlines()
    assert lines[0] == "quick run 2 of 3 failed with status 2:"
    assert lines[1:] == [f"line {n}" for n in range(99 - quick.SHOWN, 99)]
    numbers = json.loads(out.read_text())
    assert len(numbers["quick_s"]) == 1 and numbers["full_s"] is not None
    assert numbers["agreement"] == {"int8": {"agrees": 1}}


def test_a_cell_that_failed_is_named(monkeypatch):
    with pytest.raises(SystemExit, match="full run failed.*(?s:.)*int4: "):
        run_with(monkeypatch, [record(cell(), failed("int4"))], fails_at=1)


def test_the_published_pass_runs_on_the_folder_of_the_model(monkeypatch, tmp_path, capsys):
    out = tmp_path / "r.json"
    options = ["--published", "--repeats", "1", "--json", str(out)]
    commands = run_with(monkeypatch, [record(cell(), cell("int8", **FAST))], *options)
    full, beside, brief = commands
    assert "--quick" not in full and "--quick" in brief
    folder = Path(beside[beside.index("--published") + 1])
    assert folder.samefile(ROOT / "models" / "edgecap-ref-xs")
    numbers = json.loads(out.read_text())
    assert numbers["published"] == PASS
    assert f"full / published: {numbers['full_s'] / 4:.2f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--published", "--model", "/no/such/folder"], "/no/such/folder"),
        (["--published", "--full", "r.json"], 2),
    ],
)
def test_a_published_pass_that_cannot_be_compared_is_refused(options, reason, monkeypatch):
    with pytest.raises(SystemExit) as ended:
        run_with(monkeypatch, [], *options)
    assert ended.value.code == reason or reason in ended.value.code


def test_the_published_pass_scores_each_document_once(monkeypatch, tmp_path):
    """Its bits are those of transformers without padding."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from edgecap.text import corpus
    from edgecap.text.tokenizer import read_paper_tokenizer

    folder, read = build_model(tmp_path / "model"), corpus.read_corpus
    monkeypatch.setattr(corpus, "read_corpus", lambda name: read(name, 3))
    found = nll.published(folder, 1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    encode, bits = read_paper_tokenizer(folder).encode_with_specials, []
    for document in read("edgecap-mixed", 3).documents:
        ids = torch.tensor([encode(document.text, nll.WINDOW)])
        with torch.no_grad():
            ln_p = torch.log_softmax(model(ids).logits[0, :-1], -1)
        bits += (-ln_p[torch.arange(ids.shape[1] - 1), ids[0, 1:]] / np.log(2)).tolist()
    assert (found["documents"], found["tokens"]) == (3, len(bits))
    assert found["bits_per_token"] == pytest.approx(np.mean(bits), rel=1e-4)
