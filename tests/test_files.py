"""store, corpus, source, machine: what is on the disk, and everything that can be wrong with it."""

import errno
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import REFERENCE, ROOT
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from edgecap.analysis.tokenizing.parallel import read_parallel
from edgecap.errors import DiskFull, RecordError, UsageError
from edgecap.machine import info as machine
from edgecap.model.checkpoint import modules_with_weights
from edgecap.model.config_file import read_json_object
from edgecap.model.locate import locate, read_config
from edgecap.model.manifest import read_manifest
from edgecap.model.onnx_folder import onnx_files, unmeasured_graphs
from edgecap.model.weight_files import count_parameters, hash_model, tokenizer_sha256
from edgecap.record import SCHEMA, Absent, Graph
from edgecap.storage.files import (
    check_writable,
    list_files,
    new_folder,
    sha256_of,
    sha256_of_file,
    write_atomically,
)
from edgecap.storage.hub import repository_of
from edgecap.storage.records import load, read_record, record_path, save, schema
from edgecap.sweep.fingerprint import model_fingerprint
from edgecap.sweep.plan import read_plan
from edgecap.text.corpus import (
    PIECE_CHARACTERS,
    PIECES,
    check_unchanged,
    corpus_info,
    excerpt,
    read_corpus,
)
from edgecap.text.tokenizer import read_tokenizer

OLD = ROOT / "tests" / "data"


# --- store ------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "deep" / "record.json"
    write_atomically(target, b"first")

    def no_room(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(DiskFull, match="no room left"):
        write_atomically(target, b"second")
    assert target.read_bytes() == b"first"
    assert [p.name for p in target.parent.iterdir()] == ["record.json"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with (
        pytest.raises(ValueError, match="broken"),
        new_folder(tmp_path / "export") as scratch,
    ):
        (scratch / "model.onnx").write_bytes(b"half")
        raise ValueError("broken")
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "export") as scratch:
        (scratch / "model.onnx").write_bytes(b"whole")
    assert (tmp_path / "export" / "model.onnx").read_bytes() == b"whole"


def test_the_first_of_two_makers_wins(tmp_path):
    with new_folder(tmp_path / "export") as mine:
        (mine / "a").write_text("mine")
        (tmp_path / "export").mkdir()
        (tmp_path / "export" / "a").write_text("theirs")
    assert (tmp_path / "export" / "a").read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


def test_an_unwritable_place_is_refused_before_work(tmp_path):
    (tmp_path / "profiles").write_text("a file is in the way")
    with pytest.raises(UsageError, match="cannot write"):
        check_writable(tmp_path / "profiles" / "deeper")


def test_checking_a_place_leaves_nothing(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", range(1, SCHEMA + 1))
def test_records_of_every_schema_are_read(number):
    record = load(OLD / f"record-{number}.json")
    assert record.schema == SCHEMA
    assert msgspec.json.decode(msgspec.json.encode(record), type=type(record)) == record


def test_old_records_name_precisions_as_today():
    raw = json.loads((OLD / "record-6.json").read_text())
    asked = load(OLD / "record-6.json")
    assert [c.precision for c in asked.cells] == ["fp32", "fp16", "int8d", "int4b32"]
    graphs = [c.graph for c in asked.cells if isinstance(c.graph, Graph)]
    assert [g.precision for g in graphs] == ["fp32", "fp16", "int8d", "int4b32"][: len(graphs)]
    assert asked.spec.precisions == ("fp32", "fp16", "int8d", "int4b32")  # the default of then
    raw["spec"]["precisions"] = ["int4", "int4b64", "int8w"]
    raw["cells"] = [c for c in raw["cells"] if c["precision"] == "int4"]
    assert read_record(raw, "r").spec.precisions == ("int4b32", "int4b64", "int8w")
    new = load(OLD / f"record-{SCHEMA}.json")
    assert [c.precision for c in new.cells] == ["fp32", "fp16", "int8", "int4"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a whole JSON file"),
        ('{"schema": 1, "edgecap"', "not a whole JSON file"),
        ("[1]", "no schema number"),
        ('{"schema": true}', "no schema number"),
        ('{"schema": 999}', "schema 999; this edgecap reads up to"),
        ('{"schema": 1}', "not a valid record"),
    ],
)
def test_damaged_and_newer_records_are_refused(tmp_path, text, words):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(RecordError, match=words):
        load(tmp_path / "r.json")


READ_AT_ONCE = """
import json, sys, threading
from edgecap.storage.records import read_record
raw = json.load(open(sys.argv[1]))
sys.setswitchinterval(1e-6)
gate, found = threading.Barrier(8), []
def read():
    gate.wait()
    found.append(read_record(raw, "record"))
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 8
"""


def test_threads_that_read_their_first_record_at_once_end_well():
    newest = OLD / f"record-{SCHEMA}.json"
    subprocess.run([sys.executable, "-c", READ_AT_ONCE, str(newest)], check=True)


def test_an_error_in_a_record_names_its_path():
    raw = json.loads((OLD / "record-1.json").read_text())
    raw["cells"][0]["outcome"]["latency"]["load_s"] = "long"
    with pytest.raises(RecordError, match=r"cells.*latency.load_s"):
        read_record(raw, "r.json")


def test_a_missing_record_is_one_line(tmp_path):
    with pytest.raises(RecordError, match="No such file"):
        load(tmp_path / "nothing.json")


def test_the_name_of_a_record_is_safe_anywhere():
    record = load(OLD / "record-1.json")
    odd = msgspec.structs.replace(
        record, source=msgspec.structs.replace(record.source, name="../../etc/pass wd:*?")
    )
    path = record_path(ROOT / "profiles", odd)
    assert path.parent == ROOT / "profiles"
    assert path.name.startswith("etc-pass-wd--")


def test_the_schema_describes_the_record():
    assert schema()["$defs"]["Profile"]["required"]


# --- corpus -----------------------------------------------------------------------------------


def test_the_bundled_corpus():
    corpus = read_corpus("edgecap-mixed")
    info = corpus_info(corpus, None, {})
    assert info.documents >= 40
    assert set(info.domains) == {"english-education", "story", "technical", "chinese", "code"}
    assert all(2000 <= len(d.text.encode()) <= 3000 for d in corpus.documents)
    assert len({d.id for d in corpus.documents}) == info.documents
    languages = {
        json.loads(line).get("language")
        for line in (ROOT / "edgecap/data/edgecap-mixed.jsonl").read_text().splitlines()
    }
    assert languages == {None, "python", "c", "javascript", "go"}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_any_text_survives(texts):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.jsonl"
        path.write_text(
            "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in [*texts, "x"]),
            "utf-8",
            newline="",
        )
        assert [d.text for d in read_corpus(str(path)).documents] == [*texts, "x"]


def test_lines_end_at_newline_only(tmp_path):
    text = "a\u2028b\u0085c\r\nd"
    (tmp_path / "c.jsonl").write_bytes(
        json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n"
    )
    assert [d.text for d in read_corpus(str(tmp_path / "c.jsonl")).documents] == [text]
    (tmp_path / "c.txt").write_bytes(text.encode())
    assert [d.text for d in read_corpus(str(tmp_path / "c.txt")).documents] == [text]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "holds no text"),
        (b'{"text": ""}\n', "holds no text"),
        (b'{"text": "a"}\n{"text": \n', "line 2: not JSON"),
        (b'{"text": "a"}\n\n{"body": "b"}\n', "line 3: no 'text'"),
        (b'{"text": 5}\n', "line 1: no 'text'"),
        (b'["text"]\n', "line 1: no 'text'"),
        (b'{"text": "a"}\n\xff\xfe\n', "not UTF-8: byte 14, line 2"),
        (b'{"text": "\\ud800"}\n', "line 1"),
    ],
)
def test_broken_corpora_name_the_line(tmp_path, raw, words):
    (tmp_path / "c.jsonl").write_bytes(raw)
    with pytest.raises(UsageError, match=words):
        read_corpus(str(tmp_path / "c.jsonl"))


def test_missing_corpus(tmp_path):
    with pytest.raises(UsageError, match="cannot read corpus 'nothing'"):
        read_corpus("nothing")
    with pytest.raises(UsageError, match="is a folder"):
        read_corpus(str(tmp_path))


JSON_LINES = b'{"text": "one", "domain": "d"}\n{"text": "two\\nlines", "id": 7}\n'


@pytest.mark.parametrize(
    "name", ["c.jsonl", "c.JSONL", "c.jsonlines", "c.ndjson", "c.json", "c.txt", "c.md", "c"]
)
def test_the_content_of_a_corpus_decides_and_not_its_name(tmp_path, name):
    (tmp_path / name).write_bytes(JSON_LINES)
    corpus = read_corpus(str(tmp_path / name))
    assert [(d.id, d.domain, d.text) for d in corpus.documents] == [
        ("1", "d", "one"),
        ("7", "c", "two\nlines"),
    ]
    assert corpus.sha256 == hashlib.sha256(JSON_LINES).hexdigest()


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("c.jsonl", b"A plain text.\n", "line 1: not JSON .*name it .txt"),
        ("c.JSON", b"A plain text.\n", "line 1: not JSON"),
        ("c.txt", JSON_LINES + b"A plain line.\n", "line 3: not JSON"),
        ("c.txt", b"# a note\n" + JSON_LINES, "line 1: not JSON .*most of its lines are JSON"),
        ("c.txt", b'{"body": "one"}\n', "line 1: no 'text'"),
        ("c", b'["one", "two"]\n', "line 1: no 'text'"),
        ("c.txt", b"{'text': 'as Python prints it'}\n", "line 1: not JSON"),
        ("c.json", b'[{"text": "one"}, {"text": "two"}]', "line 1: .*jq -c '.\\[\\]'"),
        ("c.txt", b'\n[\n  {"text": "one"}\n]\n', "line 2: .*jq -c '.\\[\\]'"),
        ("c.json", b'{\n  "text": "one"\n}\n', "line 1: .*one object .* on each line"),
        ("c", b'{\n  "text": "one"\n}\n{\n  "text": "two"\n}\n', "line 1: .*on each line"),
        ("c.txt", b'\x1e{"text": "one"}\n\x1e{"text": "two"}\n', "line 1: not JSON"),
        ("c.txt", b'{"text": "one"}\r{"text": "two"}\r', "line 1: not JSON .*on each line"),
        ("c.txt", "a text".encode("utf-16"), "is UTF-16 text"),
        ("c.jsonl", '{"text": "a"}'.encode("utf-32"), "is UTF-32 text"),
        ("c.txt", "a text".encode("utf-16-le"), "is binary data"),
        ("c.jsonl.gz", b"\x1f\x8b\x08\0", "is compressed by gzip; unpack it"),
        ("c.jsonl", b"\x28\xb5\x2f\xfd\x04", "is compressed by zstd"),
        ("c.docx", b"PK\x03\x04\x14\0\x06\0", "is a zip archive or an office document"),
        ("c.txt", b"%PDF-1.7\n", "is a PDF document"),
        ("c.parquet", b"PAR1\x15\x04", "is a Parquet file"),
        ("c.txt", b"\x7fELF\x02\x01\x01\0", "is binary data"),
        ("c.rtf", rb"{\rtf1\ansi text}", "is an RTF document"),
    ],
)
def test_what_is_no_text_and_no_json_lines_is_refused(tmp_path, name, raw, words):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(UsageError, match=words) as refused:
        read_corpus(str(tmp_path / name))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "[Verse 1]\nA {line}.\n",
        "{{template}} of a page",
        "a,b\n1,2\n",
        "{ int a; }\n",
        "[[wiki page]]",
    ],
)
def test_plain_text_with_brackets_stays_plain_text(tmp_path, text):
    (tmp_path / "c.txt").write_text(text)
    assert [d.text for d in read_corpus(str(tmp_path / "c.txt")).documents] == [text]


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "-Infinity",
        "1e999",
        "1" * 5000,
        '"\\ud800"',
        '{"a": [NaN, {"b": "}"}]}',
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
)
def test_a_field_that_nobody_reads_may_hold_anything(tmp_path, value):
    line = f'{{"id": 1.5, "odd": {value}, "text": "a \\"b\\"", "odd": {value}, "domain": "d"}}'
    (tmp_path / "c.jsonl").write_text(f'{line}\n{{"text": "next"}}\n')
    found = [(d.id, d.domain, d.text) for d in read_corpus(str(tmp_path / "c.jsonl")).documents]
    assert found == [("1.5", "d", 'a "b"'), ("2", "c", "next")]


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "a", "x": NaN',
        '{"text": "a", "x": [NaN}',
        '{"text": "a", "x": nan}',
        '{"text": "a", "x": NaN} {"text": "b"}',
        '{"text": "a" "x": NaN}',
        '{"text": "a", "x": }',
        '{"text": NaN}',
        "[" * 100_000,
        '{"text": ' + "[" * 100_000,
    ],
)
def test_broken_lines_with_odd_fields_are_a_line(tmp_path, line):
    (tmp_path / "c.jsonl").write_text(line + "\n")
    with pytest.raises(UsageError, match="line 1: no") as refused:
        read_corpus(str(tmp_path / "c.jsonl"))
    assert len(str(refused.value)) < 400


def test_what_is_no_file_on_a_disk_is_refused_at_once(tmp_path):
    pipe, bound = tmp_path / "pipe.jsonl", socket.socket(socket.AF_UNIX)
    os.mkfifo(pipe)
    bound.bind(str(tmp_path / "socket"))
    with bound:
        for name in (pipe, tmp_path / "socket", "/dev/zero", "/dev/stdin", "/proc/self/status"):
            with pytest.raises(UsageError, match=r"it is (a pipe|a socket|a device|no file)"):
                read_corpus(str(name))


def test_pipes_in_the_place_of_other_files_are_refused_at_once(tmp_path):
    (tmp_path / "c.jsonl").write_bytes(JSON_LINES)
    for name in ("c.jsonl.card.json", "config.json", "tokenizer.json"):
        os.mkfifo(tmp_path / name)
    reads = (
        lambda: read_corpus(str(tmp_path / "c.jsonl")),
        lambda: locate(str(tmp_path)),
        lambda: locate(str(tmp_path / "config.json")),
        lambda: read_config(str(tmp_path / "config.json")),
        lambda: read_tokenizer(tmp_path),
        lambda: read_json_object(tmp_path / "config.json"),
        lambda: read_parallel(tmp_path / "config.json"),
        lambda: read_plan(tmp_path / "config.json", tmp_path),
        lambda: load(tmp_path / "config.json"),
        lambda: sha256_of_file(tmp_path / "config.json"),
    )
    for read in reads:
        with pytest.raises((UsageError, RecordError), match="it is a pipe"):
            read()


def test_deep_nesting_is_a_line_in_every_file_that_is_read(tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "c.jsonl").write_bytes(JSON_LINES)
    for name in ("c.jsonl.card.json", "config.json", "tokenizer.json", "edgecap.json"):
        (tmp_path / name).write_text(deep)
    (tmp_path / "p.jsonl").write_text(f'{{"language": "eng", "text": {deep}}}')
    reads = (
        lambda: read_corpus(str(tmp_path / "c.jsonl")),
        lambda: read_tokenizer(tmp_path),
        lambda: read_json_object(tmp_path / "config.json"),
        lambda: read_manifest(tmp_path),
        lambda: read_parallel(tmp_path / "p.jsonl"),
        lambda: read_plan(tmp_path / "config.json", tmp_path),
        lambda: load(tmp_path / "config.json"),
    )
    for read in reads:
        with pytest.raises((UsageError, RecordError)) as refused:
            read()
        assert len(str(refused.value)) < 500


# --- source -----------------------------------------------------------------------------------


def test_the_reference_model_by_name():
    located = locate("edgecap-ref-xs")
    assert (located.kind, located.config["model_type"]) == ("reference", "llama")
    assert 1_700_000 < count_parameters(located.path) < 1_900_000


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("edgecap-ref-xxs", "did you mean 'edgecap-ref-xs'"),
        ("./no/such/folder", "no such folder"),
        ("a/b/c", "no such folder"),
        ("nobody/nothing", "cannot fetch model 'nobody/nothing'"),
        ("nobody/nothing@v1", "at revision 'v1'"),
    ],
)
def test_no_such_model(name, words):
    with pytest.raises(UsageError, match=words):
        locate(name)


@pytest.mark.export
def test_the_hub_is_asked_for_data_only(monkeypatch, tiny):
    import huggingface_hub

    asked = {}

    def download(name, revision, allow_patterns):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(tiny)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    located = locate("org/model@abc")
    assert (located.kind, located.name, asked["revision"]) == ("hub", "org/model", "abc")
    assert not any(p.endswith((".py", ".bin", ".pt", "*")) for p in asked["patterns"])


@pytest.mark.parametrize(("raised", "words"), [("RepositoryNotFoundError", "no model 'org/model'"),
                                               ("RevisionNotFoundError", "revision is not"),
                                               ("GatedRepoError", "is gated")])  # fmt: skip
def test_what_the_hub_says(monkeypatch, raised, words):
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*args, **kwargs):
        error = getattr(errors, raised)
        raise error.__new__(error)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UsageError, match=words):
        locate("org/model")


def test_folders_that_are_no_models(tmp_path):
    with pytest.raises(UsageError, match="no config.json and no .onnx"):
        locate(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"no .safetensors and no .onnx"):
        locate(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UsageError, match="pickled weights, which can run code"):
        locate(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="cannot read"):
        locate(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        locate(str(tmp_path / "file"))


def test_weights_rule_over_an_export_in_a_subfolder(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"graph")
    (tmp_path / "config.json").write_text("{}")
    assert locate(str(tmp_path)).kind == "onnx"
    shutil.copyfile(REFERENCE / "model.safetensors", tmp_path / "model.safetensors")
    assert locate(str(tmp_path)).kind == "folder"


def test_weights_that_are_cut_short(tmp_path):
    whole = (REFERENCE / "model.safetensors").read_bytes()
    for cut, words in (
        (4, "not a safetensors file"),
        (100, "not a safetensors file"),
        (len(whole) - 10, "cut short"),
    ):
        (tmp_path / "model.safetensors").write_bytes(whole[:cut])
        with pytest.raises(UsageError, match=words):
            count_parameters(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b"{}}}")
    with pytest.raises(UsageError, match="not a safetensors file"):
        count_parameters(tmp_path)


def test_parameters_are_those_of_the_model(tmp_path):
    """An index rules; a second copy of the weights and causal-mask buffers are not parameters."""
    import numpy as np
    from safetensors.numpy import save_file

    weights = {
        "h.0.attn.c_attn.bias": np.zeros(6, np.float32),
        "h.0.attn.bias": np.zeros((4, 4), np.float32),
    }
    save_file(weights, tmp_path / "part-1.safetensors")
    save_file({"w": np.zeros((2, 2), np.float32)}, tmp_path / "part-2.safetensors")
    save_file({"all": np.zeros(100, np.float32)}, tmp_path / "consolidated.safetensors")
    index = {
        "weight_map": {"h.0.attn.c_attn.bias": "part-1.safetensors", "w": "part-2.safetensors"}
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert count_parameters(tmp_path) == 10
    (tmp_path / "part-2.safetensors").unlink()
    with pytest.raises(UsageError, match=r"part-2.safetensors is missing"):
        count_parameters(tmp_path)


WEIGHTS = {
    name: np.full((2, 4), value, np.float32) for value, name in enumerate(("a.w", "b.w", "c.w"))
}
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
PLACES = {"a.w": FIRST, "b.w": FIRST, "c.w": SECOND}


def model_folder(folder, weights=WEIGHTS, **config):
    """Write a folder with a config and, unless None, its weights in one file."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    if weights is not None:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def sharded_folder(folder, places=PLACES, **fields):
    """Write WEIGHTS in two shards; the index says `places`."""
    model_folder(folder, None)
    for file in (FIRST, SECOND):
        save_file({n: w for n, w in WEIGHTS.items() if PLACES[n] == file}, folder / file)
    index = {"metadata": {"total_size": 96}, "weight_map": places, **fields}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def weights_sha256(folder):
    return hash_model(locate(str(folder))).weights


def hash_of(*files):
    return sha256_of(*(sha256_of_file(file).encode() for file in files))


def refusal(folder):
    """Return the one line that a folder is refused with."""
    with pytest.raises(UsageError) as refused:
        locate(str(folder))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.export
def test_what_is_hashed_is_what_transformers_loads(tmp_path):
    """A single file, or the shards of an index; other files beside them change nothing."""
    from transformers import modeling_utils

    def loaded(folder):
        names = {"subfolder": "", "variant": None, "gguf_file": None, "use_safetensors": True}
        rest = {n: None for n in ("cache_dir", "force_download", "proxies", "local_files_only")}
        rest |= {n: None for n in ("token", "user_agent", "revision", "commit_hash")}
        rest |= {n: False for n in ("from_tf", "from_flax", "is_remote_code")}
        return modeling_utils._get_resolved_checkpoint_files(str(folder), **names, **rest)[0]

    single, shards = model_folder(tmp_path / "one"), sharded_folder(tmp_path / "two")
    for folder in (single, shards):
        before = weights_sha256(folder)
        assert before == hash_of(*map(Path, loaded(folder)))
        for beside in ("consolidated.safetensors", "model.fp16.safetensors", "pytorch_model.bin"):
            (folder / beside).write_bytes(b"not read")
        assert weights_sha256(folder) == before
        assert before == hash_of(*map(Path, loaded(folder)))
    assert count_parameters(shards) == count_parameters(single) == 24


def test_one_file_and_an_index_of_other_files_are_refused(tmp_path):
    folder = model_folder(sharded_folder(tmp_path / "both"))
    assert "names other files" in refusal(folder)
    index = {"metadata": {}, "weight_map": dict.fromkeys(WEIGHTS, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights_sha256(folder) == hash_of(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({**PLACES, "ghost.w": FIRST}, "ghost.w, which is not in model-00001"),
        ({"a.w": FIRST, "c.w": SECOND}, "b.w, which is not named for model-00001"),
        ({**PLACES, "b.w": SECOND}, "disagree on 1 tensor, first b.w"),
        ({**PLACES, "b.w": "../elsewhere.safetensors"}, "which is no file in it"),
        ({**PLACES, "b.w": "/elsewhere.safetensors"}, "which is no file in it"),
        ({**PLACES, "b.w": "model-3.safetensors"}, "model-3.safetensors is missing"),
        ({"a.w": 1}, "no 'weight_map'"),
        ([], "no 'weight_map'"),
    ],
)
def test_an_index_that_is_wrong(tmp_path, places, words):
    assert words in refusal(sharded_folder(tmp_path / "m", places))


def test_an_index_that_transformers_cannot_read(tmp_path):
    assert "no 'metadata'" in refusal(sharded_folder(tmp_path / "m", metadata=None))


def test_a_tensor_in_two_shards(tmp_path):
    folder = sharded_folder(tmp_path / "m")
    save_file({n: WEIGHTS[n] for n in ("b.w", "c.w")}, folder / SECOND)
    assert "first b.w, which is not named for model-00002" in refusal(folder)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("weights.safetensors", "weights are model.safetensors, or shards"),
        ("model.fp16.safetensors", "weights are model.safetensors, or shards"),
        (FIRST, "without model.safetensors.index.json"),
        ("pytorch_model.pt", "pickled weights"),
        ("q4.gguf", "only GGUF files"),
        ("flax_model.msgpack", "TensorFlow or Flax"),
    ],
)
def test_weights_under_other_names(tmp_path, file, words):
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / file)
    assert words in refusal(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_weights_that_are_no_plain_file(tmp_path):
    pipe, folder = model_folder(tmp_path / "a", None), model_folder(tmp_path / "b", None)
    os.mkfifo(pipe / "model.safetensors")
    (folder / "model.safetensors").mkdir()
    assert "it is a pipe" in refusal(pipe)
    assert "no plain file" in refusal(folder)


def stored(header, data=b"x" * 8):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def tensor(begin, end, dtype="F32", shape=(1, 2)):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.example/spec/v1\n", "pointer of Git LFS"),
        (stored({"a": tensor(0, 8), "b": tensor(0, 8)}), "lies over another"),
        (stored({"a": tensor(0, 8), "b": tensor(12, 20)}, b"x" * 20), "behind a gap"),
        (stored({"a": tensor(0, 8, shape=(3,))}), "8 bytes for a shape of (3,)"),
        (stored({"a": tensor(0, 8)}, b"x" * 7), "is cut short"),
        (stored({"a": tensor(0, 8)}, b"x" * 9), "more than its tensors"),
        (stored(b'{"a":%s,"a":%s}' % ((json.dumps(tensor(0, 8)).encode(),) * 2)), "there twice"),
        (stored([1]), "not a JSON object"),
        (stored({}, b""), "holds no tensors"),
        (stored({"a": tensor(0, 8), "__metadata__": {"format": "tf"}}), "saved by tf"),
        (stored({"a": tensor(0, 8, "F8_E4M3", (2, 4))}), "quantized weights (a is F8_E4M3)"),
        (stored({"a.qweight": tensor(0, 8, "I32")}), "quantized weights (a.qweight is I32)"),
        (stored({"q.lora_A.default.weight": tensor(0, 8)}), "adapter that is not merged"),
    ],
)
def test_a_file_that_holds_no_weights_of_a_model(tmp_path, raw, words):
    folder = model_folder(tmp_path / "m", None)
    (folder / "model.safetensors").write_bytes(raw)
    assert words in refusal(folder)


def test_weights_in_double_precision_are_not_quantized(tmp_path):
    doubles = {name: w.astype(np.float64) for name, w in WEIGHTS.items()}
    assert locate(str(model_folder(tmp_path / "m", doubles))).kind == "folder"


def test_graphs_in_deeper_folders_and_missing_ones_are_named(tmp_path):
    folder = model_folder(tmp_path / "m", None)
    (folder / "cpu/int4").mkdir(parents=True)
    (folder / "cpu/int4/model.onnx").touch()
    assert f"give the folder of one: {folder / 'cpu/int4'}" in refusal(folder)
    assert "nosuch.onnx is not there" in refusal(folder / "nosuch.onnx")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version https://git-lfs.example/spec/v1\n", "is a pointer of Git LFS; run `git lfs"),
        ("\ufeff{}", "begins with a byte order mark"),
    ],
)
def test_files_that_are_not_quite_json_are_named(tmp_path, name, text, words):
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(UsageError) as caught:
        read_tokenizer(tmp_path) if name == "tokenizer.json" else locate(str(tmp_path))
    assert str(caught.value).count(str(tmp_path)) == 1 and words in str(caught.value)


def test_masks_in_bytes_are_no_quantized_weights(tmp_path):
    masks = {"h.0.attn.bias": np.ones((1, 1, 4, 4), np.uint8), "ids": np.zeros((1, 4), np.int64)}
    assert locate(str(model_folder(tmp_path / "m", {**WEIGHTS, **masks}))).kind == "folder"


@pytest.mark.parametrize(
    "config",
    [
        {"quantization_config": {"quant_method": "gptq"}},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
        {"quantization": {"group_size": 64, "bits": 4}},
    ],
)
def test_quantized_checkpoints_are_refused(tmp_path, config):
    assert "give the unquantized model" in refusal(model_folder(tmp_path / "m", **config))


def test_a_config_that_names_other_weights(tmp_path):
    folder = model_folder(tmp_path / "m", transformers_weights="other.safetensors")
    assert "'transformers_weights'" in refusal(folder)
    model_folder(folder, transformers_weights="model.safetensors")
    assert locate(str(folder)).kind == "folder"


@pytest.mark.parametrize(
    "file",
    [
        "adapter_config.json",
        "adapter_model.safetensors",
        "adapter_model.bin",
        "adapters.safetensors",
        "pytorch_adapter.bin",
        "pytorch_lora_weights.safetensors",
    ],
)
@pytest.mark.parametrize("weights", [WEIGHTS, None])
def test_an_adapter_is_refused_beside_its_base_and_alone(tmp_path, file, weights):
    folder = model_folder(tmp_path / "m", weights)
    (folder / file).write_text("{}")
    assert f"holds an adapter ({file})" in refusal(folder)
    with pytest.raises(UsageError, match="merge_and_unload"):
        read_config(str(folder))


def test_adapters_in_a_subfolder_and_other_configs_are_left_alone(tmp_path):
    folder = model_folder(tmp_path / "m")
    (folder / "adapters").mkdir()
    (folder / "adapters" / "adapter_config.json").write_text("{}")
    (folder / "preprocessor_config.json").write_text("{}")
    assert locate(str(folder)).kind == "folder"


def test_modules_behind_an_encoder_are_known(tmp_path):
    folder = model_folder(tmp_path / "m")
    assert modules_with_weights(folder) == ()
    paths = ("", "1_Pooling", "2_Dense", "3_Dense", "../elsewhere")
    (folder / "modules.json").write_text(json.dumps([{"path": p} for p in paths]))
    for path, file in (("1_Pooling", "config.json"), ("2_Dense", "model.safetensors"),
                       ("3_Dense", "pytorch_model.bin")):  # fmt: skip
        (folder / path).mkdir()
        (folder / path / file).write_text("{}")
    assert modules_with_weights(folder) == ("2_Dense", "3_Dense")
    for odd in ("{", "5", '{"a": 1}', "[1]"):
        (folder / "modules.json").write_text(odd)
        assert modules_with_weights(folder) == ()


# --- folders of the Hub's cache ----------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(root, repository, files, absolute=False):
    """Lay out files as the Hub's cache does, and return the snapshot."""
    home = root / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / COMMIT
    (home / "blobs").mkdir(parents=True)
    for name, source in files.items():
        blob, link = home / "blobs" / sha256_of_file(source), snapshot / name
        shutil.copyfile(source, blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob if absolute else os.path.relpath(blob, link.parent))
    return snapshot


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("absolute", [False, True])
def test_a_snapshot_has_the_name_of_its_repository(tmp_path, monkeypatch, absolute):
    plain = sharded_folder(tmp_path / "plain")
    snapshot = cached(tmp_path, "org/name", files_of(plain), absolute)
    (tmp_path / "link").symlink_to(snapshot)
    monkeypatch.chdir(snapshot.parent)
    for path in (str(snapshot), f"{snapshot}/", f"./{COMMIT}", "..//snapshots/" + COMMIT,
                 str(tmp_path / "link"), f"{tmp_path}/link/"):  # fmt: skip
        located = locate(path)
        assert (located.name, located.revision) == ("org/name", COMMIT)
    assert weights_sha256(snapshot) == weights_sha256(plain)
    assert read_config(str(snapshot / "config.json"))[0] == "org/name"
    monkeypatch.chdir(snapshot)
    assert (locate(".").name, read_config("config.json")[0]) == ("org/name", "org/name")


def test_names_of_repositories(tmp_path):
    assert repository_of(tmp_path / "models--gpt2/snapshots/main") == ("gpt2", "main")
    assert repository_of(tmp_path / "models--a--b/snapshots/1/onnx") == ("a/b", "1")
    assert repository_of(tmp_path / "datasets--a--b/snapshots/1") is None
    assert repository_of(tmp_path / "models--a--b/refs/1") is None


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", SECOND])
def test_a_link_to_a_blob_that_is_gone_is_named(tmp_path, name):
    plain = sharded_folder(tmp_path / "plain")
    (plain / "tokenizer.json").write_text("{}")
    snapshot = cached(tmp_path, "org/name", files_of(plain))
    blob = (snapshot / name).resolve()
    blob.unlink()
    line = refusal(snapshot)
    assert name in line and blob.name in line


# --- graphs that lie in a folder -----------------------------------------------------------------


def graph_folder(folder, *names, config=True):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"graph")
    if config:
        (folder / "config.json").write_text("{}")
    return folder


def chosen(model):
    located = locate(str(model))
    (graph,) = onnx_files(located.path, located.graph)
    return graph.path, unmeasured_graphs(located.path, [graph.path])


def test_which_graph_is_measured_and_which_are_not(tmp_path):
    nested = graph_folder(tmp_path / "a", "onnx/model.onnx", "onnx/model_q4.onnx")
    assert chosen(nested) == (nested / "onnx/model.onnx", ("onnx/model_q4.onnx",))
    both = graph_folder(tmp_path / "b", "model.onnx", "model_fp16.onnx", "onnx/model.onnx")
    assert chosen(both) == (both / "model.onnx", ("model_fp16.onnx", "onnx/model.onnx"))
    alone = graph_folder(tmp_path / "c", "decoder.onnx")
    assert chosen(alone) == (alone / "decoder.onnx", ())


def test_several_graphs_without_a_usual_name_take_a_choice(tmp_path):
    folder = graph_folder(tmp_path / "a", "decoder_model.onnx", "decoder_with_past_model.onnx")
    with pytest.raises(UsageError, match=r"decoder_model.onnx, decoder_with_past_model.onnx; give"):
        onnx_files(folder)
    path, others = chosen(folder / "decoder_model.onnx")
    assert (path.name, others) == ("decoder_model.onnx", ("decoder_with_past_model.onnx",))


def test_a_path_to_a_graph_chooses_it(tmp_path, monkeypatch):
    """Its model is the folder above if that has the config; weights beside it are not counted."""
    folder = graph_folder(tmp_path / "m", "onnx/model.onnx", "onnx/model_q4.onnx")
    model_folder(folder)
    located = locate(str(folder / "onnx" / "model_q4.onnx"))
    assert (located.kind, located.name, located.path) == ("onnx", "m", folder)
    assert chosen(located.graph) == (folder / "onnx/model_q4.onnx", ("onnx/model.onnx",))
    assert count_parameters(located.path, located.kind) is None
    monkeypatch.chdir(folder / "onnx")
    assert (locate("model_q4.onnx").name, locate(".").name) == ("m", "m")
    assert locate("..").kind == "folder"
    with pytest.raises(UsageError, match="or an .onnx file"):
        locate(str(folder / "config.json"))


def test_a_graph_of_a_snapshot_has_the_name_of_the_repository(tmp_path):
    plain = graph_folder(tmp_path / "plain", "onnx/model.onnx", "onnx/model_q4.onnx")
    snapshot = cached(tmp_path, "onnx-community/name", files_of(plain))
    for path in (snapshot, snapshot / "onnx", snapshot / "onnx" / "model_q4.onnx"):
        located = locate(str(path))
        assert (located.name, located.revision) == ("onnx-community/name", COMMIT)
    (snapshot / "onnx/model.onnx").resolve().unlink()
    with pytest.raises(UsageError, match=r"model.onnx cannot be read \(a link to"):
        onnx_files(snapshot)


def test_two_graphs_of_a_folder_are_two_models(tmp_path):
    folder = graph_folder(tmp_path / "m", "onnx/model.onnx", "onnx/model_q4.onnx")
    one, two = (str(folder / "onnx" / name) for name in ("model.onnx", "model_q4.onnx"))
    (folder / "onnx" / "model_q4.onnx").write_bytes(b"other")
    assert model_fingerprint(one, tmp_path) != model_fingerprint(two, tmp_path)
    assert locate(one).place != locate(two).place


def test_what_was_left_half_made_is_swept(tmp_path):
    for name, age in ((".export.old", 2 * 86_400), (".export.new", 60)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with new_folder(tmp_path / "export"):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [".export.new", "export"]


def test_a_manifest_that_lies(tmp_path):
    (tmp_path / "fp32").mkdir()
    (tmp_path / "fp32" / "model.onnx").write_bytes(b"graph")
    files = list_files(tmp_path / "fp32", ["model.onnx"])
    graph = {
        "precision": "fp32",
        "folder": "fp32",
        "exporter": "optimum",
        "recipe": "r",
        "files": msgspec.to_builtins(files),
    }
    manifest = tmp_path / "edgecap.json"
    manifest.write_text(json.dumps({"source": {}, "graphs": [graph]}))
    assert [f.precision for f in onnx_files(tmp_path)] == ["fp32"]
    (tmp_path / "fp32" / "model.onnx").write_bytes(b"grapf")
    with pytest.raises(UsageError, match="changed or cut short"):
        onnx_files(tmp_path)
    manifest.write_text(json.dumps({"source": {}, "graphs": [{**graph, "folder": "../elsewhere"}]}))
    with pytest.raises(UsageError, match="outside its folder"):
        onnx_files(tmp_path)
    tokenizer = {"path": "tokenizer.json", "bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
    manifest.write_text(json.dumps({"source": {}, "graphs": [], "files": [tokenizer]}))
    (tmp_path / "tokenizer.json").write_text("{}")
    assert onnx_files(tmp_path) == []
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(UsageError, match=r"tokenizer.json is not what edgecap.json says"):
        onnx_files(tmp_path)
    manifest.write_text('{"graphs": 5}')
    with pytest.raises(UsageError, match="is not a manifest"):
        onnx_files(tmp_path)


# --- machine ----------------------------------------------------------------------------------


def test_the_machine_is_looked_at(monkeypatch, tmp_path):
    cpufreq = tmp_path / "devices/system/cpu/cpufreq"
    cpufreq.mkdir(parents=True)
    (cpufreq / "boost").write_text("1\n")
    monkeypatch.setenv("EDGECAP_SYSFS", str(tmp_path))
    found = machine.read_machine(("cpu",))
    assert found.turbo is True
    assert isinstance(found.governor, Absent)
    assert found.logical_cores >= 1
    assert found.memory_bytes > 1e8
    assert "numpy" in found.versions
    assert 1 <= machine.default_threads() <= found.logical_cores


def test_more_threads_than_processors_are_refused(monkeypatch):
    monkeypatch.setattr(machine, "usable_processors", lambda: 4)
    for threads, kept_to in ((None, ()), (None, (0,)), (4, ()), (2, (0, 3))):
        machine.check_threads(threads, kept_to)
    with pytest.raises(
        UsageError, match="--threads 1000 is more than the 4 processors that this process may use"
    ):
        machine.check_threads(1000)
    with pytest.raises(
        UsageError, match="--threads 3 is more than the 2 processors that --affinity keeps it to"
    ):
        machine.check_threads(3, (0, 3))
    with pytest.raises(UsageError, match="more than the 1 processor that"):
        machine.check_threads(4, (0,))


def test_lists_of_numbers_are_one_line(tmp_path):
    """A record holds ten thousands of samples, and people look at it."""
    record = load(OLD / "record-1.json")
    save(record, tmp_path / "r.json")
    assert load(tmp_path / "r.json") == record
    text = (tmp_path / "r.json").read_text()
    samples = record.cells[0].outcome.latency.decode.samples_s
    line = next(x for x in text.splitlines() if len(x.split(", ")) == len(samples))
    assert json.loads(line[line.index("[") : line.rindex("]") + 1]) == list(samples)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rounds": []}, "samples of 0 rounds"),
        ({"samples_s": [], "rounds": []}, "0 samples of 0 rounds"),
        ({"samples_s": [0.0], "rounds": [0]}, "no clock can have measured"),
        ({"samples_s": [1e308], "rounds": [0]}, "no clock can have measured"),
        ({"samples_s": [-1.0], "rounds": [0]}, "no clock can have measured"),
    ],
)
def test_samples_that_cannot_be_reckoned_with_are_damage(tmp_path, change, words):
    raw = json.loads((ROOT / "tests" / "data" / f"record-{SCHEMA}.json").read_text())
    raw["cells"][0]["outcome"]["latency"]["prefill"].update(change)
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(RecordError, match=words):
        load(path)


def test_of_two_runtimes_the_one_that_is_imported_is_told(monkeypatch, tmp_path):
    package = tmp_path / "onnxruntime" / "__init__.py"
    package.parent.mkdir()
    package.write_text('"""A runtime."""\n__version__ = "1.31.1"\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    told = {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.1", "numpy": "2.0"}
    monkeypatch.setattr(machine, "_version", lambda name: told.get(name, ""))
    assert set(machine.library_versions()) == {"python", "onnxruntime-gpu", "numpy"}
    told["onnxruntime"] = told["onnxruntime-gpu"] = (
        "1.29.0"  # neither is what is imported: nothing is known of it
    )
    assert {"onnxruntime", "onnxruntime-gpu"} <= set(machine.library_versions())


# --- the reference series ---------------------------------------------------------------------


def test_the_reference_series_is_one_series():
    folders = [ROOT / "models" / f"edgecap-ref-{size}" for size in ("xs", "s", "m")]
    cards = [json.loads((folder / "training.json").read_text()) for folder in folders]
    assert sum((folder / "model.safetensors").stat().st_size for folder in folders) < 26e6
    assert len({tokenizer_sha256(folder) for folder in folders}) == 1
    told = (
        "training_text_sha256",
        "distinct_tokens",
        "training_tokens",
        "optimizer",
        "batch_tokens",
        "window",
        "seed",
    )
    assert len({tuple(card["recipe"][name] for name in told) for card in cards}) == 1
    sizes = [card["recipe"]["parameters"] for card in cards]
    assert sizes == sorted(sizes) and all(
        c["curve"][-1]["tokens"] == c["recipe"]["training_tokens"] for c in cards
    )
    bits = [card["eval_bits_per_byte"] for card in cards]
    for smaller, larger in zip(bits, bits[1:], strict=False):
        assert all(larger[domain] < smaller[domain] for domain in smaller)
    xz = cards[0]["eval_xz_bits_per_byte"]["english-education"]
    assert all(each["english-education"] < 0.75 * xz for each in bits)


# --- excerpt ----------------------------------------------------------------------------------


def lines_of(tmp_path, texts, domains):
    rows = [{"text": t, "domain": d} for t, d in zip(texts, domains, strict=True)]
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_an_excerpt_is_spread_over_domains_as_their_text_is(tmp_path):
    texts = [chr(97 + n % 26) * 1000 for n in range(40)]
    part = excerpt(read_corpus(str(lines_of(tmp_path, texts, ["x"] * 30 + ["y"] * 10))))
    assert {name: d.documents for name, d in part.domains.items()} == {"x": 18, "y": 6}
    assert all(len(d.text) == PIECE_CHARACTERS for d in part.documents)
    assert part.cut == part.count
    assert part.bytes == sum(len(d.text) for d in part.documents)
    check_unchanged(part)


def test_one_long_text_has_pieces_all_over(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(chr(97 + n // 1000 % 26) for n in range(26_000)))
    part = excerpt(read_corpus(str(path)))
    assert part.count == PIECES
    assert len({d.text[0] for d in part.documents}) > 20
    assert len({d.id for d in part.documents}) == PIECES


def test_short_documents_have_more_pieces(tmp_path):
    part = excerpt(read_corpus(str(lines_of(tmp_path, ["x" * 40] * 1000, "a" * 1000))))
    assert part.bytes == PIECES * PIECE_CHARACTERS
    assert part.count == part.bytes // 40
    assert corpus_info(part, None, {}).pieces == 0  # each is a whole document


def test_a_book_among_short_texts_has_most_pieces(tmp_path):
    texts = ["b" * 200_000, *["tiny"] * 500]
    part = excerpt(read_corpus(str(lines_of(tmp_path, texts, "a" * 501))))
    assert part.bytes > 0.9 * PIECES * PIECE_CHARACTERS


def test_pieces_are_those_of_longer_documents(tmp_path):
    texts = ["b" * 6000, *["x" * 100] * 60]
    part = excerpt(read_corpus(str(lines_of(tmp_path, texts, "a" * 61))))
    long = [d for d in part.documents if "b" in d.text]
    assert 0 < corpus_info(part, None, {}).pieces == len(long) < part.count


def test_an_excerpt_of_little_text_is_all_of_it(tmp_path):
    whole = read_corpus(str(lines_of(tmp_path, ["short"] * 30, "ab" * 15)))
    assert excerpt(whole) is whole


def test_of_many_domains_an_excerpt_has_no_more_pieces(tmp_path):
    texts = ["", *["word " * 100] * 99]
    part = excerpt(read_corpus(str(lines_of(tmp_path, texts, [f"d{n}" for n in range(100)]))))
    assert part.count == PIECES


def test_of_an_excerpt_that_changed_a_run_says_so(tmp_path):
    path = lines_of(tmp_path, ["a" * 1000] * 30, "x" * 30)
    part = excerpt(read_corpus(str(path)))
    path.write_text(path.read_text().replace("aaaa", "bbbb"))
    with pytest.raises(UsageError, match="changed"):
        check_unchanged(part)


def test_a_part_of_a_text_has_no_bias():
    part = excerpt(read_corpus("edgecap-mixed"))
    assert (part.bias_bits, part.card) == (0.0, None)
    law = corpus_info(part, None, {}).law
    assert law.slope.value == pytest.approx(0.126, abs=0.001)
    assert isinstance(law.bias_bits, Absent)
