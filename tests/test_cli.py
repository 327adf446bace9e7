"""The command line as people meet it: results on standard output,
one line on error, exit statuses.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import psutil
import pytest
from commands import edgecap
from conftest import REFERENCE, ROOT, VARIANTS
from exports import exported
from fakes import FakeClock

from edgecap.cli import live
from edgecap.pipeline.run_context import ProgressEvent, WorkPart
from edgecap.record import SCHEMA
from edgecap.spec import CellSpec

RECORD = ROOT / "tests" / "data" / "record-1.json"


def test_help_teaches():
    found = edgecap("--help")
    assert found.returncode == 0
    for command in ("profile", "export", "show", "compare", "compress", "decompress", "schema"):
        assert command in found.stdout
        assert "Example: edgecap" in edgecap(command, "--help").stdout


def test_show_and_compare_in_both_forms():
    assert "bits/byte" in edgecap("show", RECORD).stdout
    assert (
        json.loads(edgecap("show", RECORD, "--json").stdout)["cells"][0]["medians"]["decode_s"][
            "value"
        ]
        > 0
    )
    assert "int8d against fp16" in edgecap("compare", RECORD, "--baseline", "precision=fp16").stdout
    assert json.loads(edgecap("compare", RECORD, "--json").stdout)[0]["baseline"] == "fp32"


def test_the_schema_accepts_the_record():
    schema = json.loads(edgecap("schema").stdout)
    newest = ROOT / "tests" / "data" / f"record-{SCHEMA}.json"
    jsonschema.validate(json.loads(newest.read_text()), schema)


def test_no_colour_and_no_width_when_piped():
    assert "\x1b[" not in edgecap("show", RECORD).stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("profile", "--model", "./nothing"), 2, "no model './nothing'"),
        (("profile", "--model", "nobody/nothing"), 2, "cannot fetch model 'nobody/nothing'"),
        (
            ("profile", "--precision", "int9"),
            2,
            "unknown precision 'int9' (known: fp32, fp16, int8, int4, ",
        ),
        (("profile", "--provider", "cuba"), 2, "did you mean 'cuda'"),
        (
            ("profile", "--provider", "coreml"),
            2,
            "'coreml' is not available in the installed ONNX Runtime",
        ),
        (
            ("profile", "--provider", "cuda"),
            2,
            "'cuda' is not available in the installed ONNX Runtime",
        ),
        (("profile", "--provider", ""), 2, "no provider given"),
        (("profile", "--timeout", "1e18"), 2, "--timeout 1e+18"),
        (("profile", "--model", "m" * 5000), 2, "no usable name"),
        (("profile", "--corpus", "nothing.jsonl"), 2, "cannot read corpus 'nothing.jsonl'"),
        (
            ("profile", "--context", "5000"),
            2,
            "--context 5000 is longer than the model's 1024 positions",
        ),
        (("profile", "--context", "many"), 2, "not a valid integer"),
        (("profile", "--quick", "--stride", "8"), 2, "--stride gives the tokens of long documents"),
        (("profile", "--quick", "--protocol", "paper"), 2, "and --quick scores pieces of them"),
        (
            ("profile", "--quick", "--rank-documents", "ranks.jsonl"),
            2,
            "--rank-documents ranks whole documents, and --quick scores pieces of them",
        ),
        (("profile", "-o", "/proc/profiles"), 2, "cannot write /proc/profiles"),
        (("profile", "--no-such-option"), 2, "No such option"),
        (("compare", RECORD, "--baseline", "precision=fp64"), 2, "no measured cell matches"),
        (("show", "nothing.json"), 3, "cannot read nothing.json"),
        (("show", ROOT / "pyproject.toml"), 3, "is not a whole JSON file"),
        (("export", "--model", "./nothing", "-o", "out"), 2, "no model './nothing'"),
        (("optimize", "--plain", "-o", "out"), 2, "No such option"),
        (("optimize", "--exporter", "genai", "-o", "out"), 2, "No such option"),
    ],
)
def test_mistakes_are_one_line(words, code, message, tmp_path):
    found = edgecap(*words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert found.returncode == code
    assert message in found.stderr
    assert "Traceback" not in found.stderr
    assert found.stdout == ""
    assert [p.name for p in tmp_path.iterdir() if p.name != "profiles"] == []
    assert not (tmp_path / "profiles").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{}", "no field"),
        ("config.json", b'{"model_type": "llama"}', "num_hidden_layers"),
        ("model.onnx", b"", "is not an ONNX file"),
        ("model.onnx", b"garbage", "is not an ONNX file"),
    ],
)
def test_broken_folders_are_one_line(tmp_path, name, content, message):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((REFERENCE / "model.safetensors").read_bytes())
    (folder / name).write_bytes(content)
    found = edgecap(
        "profile", "--model", folder, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert found.returncode == 2
    assert message in found.stderr
    assert len(found.stderr.strip().splitlines()) <= 3  # what is going on, and the message
    assert not (tmp_path / "profiles").exists()


@pytest.mark.slow
def test_a_cut_graph_is_refused(cache, tmp_path):
    folder = exported(REFERENCE, cache)
    whole = (folder / "fp32/model.onnx").read_bytes()
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "config.json").write_bytes((folder / "config.json").read_bytes())
    (cut / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (cut / "model.onnx").write_bytes(whole[: len(whole) // 2])
    found = edgecap(
        "profile", "--model", cut, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert found.returncode == 2
    assert "damaged" in found.stderr


def test_profile_json_is_all_that_is_printed(cache, corpus_file, tmp_path):
    words = (
        "profile",
        "--model",
        exported(REFERENCE, cache),
        "--corpus",
        corpus_file,
        "--limit",
        "1",
        "--json",
    )
    found = edgecap(*words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert found.returncode == 0, found.stderr
    record = json.loads(found.stdout)
    assert record["complete"]
    assert "fp32 on cpu: scoring the text" in found.stderr
    (path,) = (tmp_path / "profiles").iterdir()
    assert json.loads(path.read_text())["created_utc"] == record["created_utc"]


@pytest.mark.kill
def test_ctrl_c_leaves_a_record_and_no_orphan(cache, corpus_file, tmp_path):
    folder = exported(REFERENCE, cache, VARIANTS)
    command = [
        sys.executable,
        "-m",
        "edgecap",
        "profile",
        "--model",
        str(folder),
        "--corpus",
        str(corpus_file),
        "--limit",
        "2",
    ]
    run = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background jobs ignore it
    )
    children = []
    for line in run.stderr:
        children += [
            c for c in psutil.Process(run.pid).children(recursive=True) if c not in children
        ]
        if "fp16 on cpu: scoring the text" in line:
            run.send_signal(signal.SIGINT)
            break
    rest = run.communicate(timeout=60)[1]
    assert run.returncode == 130
    assert "interrupted: 1 of 4 cells are in" in rest
    assert "Traceback" not in rest
    (path,) = (tmp_path / "profiles").iterdir()
    assert "incomplete" in edgecap("show", path).stdout
    time.sleep(0.5)
    assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]


FP32, INT8 = CellSpec("fp32", "cpu"), CellSpec("int8", "cpu")
WORK = (
    WorkPart(FP32, "build", 30.0),
    WorkPart(None, "set up", 20.0),
    WorkPart(FP32, "measure", 40.0),
    WorkPart(INT8, "build", 10.0),
    WorkPart(INT8, "measure", 40.0),
    WorkPart(None, "rounds", 60.0),
)


def test_elsewhere_lines_tell_each_stage_and_every_while_what_is_left(monkeypatch, capsys):
    monkeypatch.setattr(live, "EVERY_S", 0.05)
    with live.Live() as shown:
        shown(ProgressEvent(None, "to measure: fp32, int8", work=WORK))
        shown(ProgressEvent(FP32, "compression", 1, 2))
        shown(ProgressEvent(FP32, "compression", 2, 2))
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    stages = [line for line in lines if "% done" not in line]
    assert stages == [
        "edgecap: preparing",
        "edgecap: to measure: fp32, int8",
        "edgecap: fp32 on cpu: scoring the text",
    ]
    (told,) = {line for line in lines if "% done" in line}
    assert told.startswith("edgecap: fp32 on cpu: scoring the text (41% done, about ")
    time.sleep(0.1)
    assert not capsys.readouterr().err  # it ends with the run


def test_before_the_first_event_a_line_tells_that_it_begins(capsys):
    with live.Live():
        assert capsys.readouterr().err == "edgecap: preparing\n"


@pytest.mark.parametrize(
    ("left_s", "text"),
    [
        (0.0, "about 10 s left"),
        (61.0, "about 60 s left"),
        (88.0, "about 90 s left"),
        (180.0, "about 3 min left"),
    ],
)
def test_what_is_left_of_a_run(left_s, text):
    assert live.left_text(left_s) == text


def shares(events, clock=None, seconds=0.0):
    """The share after each event, `seconds` apart."""
    clock = clock or FakeClock()
    left, found = live.TimeLeft(clock.now), []
    for event in events:
        left.add(event)
        clock.sleep(seconds)
        found.append(left.share())
    return found


BEGUN = ProgressEvent(None, "to measure", work=WORK)
TOGETHER = [
    ProgressEvent(None, "warm-up"),
    *(ProgressEvent(None, "latency", n, 4) for n in (0, 2, 4)),
]
RUN = [
    BEGUN,
    ProgressEvent(FP32, "export"),
    ProgressEvent(FP32, "compare with transformers"),
    ProgressEvent(None, "measuring the machine's peaks"),
    *(ProgressEvent(FP32, stage, n, 2) for stage in live.STAGES for n in (0, 1, 2)),
    ProgressEvent(INT8, "making int8"),
    *(ProgressEvent(INT8, stage, n, 2) for stage in live.STAGES for n in (0, 1, 2)),
]


@pytest.mark.parametrize("seconds", [0.0, 1.0, 100.0])
def test_the_share_of_a_run_grows_to_the_end_and_ends_with_it(seconds):
    found = shares([*RUN, *TOGETHER], seconds=seconds)
    assert found == sorted(found)
    assert found[0] == 0
    assert found[-1] == 0.99


def test_an_export_that_tells_nothing_is_part_of_the_work():
    clock = FakeClock()
    left = live.TimeLeft(clock.now)
    left.add(BEGUN)
    left.add(ProgressEvent(FP32, "export"))
    assert left.text() == "0% done, about 3 min left"
    clock.sleep(15)
    left.add(ProgressEvent(FP32, "compare with transformers"))
    assert left.share() == pytest.approx(15 / 200)
    clock.sleep(1e4)
    assert left.share() == pytest.approx(0.9 * 30 / 200)  # slower than expected: it waits
    left.add(ProgressEvent(FP32, "compression"))
    assert left.share() == pytest.approx((30 + 20 + 0.2 * 40) / 200)


@pytest.mark.parametrize("together", [[], TOGETHER[:3]])
def test_cells_that_are_timed_one_by_one_take_the_share_of_all(together):
    """On several providers from the start, and after the process that times all has ended early."""
    alone = [event._replace(cell=cell) for cell in (FP32, INT8) for event in TOGETHER]
    found = shares([*RUN, *together, *alone])
    assert found == sorted(found)
    begin = (140 + (30 if together else 0)) / 200
    assert found[-len(alone)] == pytest.approx(begin)
    assert found[-len(alone) // 2 - 1] == pytest.approx((begin + 1) / 2)
    assert found[-1] == 0.99


def test_work_to_do_is_never_told_as_none():
    clock = FakeClock()
    left = live.TimeLeft(clock.now)
    for event in [*RUN, *TOGETHER]:
        left.add(event)
    clock.sleep(500)
    assert left.text() == "99% done, about 10 s left"
    left = live.TimeLeft(clock.now)
    left.add(ProgressEvent(None, "compress", 1, 4))
    assert left.text() == ""
    clock.sleep(60)
    assert left.text() == "25% done, about 3 min left"


def test_a_failed_cell_exits_with_one(cache, corpus_file, tmp_path):
    """A decoder with a weight that is no number cannot be scored."""
    folder = tmp_path / "model"
    portable = exported(REFERENCE, cache)
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((portable / name).read_bytes())
    graph = onnx.load(portable / "fp32/model.onnx")
    norm = next(t for t in graph.graph.initializer if "norm" in t.name and len(t.dims) == 1)
    broken = np.full(norm.dims, np.nan, np.float32)
    norm.CopyFrom(onnx.numpy_helper.from_array(broken, norm.name))
    onnx.save(graph, folder / "model.onnx")
    words = ("profile", "--model", folder, "--corpus", corpus_file, "--limit", "1")
    found = edgecap(*words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert found.returncode == 1
    assert "failed: fp32 on cpu, compression" in " ".join(found.stdout.split())
    assert Path(tmp_path / "profiles").is_dir()
