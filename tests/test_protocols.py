"""How text is scored: sliding windows, the paper's protocol, resuming, baselines,
corpora on the Hub; with oracles.
"""

import csv
import http.server
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import msgspec
import numpy as np
import pytest
from commands import edgecap
from conftest import REFERENCE
from fakes import ByteTokenizer, FakeClock, FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from edgecap.errors import UsageError
from edgecap.meters import text_windows
from edgecap.meters.compression import ScoredDocument, WindowPlan, measure_compression
from edgecap.storage import hub
from edgecap.storage.jsonl_log import JsonlLog
from edgecap.text import corpus
from edgecap.text.compressors import measure_baselines
from edgecap.text.tokenizer import read_tokenizer

# --- sliding windows --------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 99), max_size=80),
    st.integers(2, 20),
    st.sampled_from([0, None]),
    st.data(),
)
def test_every_token_is_new_in_one_window(ids, context, start, data):
    stride = data.draw(st.integers(1, context - 1))
    found = list(text_windows.sliding_windows(ids, start, context, stride, 100))
    new = [t for w in found for t in w.targets[w.skip :].tolist()]
    assert new == (ids if start is not None else ids[1:])
    assert sum(w.tokens for w in found) == len(ids)
    assert all(len(w.inputs) == len(w.targets) < context and w.skip >= 0 for w in found)
    assert sum(w.charged_bits for w in found) == (math.log2(100) if ids and start is None else 0)
    row = np.array([*([] if start is None else [start]), *ids])
    begins = range(0, stride * len(found), stride)
    assert all(
        (w.inputs == row[b : b + len(w.inputs)]).all() for w, b in zip(found, begins, strict=True)
    )


def profiled(cache, place, *words):
    done = edgecap(
        "profile", "--limit", 0.3, "--json", "--cache", cache, "-o", place / "profiles", *words
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("The lungs bring air to the blood, and the heart moves the blood on. " * 20)
    return path


@pytest.mark.oracle
def test_stride_agrees_with_transformers(cache, tmp_path, text_file):
    """The loop of the Hugging Face perplexity guide,
    with the start token in front and every new token counted.
    """
    context, stride = 96, 40
    record = profiled(
        cache,
        tmp_path,
        "--precision",
        "fp32",
        "--corpus",
        text_file,
        "--context",
        context,
        "--stride",
        stride,
    )
    ours = record["cells"][0]["outcome"]["compression"]
    assert (ours["stride"], ours["protocol"]) == (stride, "exact")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(REFERENCE).eval()
        tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    row = torch.tensor(
        [[start, *tokenizer(text_file.read_text(), add_special_tokens=False)["input_ids"]]]
    )
    total, before = 0.0, 1
    for begin in range(0, row.shape[1], stride):
        end = min(begin + context, row.shape[1])
        labels = row[:, begin:end].clone()
        labels[:, : before - begin] = -100
        with torch.no_grad():
            logits = model(row[:, begin:end]).logits
        total += float(
            torch.nn.functional.cross_entropy(
                logits[0, :-1], labels[0, 1:], ignore_index=-100, reduction="sum"
            )
        )
        before = end
        if end == row.shape[1]:
            break
    assert ours["tokens"] == row.shape[1] - 1
    assert ours["nll_bits_per_token"] * ours["tokens"] == pytest.approx(
        total / math.log(2), rel=1e-4
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stride", 256, "--context", 256), "must be less than the 256 positions"),
        (("--stride", 0), "--stride 0"),
        (("--stride", 8, "--protocol", "paper"), "--stride belongs to the exact protocol"),
        (("--protocol", "papper"), "did you mean 'paper'"),
        (("--documents", 0), "--documents 0"),
        (("--corpus", "hf:nothing"), "write hf:ORG/NAME:FILE"),
    ],
)
def test_wrong_requests(words, said):
    done = edgecap("profile", *words)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


# --- the paper's protocol ---------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize("file", ["books", "chinese-education", "code"])
def test_the_published_scripts_numbers(shared, cache, tmp_path, file):
    lines = (shared / "expected/stories260K.csv").read_text().splitlines()
    rows = [
        r
        for r in csv.DictReader(line for line in lines if not line.startswith("#"))
        if r["file"] == f"{file}.jsonl"
    ]
    assert len(rows) == 2
    for row in rows:
        words = (
            "--protocol",
            "paper",
            "--context",
            row["context"],
            "--documents",
            row["documents"],
            "--bias",
            -10,
        )
        text = shared / f"data/eval/{file}.jsonl"
        record = profiled(
            cache,
            tmp_path,
            "--model",
            shared / "models/stories260K",
            "--precision",
            "fp32",
            "--corpus",
            text,
            *words,
        )
        cell = record["cells"][0]
        found = cell["outcome"]["compression"]
        capacity = float(row["capacity_bias_minus_10"])
        assert record["flops"]["per_token"] == pytest.approx(
            float(row["flops_per_token"]), rel=1e-4
        )
        assert found["nll_bits_per_token"] == pytest.approx(
            float(row["nll_bits_per_token"]), rel=1e-4
        )
        assert found["text_bits_per_token"] == pytest.approx(
            float(row["text_bits_per_token"]), abs=0.0051
        )
        estimate = cell["score"]["information_capacity"]
        assert estimate["value"] == pytest.approx(
            capacity, abs=0.0051 / math.log2(record["flops"]["per_token"]) + 1e-5
        )
        assert estimate["low"] < estimate["value"] < estimate["high"]


# --- resuming ---------------------------------------------------------------------------------


def documents(count=7):
    return [
        corpus.Document(id=str(i), domain="ab"[i % 2], text=f"text {i} " * (i + 1))
        for i in range(count)
    ]


def scored(journal, engine=None, count=7):
    cutter = text_windows.exact_cutter(ByteTokenizer(), 16, 256)
    return measure_compression(
        engine or FakeEngine(FakeClock(), 256, skill=7),
        cutter,
        documents(count),
        WindowPlan("exact", 16),
        FakeClock(),
        log=journal,
    )


def without_time(found):
    return msgspec.structs.replace(found, wall_s=0.0)


@given(st.integers(0, 7), st.binary(max_size=9))
def test_a_killed_run_goes_on_with_the_same_sums(tmp_path_factory, finished, torn):
    path = tmp_path_factory.mktemp("journal") / "j"
    whole = scored(None)
    if finished:
        scored(JsonlLog(path, ScoredDocument), count=finished)
    if path.exists():
        path.write_bytes(path.read_bytes() + torn)
    calls = []

    class Counting(FakeEngine):
        def nll(self, inputs, targets):
            calls.append(1)
            return super().nll(inputs, targets)

    again = scored(JsonlLog(path, ScoredDocument), Counting(FakeClock(), 256, skill=7))
    assert without_time(again) == without_time(whole)
    assert bool(calls) == (finished < 7)
    assert without_time(scored(JsonlLog(path, ScoredDocument), count=7)) == without_time(whole)


@pytest.mark.kill
def test_a_killed_profile_goes_on(cache, tmp_path):
    """Kill -9 in the middle; the second run scores only what is left, to the same bits."""

    path = tmp_path / "long.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": f"Story {i}. " + "Once there was a fox. " * 60}) + "\n"
            for i in range(60)
        )
    )
    own = tmp_path / "own"
    words = ("--precision", "fp32", "--corpus", path)
    whole = profiled(cache, tmp_path, *words)["cells"][0]["outcome"]["compression"]
    edgecap(
        "profile", *words, "--documents", 1, "--limit", 0.3, "--cache", own, "-o", tmp_path / "x"
    )  # the export
    line = [
        sys.executable,
        "-m",
        "edgecap",
        "profile",
        *map(str, words),
        "--cache",
        str(own),
        "-o",
        str(tmp_path / "y"),
    ]
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    journals = []
    while time.monotonic() < deadline and sum(j.read_bytes().count(b"\n") for j in journals) < 3:
        time.sleep(0.02)
        journals = list((own / "journals").glob("*.jsonl"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(journals) == 1
    kept = JsonlLog(journals[0], ScoredDocument).finished
    assert kept
    again = profiled(own, tmp_path, *words)["cells"][0]["outcome"]["compression"]
    assert {**again, "wall_s": 0} == {**whole, "wall_s": 0}
    assert not journals[0].exists()


# --- baselines --------------------------------------------------------------------------------


def test_baselines_agree_with_the_programs(shared):
    text = next((shared / "data/classic").glob("alice29*")).read_bytes().decode()
    data = text.encode()
    found = measure_baselines([text[:1000], text[1000:]], len(data), lambda done, total: None)
    for name, least in (("gzip -9", 18), ("xz -9e", 64)):
        tool, level = name.split()
        try:
            packed = subprocess.run(
                [tool, level, "-c"], input=data, capture_output=True, check=True
            ).stdout
        except FileNotFoundError:
            continue
        assert abs(found[name].bytes - len(packed)) <= least
        assert found[name].bits_per_byte == pytest.approx(8 * found[name].bytes / len(data))
    assert found["xz -9e"].bytes == pytest.approx(48_528, abs=64)  # ../shared/data/README.md
    assert found["xz -9e"].bytes < found["zstd -19"].bytes < found["gzip -9"].bytes


# --- the Hub ----------------------------------------------------------------------------------

LINES = [json.dumps({"text": f"Document {i} of the Hub."}) + "\n" for i in range(50)]


@pytest.fixture
def fake_hub(monkeypatch):
    """A stand-in for the Hub's lines, and for a whole file."""
    asked = []

    def read_lines(dataset, file, revision, count):
        asked.append((dataset, file, revision, count))
        return "".join(LINES[:count]).encode()

    monkeypatch.setattr(hub, "read_lines", read_lines)
    monkeypatch.setattr(hub, "commit_of", lambda dataset, revision: "c0ffee")
    return asked


def test_the_first_documents_of_the_hub(fake_hub, tmp_path):
    name = "hf:TeleAI-AI-Flow/InformationCapacity@main:datasets/mixed_text.jsonl"
    found = corpus.read_corpus(name, 5, tmp_path)
    assert [d.text for d in found.documents] == [f"Document {i} of the Hub." for i in range(5)]
    assert (found.name, found.count, found.bias_bits) == ("mixed_text", 5, -24.0)
    assert corpus.read_corpus(name, 5, tmp_path).sha256 == found.sha256
    assert fake_hub == [
        ("TeleAI-AI-Flow/InformationCapacity", "datasets/mixed_text.jsonl", "c0ffee", 5)
    ]


def test_a_branch_that_moved_is_read_again_and_the_last_one_serves_offline(
    fake_hub, tmp_path, monkeypatch
):
    name = "hf:org/name:f.jsonl"
    for commit in ("c0ffee", "decade", None):
        monkeypatch.setattr(hub, "commit_of", lambda dataset, revision, commit=commit: commit)
        corpus.read_corpus(name, 2, tmp_path)
    assert [asked[2] for asked in fake_hub] == ["c0ffee", "decade"]


@pytest.mark.parametrize(
    ("name", "bias"),
    [
        ("TeleAI-AI-Flow/InformationCapacity:Ch-FineWeb-Edu.jsonl", -18.7),
        ("TeleAI-AI-Flow/InformationCapacity:NCERT.jsonl", -27.0),
        ("someone/else:mixed_text.jsonl", 0.0),
    ],
)
def test_published_biases(fake_hub, tmp_path, name, bias):
    assert corpus.read_corpus(f"hf:{name}", 2, tmp_path).bias_bits == bias


def test_lines_are_streamed_through_the_real_client(monkeypatch):
    """huggingface_hub against a local server: only the beginning of the file is asked for."""
    body = "".join(LINES).encode() + b"x" * 9_000_000
    ranges = []

    class Server(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, data, **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def do_POST(self):
            entry = [{"type": "file", "path": "data/f.jsonl", "size": len(body), "oid": "0" * 40}]
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer(200, json.dumps(entry).encode(), Content_Type="application/json")

        def do_GET(self):
            if "/tree/" in self.path:
                return self.do_POST()
            if "/resolve/" not in self.path:
                info = {"id": "org/name", "sha": "a" * 40, "siblings": []}
                return self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
            first, last = (
                self.headers.get("Range", f"bytes=0-{len(body) - 1}")
                .removeprefix("bytes=")
                .split("-")
            )
            ranges.append((int(first), int(last)))
            part = body[int(first) : int(last) + 1]
            return self.answer(206, part, Content_Range=f"bytes {first}-{last}/{len(body)}")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    script = (
        "from edgecap.storage import hub; import sys;"
        "sys.stdout.buffer.write(hub.read_lines('org/name', 'data/f.jsonl', None, 3))"
    )

    address = f"http://127.0.0.1:{server.server_port}"
    own = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "no_proxy": "*"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=own, timeout=120)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert done.stdout.decode() == "".join(LINES[:3])
    assert sum(last - first + 1 for first, last in ranges) < len(body) / 2


def test_a_corpus_that_cannot_be_fetched(tmp_path):
    for limit in (None, 3):
        with pytest.raises(UsageError, match="the Hub cannot be reached"):
            corpus.read_corpus("hf:org/name:f.jsonl", limit, tmp_path)


# --- lm-eval ----------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("context", [1024, 65])
def test_bits_agree_with_lm_eval(cache, tmp_path, context):
    """The rolling log-likelihood of EleutherAI's harness.

    It puts the last token of a window in front of the next, which is a stride of one position less
    than the window; on a text of one window that is the exact protocol itself.
    """
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    text = "The lungs bring air to the blood, and the heart moves the blood on. Café 中文. " * 8
    encode = read_tokenizer(REFERENCE).encode
    whole = next(n for n in range(len(text), 0, -1) if len(encode(text[:n])) % 64 == 0)
    text = text[:whole]  # the harness reads further back where the last window is short
    (tmp_path / "text.txt").write_text(text)
    windowing = () if context == 1024 else ("--context", context, "--stride", context - 1)
    record = profiled(
        cache, tmp_path, "--precision", "fp32", "--corpus", tmp_path / "text.txt", *windowing
    )
    ours = record["cells"][0]["outcome"]["compression"]
    assert (ours["tokens"] < context) == (context == 1024)
    harness = HFLM(
        pretrained=str(REFERENCE),
        device="cpu",
        dtype="float32",
        batch_size=1,
        max_length=context - 1,
    )
    asked = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0)
    found = harness.loglikelihood_rolling([asked])[0]
    bits_per_byte = -float(found) / math.log(2) / len(text.encode())
    assert ours["bits_per_byte"] == pytest.approx(bits_per_byte, rel=1e-3)
