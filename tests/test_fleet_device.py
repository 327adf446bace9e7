"""A device and a hostile order, piece or client; and a client and a hostile device:
neither gets beyond its words.
"""

import json
import shutil
import threading
import time
from pathlib import Path

import msgspec
import pytest
from conftest import REFERENCE
from fakes import corpus_of, scripted
from fleets import ABOUT

from edgecap.errors import EdgecapError, RecordError, Unreadable, UsageError
from edgecap.graph.onnx_file import inspect_graph
from edgecap.meters.sharding import join_parts
from edgecap.pipeline.worker import MeasureCell, Progress
from edgecap.record import Failure, File
from edgecap.storage.files import Paths
from edgecap.sweep.fleet import conversation
from edgecap.sweep.fleet.bundles import Bundles
from edgecap.sweep.fleet.connection import ConnectionLost, DeviceStatus, _device_info, _progress
from edgecap.sweep.fleet.device import Device
from edgecap.sweep.fleet.manifest import MOST_FILES, model_files
from edgecap.sweep.fleet.messages import (
    CellDone,
    FilesNeeded,
    InvalidMessage,
    PartDone,
    TaskFailed,
    check_name,
    decode,
    encode,
)
from edgecap.sweep.fleet.requirements import Task
from edgecap.sweep.fleet.scored_parts import ScoredText
from edgecap.sweep.fleet.validation import UnexpectedRecord, validated_record, validated_shares
from edgecap.sweep.plan import unfold
from edgecap.text.bias_card import BiasCard
from edgecap.text.corpus import read_corpus

H = "0" * 64
NOTHING = ScoredText()


def run(step, watch, timeout_s):
    return scripted(corpus_of(step))(step, watch, timeout_s)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A planned cell, and the bundles of the client that asks for it."""
    folder = tmp_path_factory.mktemp("client")
    text = folder / "text.jsonl"
    text.write_text(
        "".join(json.dumps({"text": f"{i} words and words " * 9}) + "\n" for i in range(4))
    )
    asked = {
        "models": str(REFERENCE),
        "precisions": ["int8"],
        "corpora": str(text),
        "contexts": [64],
        "shards": 2,
    }
    (cell,) = unfold(asked, folder, folder / "cache")
    return cell, Bundles(Paths(folder / "cache", folder), None, run)


class Wire:
    """A line to one device in this process, which may be a bad one."""

    def __init__(self, device):
        self.device, self.asked = device, 0

    def ask(self, address, verb, *said):
        self.asked += 1
        return (
            self.device.answer(*said)
            if verb is conversation.device_side.serve
            else self.device.take(*said)
        )


SEEN = DeviceStatus("tcp://127.0.0.1:1", ABOUT, True)


def said(client, device, part=None, text=NOTHING):
    cell, bundles = client
    return conversation.run_task(Wire(device), bundles, Task(cell, part), SEEN, text).outcome


@pytest.fixture
def order(client):
    cell, bundles = client
    return bundles.order(cell, None, ())[0]


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path / "cache", None, run)


def answered(device, order, **changes):
    return decode(
        device.answer(encode(msgspec.structs.replace(order, **changes))), conversation.Reply
    )


def test_an_honest_pair_has_a_record_and_sends_a_model_once(client, device):
    record = said(client, device)
    assert (
        record.complete and record.spec == client[0].spec and record.source.name == REFERENCE.name
    )
    wire = Wire(device)
    conversation.run_task(wire, client[1], Task(client[0]), SEEN, NOTHING)
    assert wire.asked == 1
    parts = [said(client, device, part) for part in (0, 1)]
    assert all(len(shares) == 4 for shares in parts)


def test_a_transfer_that_is_cut_off_goes_on_at_its_offset(client, device, monkeypatch):
    monkeypatch.setattr(conversation, "PIECE_BYTES", 500)
    offsets = []

    class Cable(Wire):
        def ask(self, address, verb, *words):
            if verb is conversation.device_side.take:
                offsets.append(words[1])
                if len(offsets) == 4:
                    raise ConnectionLost("it was pulled")
            return super().ask(address, verb, *words)

    assert (
        str(conversation.run_task(Cable(device), client[1], Task(client[0]), SEEN, NOTHING).outcome)
        == "it was pulled"
    )
    assert offsets == [0, 500, 1000, 1500]
    assert conversation.run_task(
        Cable(device), client[1], Task(client[0]), SEEN, NOTHING
    ).outcome.complete
    assert offsets[4] == 1500 and offsets.count(500) < offsets.count(0)


# --- hostile orders ---------------------------------------------------------------------------


def listing(*paths, graph="fp32", beside="config.json", size=1, sha256=H):
    files = [{"path": path, "bytes": size, "sha256": sha256} for path in paths]
    return json.dumps(
        {
            "files": [{"path": beside, "bytes": 1, "sha256": H}],
            "graphs": [
                {
                    "precision": "fp32",
                    "folder": graph,
                    "exporter": "x",
                    "recipe": "x",
                    "files": files,
                }
            ],
            "source": {},
        }
    )


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"graphs": 1, "source": {}}',
        "[" * 100_000,
        '{"a":' * 5000,
        "\ud800",
        *(
            listing(path)
            for path in (
                "/etc/passwd",
                "../x.onnx",
                "..",
                ".",
                "",
                "a/b.onnx",
                "m\n.onnx",
                "m\0.onnx",
            )
        ),
        *(
            listing(path)
            for path in (
                "..\\m.onnx",
                "C:m.onnx",
                ".m.onnx",
                "m.onnx/",
                "é.onnx",
                f"{'m' * 300}.onnx",
            )
        ),
        *(
            listing(path)
            for path in (
                "model.bin",
                "model.pt",
                "model.pkl",
                "model.py",
                "m.so",
                "m",
                "m.onnx.zip",
                "m.so_1",
                "m.onnx_data_1.py",
            )
        ),
        *(
            listing("m.onnx", graph=graph)
            for graph in ("..", "/etc", "", "fp32/..", "other", "a\n", "FP32 ")
        ),
        *(
            listing("m.onnx", beside=name)
            for name in ("modeling.py", "x.json", "../config.json", "pytorch_model.bin")
        ),
        listing("m.onnx", "m.onnx"),
        listing("m.onnx", "M.onnx"),
        listing("m.onnx", size=-1),
        listing("m.onnx", size=1.5),
        *(
            listing("m.onnx", sha256=name)
            for name in ("", "x" * 64, H.upper().replace("0", "A"), "../" * 20 + "abcd")
        ),
        listing(*(f"m{n}.onnx" for n in range(MOST_FILES + 1))),
        listing(*(f"m{n}.onnx" for n in range(100_000))),
    ],
)
def test_a_manifest_that_is_none_makes_nothing(device, order, tmp_path, manifest):
    with pytest.raises(UsageError) as error:
        model_files(manifest)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    if manifest != "\ud800":
        reply = answered(device, order, manifest=manifest)
        assert isinstance(reply, TaskFailed) and reply.failure.stage == "refused"
    assert not (tmp_path / "cache").exists()


def test_weights_in_several_files_travel():
    names = ("model_q4.onnx", "model_q4.onnx_data", "model_q4.onnx_data_1")
    files = model_files(listing(*names))
    assert [f.path for f in files] == ["config.json", *(f"fp32/{name}" for name in names)]


def test_a_file_that_says_another_size_is_not_taken(device, order, client):
    places = client[1].order(client[0], None, ())[1]
    sha256, path = next(iter(places.items()))
    size = path.stat().st_size
    for lie in (size - 1, size + 1):
        reply = decode(
            device.take(encode(File(path="", bytes=lie, sha256=sha256)), 0, path.read_bytes()),
            conversation.Reply,
        )
        assert isinstance(reply, TaskFailed) or reply.had == {sha256: size}
    assert sha256 in answered(device, order).had


@pytest.mark.parametrize(
    "name", ["../../x", "/etc", "a\nb", "a\0b", "", "..", "x" * 5000, "\x1b[2J", "con", "~root"]
)
def test_names_lead_nowhere(client, order, tmp_path, name):
    device = Device(tmp_path / "cache", None, run)
    places = client[1].order(client[0], None, ())[1]
    for sha256, path in places.items():
        device.take(
            encode(File(path="", bytes=path.stat().st_size, sha256=sha256)), 0, path.read_bytes()
        )
    reply = answered(device, order, model_name=name, text_name=name)
    assert isinstance(reply, CellDone | TaskFailed)
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}
    below = [path.relative_to(tmp_path / "cache").parts for path in (tmp_path / "cache").rglob("*")]
    assert all(part.isprintable() and len(part) < 120 for parts in below for part in parts)


def test_neither_code_nor_files_of_the_device_are_reachable(client, device, order, tmp_path):
    asked = []

    def watched(step, watch, timeout_s):
        asked.append(step)
        return run(step, watch, timeout_s)

    assert not isinstance(said(client, device), EdgecapError)
    device = Device(tmp_path / "cache", None, watched)
    wild = msgspec.structs.replace(
        order.spec, trust_remote_code=True, meter="/etc/passwd", revision="main"
    )
    assert isinstance(answered(device, order, spec=wild), CellDone)
    assert not any(
        getattr(step, "trust_remote_code", False) or getattr(step, "meter", None) for step in asked
    )
    corpus = msgspec.structs.replace(order.spec, corpus="/etc/passwd")
    assert "bundled" in answered(device, order, text=None, spec=corpus).failure.message
    for provider in (
        "qnn:backend_path=evil.so",
        "openvino:load_config=/etc/x",
        "tensorrt:a=b\\c",
        "cuda:x=../y",
    ):
        found = answered(
            device, order, spec=msgspec.structs.replace(order.spec, providers=(provider,))
        )
        assert "may not name files or libraries" in found.failure.message


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\x80\x04.", b"{}", b"[" * 99999, 7, None, b'{"kind":"order"}', b" " * 9]
)
def test_what_is_no_order_is_answered(device, data):
    reply = decode(device.answer(data), conversation.Reply)
    assert isinstance(reply, TaskFailed) and reply.elsewhere
    assert isinstance(decode(device.take(data, 0, b""), conversation.Reply), TaskFailed)


def test_another_version_is_told(device, order):
    reply = answered(device, order, edgecap="99 \x1b[2J")
    assert "install the same" in reply.failure.message and reply.elsewhere


def test_what_was_kept_and_is_damaged_is_sent_anew(client, device, tmp_path):
    assert not isinstance(said(client, device), EdgecapError)
    for kept in (tmp_path / "cache" / "blobs").iterdir():
        kept.write_bytes(bytes(kept.stat().st_size))
    for kind in ("bundles", "texts"):
        shutil.rmtree(tmp_path / "cache" / kind)
    for _ in range(20):
        found = said(client, device)
        if not isinstance(found, EdgecapError):
            break
        assert "damaged" in str(found)
    assert found.complete


def test_what_nobody_waits_for_any_more_is_given_up(client, tmp_path):
    begun, wanted = threading.Event(), [True]

    def slow(step, watch, timeout_s):
        if isinstance(step, MeasureCell):
            begun.set()
            while True:  # until its progress is not heard any more
                time.sleep(0.01)
                watch(Progress(stage="s", done=1, total=2))
        return run(step, watch, timeout_s)

    device = Device(tmp_path / "cache", None, slow)
    wire, replies = Wire(device), []
    wire.ask = lambda address, verb, *words: (
        device.answer(*words, lambda: wanted[0])
        if verb is conversation.device_side.serve
        else device.take(*words)
    )
    thread = threading.Thread(
        target=lambda: replies.append(
            conversation.run_task(wire, client[1], Task(client[0]), SEEN, NOTHING).outcome
        )
    )
    thread.start()
    assert begun.wait(20)
    time.sleep(0.1)
    assert (
        device.progress.stage == "s"
        and str(device.progress) == "s 50 %"
        and device.progress.beats > 1
    )
    wanted[0] = False
    thread.join(20)
    assert "is gone" in str(replies[0]) and device.progress.stage == ""


# --- hostile devices --------------------------------------------------------------------------


class Liar:
    """A device that answers what it is told to; `pieces` for files."""

    def __init__(self, order, piece=b""):
        self.order, self.piece = order, piece

    def answer(self, data):
        return self.order

    def take(self, about, offset, data):
        return self.piece(offset) if callable(self.piece) else self.piece


def needs(**had):
    return encode(FilesNeeded(had=had))


def test_a_device_gets_no_file_but_the_models_and_not_for_ever(client):
    places = client[1].order(client[0], None, ())[1]
    sha256 = next(iter(places))
    for bad in (
        needs(),
        needs(**{H: 0}),
        needs(**{"../../etc/passwd": 0}),
        needs(**{sha256: -1}),
        needs(**{sha256: 10**18}),
    ):
        assert isinstance(said(client, Liar(bad, needs())), InvalidMessage)
    wire = Wire(Liar(needs(**{sha256: 0}), needs()))
    assert "repeatedly" in str(
        conversation.run_task(wire, client[1], Task(client[0]), SEEN, NOTHING).outcome
    )
    assert wire.asked == 2 * conversation.ROUNDS
    wire = Wire(Liar(needs(**{sha256: 0}), needs(**{sha256: 0})))
    assert "repeatedly" in str(
        conversation.run_task(wire, client[1], Task(client[0]), SEEN, NOTHING).outcome
    )
    assert wire.asked < 60


@pytest.mark.parametrize(
    "reply",
    [object(), Path("/etc/passwd"), None, b"\x80\x04.", {"kind": "done"}, "x", b" " * 300_000_000],
)
def test_a_reply_that_is_no_message_is_nothing(client, reply):
    assert isinstance(said(client, Liar(reply)), InvalidMessage)


@pytest.fixture(scope="module")
def good(client, tmp_path_factory):
    """What an honest device sends, as parsed JSON."""
    device, kept = Device(tmp_path_factory.mktemp("device"), None, run), []
    honest = device.answer
    device.answer = lambda data: kept.append(honest(data)) or kept[-1]
    said(client, device)
    return json.loads(kept[-1])["record"]


def checked(client, record, scored=NOTHING):
    cell, bundles = client
    raw = msgspec.Raw(record if isinstance(record, bytes) else json.dumps(record).encode())
    return validated_record(raw, cell, bundles.bundle(cell), bundles.corpus(cell), scored)


def test_a_bias_that_was_fitted_otherwise_is_told_by_the_side_that_knows_the_card(client, good):
    (planned, bundles), record = client, json.loads(json.dumps(good))
    fitted = BiasCard(
        corpus="text", sha256="", bias_bits=-1.25, low=None, high=None, criterion="c",
        spread_with_zero=0.1, spread_fitted=0.01, protocol="exact", context=1024, stride=None,
        precision="fp32", edgecap="0", models=(),
    )  # fmt: skip
    corpus = msgspec.structs.replace(bundles.corpus(planned), card=fitted)
    for _ in range(2):  # the second comes from a device that has said so itself
        raw = msgspec.Raw(json.dumps(record).encode())
        kept = validated_record(raw, planned, bundles.bundle(planned), corpus, NOTHING)
        (told,) = [c for c in kept.cells[0].cautions if c.code == "bias-of-another-protocol"]
        assert "window 1024; this text was scored under protocol exact, window 64" in told.message
        record["cells"][0]["cautions"] = msgspec.to_builtins(kept.cells[0].cautions)
    assert not [c for c in checked(client, good).cells[0].cautions if c.code == told.code]


def changed(record, path, value):
    """A copy with one value, at a path such as cells.0.precision, replaced."""
    copy = json.loads(json.dumps(record))
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = copy
    for step in way:
        place = place[step]
    place[last] = value
    return copy


DOCUMENT = "cells.0.outcome.compression.per_document.0"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 99),
        ("schema", "5"),
        ("complete", False),
        ("cells", []),
        ("cells.0.precision", "fp32"),
        ("cells.0.provider", "cuda"),
        ("source.weights_sha256", H),
        ("source.tokenizer_sha256", H),
        ("corpus.sha256", H),
        ("cells.0.graph.files.0.sha256", H),
        ("cells.0.outcome.compression.context", 32),
        ("cells.0.outcome.compression.stride", 3),
        ("cells.0.outcome.compression.protocol", "paper"),
        ("cells.0.outcome.compression.bits_per_byte", 0.1),
        ("cells.0.outcome.compression.tokens", 1),
        ("cells.0.outcome.compression.wall_s", -1.0),
        ("cells.0.outcome.compression.per_document", []),
        (f"{DOCUMENT}.nll_bits", -1.0),
        (f"{DOCUMENT}.nll_bits", 1e300),
        (f"{DOCUMENT}.nll_bits", 1.0),
        (f"{DOCUMENT}.bytes", 10**9),
        (f"{DOCUMENT}.bytes", -1),
        (f"{DOCUMENT}.tokens", -1),
        ("cells.0.outcome.latency.decode.samples_s", [-1.0]),
        ("cells.0.outcome.latency.prefill.samples_s", []),
        ("cells.0.outcome", {"kind": "nothing"}),
        ("unknown", 1),
    ],
)
def test_a_record_of_something_else_is_refused(client, good, path, value):
    with pytest.raises((UnexpectedRecord, RecordError)):
        checked(client, changed(good, path, value))


@pytest.mark.parametrize(
    "raw",
    [b"NaN", b"[" * 10**5, b'{"schema": 5, "schema": 1e999}', b"\xff", b"", b'"\xed\xa0\x80"'],
)
def test_what_is_no_json_is_refused(client, raw):
    with pytest.raises(RecordError):
        checked(client, raw)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(client, good, number):
    text = json.dumps(changed(good, f"{DOCUMENT}.nll_bits", "HERE")).replace('"HERE"', number)
    with pytest.raises((RecordError, UnexpectedRecord)):
        checked(client, text.encode())


def test_words_of_a_device_neither_command_a_terminal_nor_name_a_document(client, good):
    wild = changed(good, "machine.name", "\x1b]0;x\x07\x1b[2J\nname\u202e" + "x" * 10_000)
    wild = changed(wild, f"{DOCUMENT}.id", "../../x\n\x1b[2J")
    wild = changed(wild, "source.name", "/etc/passwd")
    record = checked(client, wild)
    assert record.machine.name.isprintable() and len(record.machine.name) <= 2000
    assert record.source.name == REFERENCE.name and record.corpus.name == "text"
    (cell,) = record.cells
    ids = [document.id for document in client[1].corpus(client[0]).documents]
    assert [document.id for document in cell.outcome.compression.per_document] == ids
    told = Failure(stage="\x1b[2J", error="a\nb" * 100, message="\x07" * 9999)
    failed = said(client, Liar(encode(TaskFailed(failure=told))))
    assert (
        all(word.isprintable() for word in (failed.stage, failed.error, failed.message))
        and len(failed.message) <= 500
    )


def test_bits_that_others_scored_are_not_changed(client, good, tmp_path):
    device = Device(tmp_path / "cache", None, run)
    documents = join_parts([said(client, device, part) for part in (0, 1)])
    assert checked(client, good, ScoredText(documents, ("a", "b"))).cells[
        0
    ].outcome.compression.scored_on == ("a", "b")
    bits = documents[0].bits
    other = documents[0]._replace(bits=msgspec.structs.replace(bits, nll_bits=bits.nll_bits + 1))
    with pytest.raises(UnexpectedRecord, match="parts"):
        checked(client, good, ScoredText((other, *documents[1:]), ()))


def test_shares_of_another_text_are_refused(client, tmp_path):
    cell, bundles = client
    corpus = bundles.corpus(cell)
    shares = said(client, Device(tmp_path / "cache", None, run), 0)
    assert validated_shares(PartDone(shares=shares), corpus) == shares
    named = msgspec.structs.replace(shares[0], id="\x1b[2J", domain="x")
    assert validated_shares(PartDone(shares=(named, *shares[1:])), corpus) == shares
    for bad in (
        shares[1:],
        (*shares, shares[0]),
        (msgspec.structs.replace(shares[0], window_bits=(-1.0,)), *shares[1:]),
        (msgspec.structs.replace(shares[0], window_bits=(float("nan"),)), *shares[1:]),
        (msgspec.structs.replace(shares[0], bytes=-1), *shares[1:]),
    ):
        with pytest.raises(InvalidMessage):
            validated_shares(PartDone(shares=bad), corpus)


# --- who a device says it is ------------------------------------------------------------------


def about(**changes):
    return {
        "edgecap": msgspec.to_builtins(msgspec.structs.replace(ABOUT, **changes)),
        "name": "one",
    }


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"edgecap": None},
        {"edgecap": 7},
        {"edgecap": {"name": "one"}},
        {**about(), "name": "two"},
        {**about(name="two")},
        about(cpu="\x1b[2J"),
        about(host="a\nb"),
        about(edgecap="x" * 300),
        about(memory_bytes=-1),
        about(providers=("x",) * 1000),
        {"edgecap": {**about()["edgecap"], "extra": 1}, "name": "one"},
        *(
            {**about(name=name), "name": name}
            for name in ("", "../x", "a b", "\x1b[2J", "a\n", "x" * 64, "é", "-x")
        ),
    ],
)
def test_who_says_nonsense_of_itself_is_no_device(told):
    assert _device_info(told) is None


def test_a_pulse_that_is_none_is_no_sign():
    assert _device_info(about()) == ABOUT
    for told in (
        {},
        {"metrics": 7},
        {"metrics": {"edgecap": {"beats": -1}}},
        {"metrics": {"edgecap": {"stage": "\n"}}},
    ):
        assert _progress(told).beats == 0
    assert (
        str(_progress({"metrics": {"edgecap": {"beats": 1, "stage": "s", "done": 3, "total": 4}}}))
        == "s 75 %"
    )


@pytest.mark.parametrize("name", ["", "every", "../x", "a b", "x" * 64, "a\n", "é"])
def test_a_name_that_plans_cannot_write_is_refused(name):
    with pytest.raises(UsageError, match="cannot name a device"):
        check_name(name)
    assert check_name("laptop-7.home") == "laptop-7.home"


# --- a graph that points elsewhere ------------------------------------------------------------


@pytest.mark.parametrize("place", ["../secret", "/etc/hostname", "*/_ORT_MEM_ADDR_/*"])
@pytest.mark.parametrize("where", ["weights", "constant", "branch"])
def test_weights_outside_of_a_model_are_not_read(tmp_path, place, where):
    onnx = pytest.importorskip("onnx")
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(16))
    (folder / "model.onnx").write_bytes(pointing(onnx, place, where).SerializeToString())
    with pytest.raises(Unreadable):
        inspect_graph(folder / "model.onnx")


def pointing(onnx, place, where):
    """A decoder with a tensor whose numbers lie at a place."""
    helper, far = onnx.helper, onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    for key, value in {"location": place, "offset": "0", "length": "16"}.items():
        far.external_data.add(key=key, value=value)
    out = helper.make_tensor_value_info("w", 1, [4])
    ids, logits = (
        helper.make_tensor_value_info(n, t, [4]) for n, t in (("input_ids", 7), ("logits", 1))
    )
    nodes, weights = [], [far]
    if where != "weights":
        nodes, weights = [helper.make_node("Constant", [], ["w"], value=far)], []
    if where == "branch":
        branch = helper.make_graph(nodes, "b", [], [out])
        nodes = [
            helper.make_node("If", ["input_ids"], ["w"], then_branch=branch, else_branch=branch)
        ]
    nodes = [*nodes, helper.make_node("Add", ["w", "w"], ["logits"])]
    graph = helper.make_graph(nodes, "g", [ids], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_the_texts_own_hash_is_the_corpus(client):
    cell, bundles = client
    assert bundles.corpus(cell).sha256 == read_corpus(cell.spec.corpus).sha256
