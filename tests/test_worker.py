"""worker: real child processes that crash, hang, refuse, fill the disk and lose their parent."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from edgecap.errors import DiskFull, UsageError
from edgecap.pipeline.worker import BuiltGraph, Inspect, Inspected, Quantize, in_child, parent
from edgecap.pipeline.worker.answers import (
    Refusal,
)
from edgecap.pipeline.worker.child import answer
from edgecap.record import Failure
from edgecap.runtime import providers


def child_that(monkeypatch, code):
    """Replaces the child's program; it still reads its step first."""
    script = f"import sys, os, signal, time\nsys.stdin.readline()\n{code}"
    real = subprocess.Popen
    monkeypatch.setattr(
        parent.subprocess, "Popen", lambda command, **kw: real([sys.executable, "-c", script], **kw)
    )


def test_a_real_child_answers():
    found = in_child(Inspect())
    assert isinstance(found, Inspected)
    assert "cpu" in found.providers


def test_a_refusal_becomes_an_error(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not onnx at all")
    with pytest.raises(UsageError, match="is not an ONNX file"):
        in_child(Inspect(graphs=(str(tmp_path / "bad.onnx"),)))


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL", "out of memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV", "ended by SIGSEGV"),
        pytest.param(
            *("os.kill(os.getpid(), 35)", "signal 35", "ended by signal 35"),
            marks=pytest.mark.skipif(
                not hasattr(signal, "SIGRTMIN"), reason="no signals for real time here"
            ),
        ),
        ("print('oops', file=sys.stderr); sys.exit(3)", "Exit", "status 3: oops"),
        ('print(\'{"kind": "banana"}\')', "BadAnswer", "nonsense"),
        ("print('hello')", "BadAnswer", "nonsense"),
    ],
)
def test_every_end_becomes_a_value(monkeypatch, code, error, words):
    child_that(monkeypatch, code)
    found = in_child(Inspect())
    assert isinstance(found, Failure)
    assert (found.stage, found.error) == ("worker" if error == "BadAnswer" else "look", error)
    assert words in found.message


def test_only_providers_that_are_asked_for_are_tried(monkeypatch):
    tried = []
    monkeypatch.setattr(
        providers, "built_providers", lambda: ("cpu", "cuda", "tensorrt", "openvino")
    )
    monkeypatch.setattr(
        providers, "provider_problem", lambda asked: tried.append(asked) or "it has no device"
    )
    found = answer(Inspect(providers=("cpu", "cuda:device_id=1")), lambda stage, done, total: None)
    assert tried == ["cuda"]
    assert found.providers == ("cpu", "tensorrt", "openvino")
    assert found.refused == {"cuda": "it has no device"}


def test_a_child_that_hangs_is_ended(monkeypatch):
    child_that(monkeypatch, "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")
    monkeypatch.setattr(parent, "_GRACE_S", 0.2)
    found = in_child(Inspect(), timeout_s=0.5)
    assert found.error == "Timeout"
    assert not [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]


def test_a_child_that_speaks_is_not_ended(monkeypatch):
    line = '{"kind": "progress", "stage": "compression", "done": 1, "total": 9}'
    last = '{"kind": "made", "files": []}'
    five = f"[(print({line!r}, flush=True), time.sleep(0.4)) for _ in range(5)]"
    code = f"{five}; print({last!r}, flush=True)"
    child_that(monkeypatch, code)
    assert in_child(Inspect(), timeout_s=1.5) == BuiltGraph(files=())


def test_errors_become_values_in_the_child(tmp_path):
    found = answer(Inspect(graphs=(str(tmp_path / "no.onnx"),)), lambda stage, done, total: None)
    assert isinstance(found, Refusal)
    assert "cannot read" in found.message


def test_a_graph_that_was_read_before_fails_one_cell(tmp_path):
    """protobuf tells the end of memory as damage;
    what was found and described is not the user's mistake.
    """
    (tmp_path / "bad.onnx").write_bytes(b"not onnx at all")
    found = answer(
        Quantize(
            graph=str(tmp_path / "bad.onnx"), weights="fp16", arithmetic="", out=str(tmp_path)
        ),
        lambda *progress: None,
    )
    assert isinstance(found, Failure)
    assert (found.stage, found.error) == ("vary", "Unreadable")
    assert found.message.startswith("read before, not now, as where memory runs out: ")


def test_the_end_of_memory_is_no_damage(tmp_path, monkeypatch):
    import onnx

    def full(*args, **options):
        raise MemoryError

    monkeypatch.setattr(onnx, "load", full)
    found = answer(
        Quantize(graph=str(tmp_path / "m.onnx"), weights="fp16", arithmetic="", out=str(tmp_path)),
        lambda *progress: None,
    )
    assert found == Failure(stage="vary", error="MemoryError", message="out of memory")


def test_a_full_disk_in_the_child_is_told(tmp_path, monkeypatch):
    from edgecap.pipeline.worker.handlers import graphs

    def full(step, report):
        raise OSError(28, "No space left on device", "/cache/model.onnx")

    monkeypatch.setitem(graphs.HANDLERS, Quantize, full)
    found = answer(
        Quantize(graph="g", weights="fp16", arithmetic="", out="o"), lambda stage, done, total: None
    )
    assert found.disk_full
    refusal = json.dumps({"kind": "refusal", "message": "full", "disk_full": True})
    child_that(monkeypatch, f"print({json.dumps(refusal)})")
    with pytest.raises(DiskFull):
        in_child(Inspect())


def test_a_child_leaves_with_its_parent(tmp_path):
    """kill -9 of the parent: the child sees the end of its standard input and goes."""
    script = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'edgecap.pipeline.worker'],\n"
        "    stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)\n"
        "print(p.pid, flush=True)\n"
        'p.stdin.write(b\'{"kind": "export", "folder": "/", "out": "/nowhere",\'\n'
        "    b' \"trust_remote_code\": false}\\n'); p.stdin.flush()\n"
        "time.sleep(60)\n"
    )
    top = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    pid = int(top.stdout.readline())
    os.kill(top.pid, signal.SIGKILL)
    top.wait()
    top.stdout.close()
    for _ in range(300):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the child outlived its parent")


def test_the_peak_of_a_child_is_its_own():
    """ru_maxrss survives fork and exec: 300 MB of the parent must not show in the child."""
    code = "from edgecap.meters.memory import peak_bytes; print(peak_bytes())"
    script = (
        "import subprocess, sys\nballast = bytearray(300_000_000)\n"
        "ballast[::4096] = b'x' * len(ballast[::4096])\n"
        f"subprocess.run([sys.executable, '-c', {code!r}])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert int(found.stdout) < 150_000_000


def test_the_child_runs_the_edgecap_of_its_parent():
    assert Path(parent._import_path().split(os.pathsep)[0]) == ROOT
