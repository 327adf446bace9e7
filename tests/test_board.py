"""shelf, report/entries, report/board, published, serving and the command:
a leaderboard over many records.
"""

import csv
import http.client
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from boards import (
    BASE,
    BIDI,
    HOSTILE,
    REFERENCE,
    as_published,
    many,
    named,
    replace,
    saved,
    with_joules,
)
from click.testing import CliRunner
from conftest import ROOT

from edgecap.analysis import published
from edgecap.analysis.law import law_of
from edgecap.analysis.metrics import estimates
from edgecap.cli.board import board as command
from edgecap.errors import UsageError
from edgecap.names import shortened_unique
from edgecap.record import OLD_FORMULA, Absent, Failure
from edgecap.report.board.board import board_page, board_values, relative_link, rows_of, unread
from edgecap.report.board.entries import FIGURES, RANKED, entries, latest
from edgecap.report.server import BoardApp, is_own, open_server
from edgecap.storage.collection import Collection, LoadedRecord, SkippedFile
from edgecap.storage.records import save

AT = {metric.name: place for place, metric in enumerate(FIGURES)}


def found_of(*records):
    return [LoadedRecord(Path(f"profiles/{n}.json"), entries(r)) for n, r in enumerate(records)]


def values_of(*records):
    return board_values(found_of(*records), str)


def run(*words):
    return CliRunner().invoke(command, [str(w) for w in words], catch_exceptions=True)


# --- the shelf --------------------------------------------------------------------------------


def names_read(*places):
    """Paths below the folders, and names of given files, in the order in which they are read."""
    found = Collection(places, entries).read()
    assert all(isinstance(one, LoadedRecord) and len(one.value) == len(BASE.cells) for one in found)
    below = [place for place in places if place.is_dir()]
    return [
        next((one.path.relative_to(p).as_posix() for p in below if one.path.is_relative_to(p)), "")
        or one.path.name
        for one in found
    ]


def test_folders_are_searched_to_any_depth_in_order(tmp_path):
    for folder in ("", "b/deep/er", "a", "b.json", "node_modules"):
        saved(tmp_path / folder, BASE, named())
    saved(tmp_path / ".hidden" / "below", BASE)
    (tmp_path / "a" / ".hidden.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("no record")
    folders = ["", "a/", "b/deep/er/", "b.json/", "node_modules/"]
    expected = [f"{folder}record-{n}.json" for folder in folders for n in (0, 1)]
    assert names_read(tmp_path) == expected
    assert names_read(tmp_path, tmp_path / "a", tmp_path / "record-0.json") == expected
    assert len(names_read(tmp_path / "a", tmp_path)) == len(expected)


def test_links_are_followed_and_may_form_loops(tmp_path):
    saved(tmp_path / "records" / "sub", BASE)
    saved(tmp_path / "elsewhere", named())
    for link, to in (("up", ".."), ("sub/top", "../.."), ("far", "../elsewhere"), ("self", "self")):
        (tmp_path / "records" / link).symlink_to(to)
    (tmp_path / "records" / "again.json").symlink_to("sub/record-0.json")
    found = names_read(tmp_path / "records")
    assert sorted(found) == ["again.json", "far/record-0.json"]


def test_a_link_to_itself_is_skipped_with_a_reason(tmp_path):
    folder = saved(tmp_path / "profiles", BASE)
    (folder / "loop.json").symlink_to("loop.json")
    found = run(folder, "-o", tmp_path / "board.html")
    assert found.exit_code == 0
    assert "loop.json" in found.stderr


def test_a_sub_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    saved(tmp_path, BASE)
    (tmp_path / "private").mkdir()
    scandir = os.scandir

    def refused(path):
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    record, private = Collection([tmp_path], entries).read()
    assert isinstance(record, LoadedRecord)
    assert private.reason == "private is a folder that cannot be read"
    with pytest.raises(UsageError, match="cannot read the folder .*private: Permission denied"):
        Collection([tmp_path / "private"], entries).read()


def test_a_huge_tree_is_refused(tmp_path, monkeypatch):
    saved(tmp_path / "a", BASE, named())
    monkeypatch.setattr("edgecap.storage.collection.MOST_ENTRIES", 3)
    assert len(Collection([tmp_path], entries).read()) == 2
    (tmp_path / "b").mkdir()
    with pytest.raises(UsageError, match="more than 3 files: name the folders with records"):
        Collection([tmp_path], entries).read()


def test_a_folder_without_a_record_is_named_beside_others(tmp_path):
    folder = saved(tmp_path / "profiles" / "deep", BASE).parent
    (tmp_path / "empty").mkdir()
    for number in range(9):
        (folder / f"{number}.json").write_text("[]")
    found = run(folder, folder / "deep", tmp_path / "empty", "--json")
    assert found.exit_code == 0
    assert f"there is no record in {tmp_path / 'empty'} or its sub-folders" in found.stderr
    assert "not shown: 5 more" in found.stderr
    assert found.stderr.count("there is no record in") == 1
    unread_files = json.loads(found.stdout)["unread"]
    assert [one["path"] for one in unread_files][:2] == [
        str(tmp_path / "empty"),
        str(folder / "0.json"),
    ]


def test_what_cannot_be_read_says_why_and_stops_nothing(tmp_path):
    whole = (saved(tmp_path, BASE) / "record-0.json").read_bytes()
    (tmp_path / "cut.json").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "newer.json").write_text('{"schema": 999}')
    (tmp_path / "other.json").write_text('["a list"]')
    (tmp_path / "wrong.json").write_text(json.dumps({**json.loads(whole), "machine": 5}))
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    (tmp_path / "nothing.json").write_bytes(b"")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    found = {one.path.name: one for one in Collection([tmp_path], entries).read()}
    reasons = {name: one.reason for name, one in found.items() if isinstance(one, SkippedFile)}
    assert set(found) - set(reasons) == {"record-0.json"}
    assert "not a whole JSON file" in reasons["cut.json"]
    assert "upgrade edgecap" in reasons["newer.json"]
    assert "no schema number" in reasons["other.json"]
    assert "$.machine" in reasons["wrong.json"]
    assert not any("\n" in reason or str(tmp_path) in reason for reason in reasons.values())


def test_a_valid_record_whose_numbers_do_not_fit_stops_nothing(tmp_path):
    first = next(c for c in BASE.cells if not isinstance(c.outcome, Failure))
    latency = replace(
        first.outcome.latency,
        prefill=replace(first.outcome.latency.prefill, samples_s=(), rounds=()),
    )
    broken = replace(BASE, cells=(replace(first, outcome=replace(first.outcome, latency=latency)),))
    _, found = Collection([saved(tmp_path, broken)], entries).read()
    assert isinstance(found, SkippedFile)
    assert "prefill has 0 samples of 0 rounds" in found.reason


def test_a_file_is_read_again_only_when_it_changed(tmp_path):
    read = []
    shelf = Collection(
        [saved(tmp_path, BASE, named())],
        lambda record: read.append(record.source.name) or entries(record),
    )
    shelf.read()
    before = shelf.version()
    assert len(read) == 2
    shelf.read()
    assert (len(read), shelf.version()) == (2, before)
    save(named("another"), tmp_path / "record-1.json")
    (tmp_path / "record-0.json").unlink()
    assert shelf.version() != before
    assert [one.value[0].model for one in shelf.read()] == ["another"]
    assert read[2:] == ["another"]


def test_a_place_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="there is no .*nowhere"):
        Collection([tmp_path / "nowhere"], entries)


# --- entries ----------------------------------------------------------------------------------


def test_an_entry_has_every_figure_of_its_cell():
    record = with_joules(BASE)
    entry, cell = entries(record)[0], record.cells[0]
    assert len(entry.figures) == len(FIGURES)
    assert entry.figures[AT["time_capacity"]] == cell.score.time_capacity
    assert entry.figures[AT["decode_j"]].value == pytest.approx(20 / 500)
    assert entry.figures[AT["bits_per_byte"]].value == cell.outcome.compression.bits_per_byte
    assert entry.figures[AT["flops_per_token"]].value == record.flops.per_token
    assert entry.joules == "counter: rapl"


def test_what_ranks_has_an_interval_in_records_of_the_old_formula_too():
    cell = REFERENCE[0].cells[0]
    assert cell.score.effective_flops_per_s == OLD_FORMULA
    figure = entries(REFERENCE[0])[0].figures[AT[RANKED]]
    assert figure == estimates(REFERENCE[0], cell)[RANKED]
    assert figure.low < figure.value < figure.high


def test_a_failure_is_an_entry_with_its_reason():
    (entry,) = [e for e in entries(BASE) if e.outcome == "failed"]
    assert entry.failure == "compression: NotFinite: NaN for a token's probability"
    assert "NaN" in entry.figures[AT["decode_s"]].reason
    assert entry.text == entries(BASE)[0].text


def test_what_is_absent_says_why():
    assert "no RAPL counter" in entries(BASE)[0].figures[AT["decode_j"]].reason
    assert "no RAPL counter" in entries(BASE)[0].figures[AT["hardware_capacity"]].reason
    without = replace(BASE, flops=Absent(reason="no config"))
    assert entries(without)[0].figures[AT["flops_per_token"]].reason == "no config"


def test_a_number_that_is_none_is_absent():
    cell = BASE.cells[0]
    memory = replace(cell.outcome.memory, peak_bytes=10**400)
    text = replace(cell.outcome.compression, bits_per_byte=math.inf)
    huge = replace(BASE, cells=(replace(cell, outcome=replace(cell.outcome, compression=text)),))
    assert entries(huge)[0].figures[AT["bits_per_byte"]].reason == "not a finite number"
    with pytest.raises(OverflowError):  # which the shelf tells of
        entries(replace(BASE, cells=(replace(cell, outcome=replace(cell.outcome, memory=memory)),)))


def test_assumed_joules_are_called_so_and_enter_no_score():
    entry = entries(with_joules(BASE, provenance="assumed"))[0]
    assert entry.joules.startswith("assumed")
    assert "assumed" in entry.figures[AT["energy_capacity"]].reason


def test_names_are_shown_in_one_harmless_line():
    assert shortened_unique(BIDI) == "safe?gnp.exe?"
    assert shortened_unique("a\x1b[31m\nb\ttab") == "a?[31m b tab"
    assert len(shortened_unique("x" * 10_000)) == 160
    assert shortened_unique("x" * 10_000) != shortened_unique("x" * 10_001)
    assert shortened_unique("\udcff") == "?"


def test_the_newest_of_like_cells_is_the_latest():
    old, new = named(created="2026-01-01T00:00:00Z"), named(created="2026-02-01T00:00:00Z")
    other = named(created="2025-01-01T00:00:00Z", device="another")
    text = named(created="2025-01-01T00:00:00Z", corpus=replace(BASE.corpus, sha256="0" * 64))
    cells = len(BASE.cells)
    everything = [e for r in (old, new, other, text) for e in entries(r)]
    assert latest(everything) == set(range(cells, 4 * cells))


# --- the page's data --------------------------------------------------------------------------


def test_columns_are_as_long_as_there_are_cells_and_newest_first():
    values = values_of(
        named(created="2026-01-01T00:00:00Z"), named("newer", created="2026-02-01T00:00:00Z")
    )
    size = 2 * len(BASE.cells)
    assert {len(column) for column in values["cells"].values()} == {size}
    for column in values["values"]:
        assert {len(part) for part in column.values() if part is not None} == {size}
    assert values["names"]["model"] == ["newer", "a-model"]
    assert [record["created"][:7] for record in values["records"]] == ["2026-02", "2026-01"]


def test_every_absent_number_has_a_reason_and_every_number_none():
    values = values_of(BASE, with_joules(named()))
    for column in values["values"]:
        for place, value in enumerate(column["value"]):
            absent = -1 if column["absent"] is None else column["absent"][place]
            assert (value is None) == (absent >= 0)
            assert absent < 0 or values["reasons"][absent]


def test_numbers_keep_six_digits():
    values = values_of(BASE)
    for metric, column in zip(FIGURES, values["values"], strict=True):
        figure = entries(BASE)[0].figures[AT[metric.name]]
        assert isinstance(figure, Absent) or column["value"][0] == pytest.approx(
            figure.value, rel=1e-5
        )


def test_devices_and_texts_of_one_name_are_told_apart():
    other = replace(BASE, machine=replace(BASE.machine, cpu="Another CPU"))
    text = replace(BASE, corpus=replace(BASE.corpus, sha256="0" * 64))
    names = values_of(BASE, other, text)["names"]
    assert names["device"] == ["Example", "Another"]
    assert names["processor"][0] == "Example CPU, 2 cores, host laptop"
    assert len(set(names["text"])) == 2
    more_cores = replace(BASE, machine=replace(BASE.machine, physical_cores=16))
    assert values_of(BASE, more_cores)["names"]["device"] == [
        "Example, 2 cores",
        "Example, 16 cores",
    ]


def with_tokenizer(record, sha256):
    return replace(record, source=replace(record.source, tokenizer_sha256=sha256))


def test_tokenizers_are_named_by_their_models():
    xs, other = REFERENCE[-1], with_tokenizer(named("other"), "f" * 64)
    assert values_of(*REFERENCE, other)["names"]["tokenizer"] == [
        "of edgecap-ref-m, edgecap-ref-s and 1 more",
        "of other",
    ]
    names = values_of(xs, with_tokenizer(xs, "f" * 64))["names"]["tokenizer"]
    assert names[1] == "of edgecap-ref-xs, sha256 ffffffff"


def test_figures_say_what_they_compare_within():
    within = {figure["name"]: figure["within"] for figure in values_of(BASE)["figures"]}
    assert within[RANKED] == ["text", "tokenizer"]
    assert within["bits_per_byte"] == ["text"]
    assert within["decode_s"] == []


def test_rows_are_ranked_within_what_compares():
    foreign = with_tokenizer(named("foreign", record=REFERENCE[0]), "f" * 64)
    rows = rows_of(found_of(BASE, *REFERENCE, foreign))["rows"]
    groups = [row["tokenizer_sha256"] + row["text"]["sha256"] for row in rows]
    models = [row["model"] for row in rows]
    assert [key for key, _ in itertools.groupby(groups)] == list(dict.fromkeys(groups))
    assert models[0] == "edgecap-ref-s"
    assert "foreign" not in models[: sum(len(r.cells) for r in REFERENCE)]
    assert models[-1] == BASE.source.name  # has no law, so no worth
    for _, group in itertools.groupby(rows, key=lambda row: row["tokenizer_sha256"]):
        values = [row["figures"][RANKED].get("value", -1) for row in group]
        assert values == sorted(values, reverse=True)


def test_rows_of_two_laws_are_ranked_apart():
    """The same numbers on two scales: a row of the one never stands among those of the other."""
    (first, *rest) = REFERENCE
    law = law_of(first)
    steeper = replace(law, slope=replace(law.slope, value=2 * law.slope.value))
    again = replace(first, corpus=replace(first.corpus, law=law))
    other = replace(first, corpus=replace(first.corpus, law=steeper))
    files = found_of(again, other, *rest)
    laws = [row["text"]["law"] for row in rows_of(files)["rows"]]
    assert len(set(laws)) == 2
    assert [key for key, _ in itertools.groupby(laws)] == list(dict.fromkeys(laws))
    texts = values_of(again, other, *rest)["names"]["text"]
    assert len(set(texts)) == 2 and all("bits a doubling" in text for text in texts)


def test_a_record_without_a_cell_is_told_of(tmp_path):
    found = found_of(BASE, replace(BASE, cells=(), complete=False))
    (one,) = unread(found)
    assert "holds no cell" in one.reason
    assert rows_of(found)["unread"][0]["reason"] == one.reason


def test_links_are_relative_and_quoted(tmp_path):
    assert (
        relative_link(tmp_path / "profiles" / "a b#c?.json", tmp_path)
        == "profiles/a%20b%23c%3F.json"
    )
    assert relative_link(tmp_path / "a.json", tmp_path / "pages") == "../a.json"
    assert (
        relative_link(tmp_path / "javascript:alert(1).json", tmp_path)
        == "javascript%3Aalert%281%29.json"
    )
    assert relative_link(tmp_path / os.fsdecode(b"\xff.json"), tmp_path) == "%FF.json"


def test_hostile_strings_stay_strings():
    record = named(HOSTILE, BIDI, replace(BASE, created_utc=HOSTILE).created_utc)
    page = board_page(values_of(record, named("x" * 10_000)))
    assert "window.hacked=1</script>" not in page
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert "x" * 200 not in page
    data = re.search(r'<script type="application/json" id="board-data">(.*?)</script>', page, re.S)
    assert HOSTILE in json.loads(data[1])["names"]["model"]


def test_the_page_may_ask_its_server_only_when_served():
    values = values_of(BASE)
    policy = re.compile(r'Content-Security-Policy" content="([^"]*)"')
    assert "connect-src" not in policy.search(board_page(values))[1]
    assert "connect-src 'self'" in policy.search(board_page(values, live=True))[1]
    for page in (board_page(values), board_page(values, live=True)):
        assert "default-src 'none'" in policy.search(page)[1]


@pytest.mark.slow
def test_a_board_of_ten_thousand_cells_is_below_15_mb(tmp_path):
    values = board_values(many(10_000, tmp_path), lambda path: relative_link(path, tmp_path))
    assert len(values["cells"]["model"]) == 10_000
    assert len(board_page(values).encode()) < 15_000_000


# --- published values -------------------------------------------------------------------------


def test_the_published_points_are_those_of_the_figure(shared):
    with (shared / "expected" / "paper_figure.csv").open() as file:
        expected = list(csv.DictReader(file))
    points = published.read_published()
    assert len(points) == len(expected) == 39
    for point, row in zip(points, expected, strict=True):
        assert point.model == row["model"]
        assert point.flops_per_token == pytest.approx(
            float(row["flops_per_token"]), rel=published.FLOPS_ERROR
        )
        assert (
            abs(point.information_capacity - float(row["information_capacity"]))
            <= published.CAPACITY_ERROR
        )
        # 2 % in FLOPs and 0.0002 in capacity are 0.015 bits of a gain of 30
        assert point.gain_bits_per_token == pytest.approx(
            float(row["gain_bits_per_token"]), abs=0.015
        )


def test_only_cells_scored_as_published_stand_beside_them():
    like = as_published(BASE)
    assert [e.as_published for e in entries(like)] == [
        not isinstance(c.outcome, Failure) for c in like.cells
    ]
    assert not any(e.as_published for e in entries(BASE))
    for changes in ({"name": "my_text"}, {"bias_bits": 0.0}):
        assert not any(
            e.as_published for e in entries(replace(like, corpus=replace(like.corpus, **changes)))
        )
    cell = like.cells[0]
    shorter = replace(cell.outcome, compression=replace(cell.outcome.compression, context=512))
    assert not entries(replace(like, cells=(replace(cell, outcome=shorter),)))[0].as_published


# --- the command ------------------------------------------------------------------------------


def test_the_command_writes_a_page_that_links_to_the_records(tmp_path):
    folder = saved(tmp_path / "profiles", BASE)
    (folder / "broken.json").write_text("{")
    found = run(folder, "-o", tmp_path / "pages" / "board.html")
    assert found.exit_code == 0
    assert "broken.json is not a whole JSON file" in found.stderr
    page = (tmp_path / "pages" / "board.html").read_text()
    assert "../profiles/record-0.json" in page
    assert "broken.json is not a whole JSON file" in page


def test_json_is_rows_and_nothing_else(tmp_path):
    found = run(saved(tmp_path, BASE), "--json")
    rows = json.loads(found.stdout)["rows"]
    assert len(rows) == len(BASE.cells)
    assert set(rows[0]["figures"]) == set(AT)
    assert rows[0]["figures"]["decode_j"]["kind"] == "absent"
    assert not (tmp_path / "board.html").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing to show: there is no folder profiles here"),
        (("nowhere",), "there is no nowhere"),
        (("empty",), "nothing to show: no record with a cell"),
        (("empty",), "there is no record in empty or its sub-folders"),
        (("empty", "broken"), "there is no record in broken or its sub-folders"),
        (("broken",), "sub/x.json is not a whole JSON file"),
    ],
)
def test_nothing_to_show_is_said_in_one_line(tmp_path, words, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "sub").mkdir(parents=True)
    (tmp_path / "broken" / "sub" / "x.json").write_text("{")
    found = run(*words)
    assert isinstance(found.exception, UsageError)
    assert found.exception.exit_code == 2
    assert said in str(found.exception)
    assert "\n" not in str(found.exception)


@pytest.mark.parametrize(
    "words", [("--port", "1"), ("--serve", "-o", "x.html"), ("--serve", "--json")]
)
def test_options_that_do_not_fit_are_refused(words):
    assert run(*words).exit_code == 2


# --- served -----------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path):
    """A folder with a record, a served board over it, and a way to ask."""
    folder = tmp_path / "profiles"
    saved(folder, BASE)
    (tmp_path / "secret.json").write_text("{}")
    with open_server(BoardApp(Collection([folder], entries)), 0) as server:
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        port = server.server_address[1]

        def ask(path, host=None, method="GET"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.putrequest(method, path, skip_host=True)
            connection.putheader("Host", host or f"127.0.0.1:{port}")
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            return answer, body

        yield folder, ask, server
        server.shutdown()


def test_it_listens_on_this_machine_only(served):
    assert served[2].server_address[0] == "127.0.0.1"


def test_the_page_its_data_and_its_records_are_served(served):
    folder, ask, _ = served
    page, body = ask("/")
    assert (page.status, page.headers["Cache-Control"]) == (200, "no-store")
    assert b"connect-src 'self'" in body
    values = json.loads(ask("/data.json")[1])
    assert values["version"] == json.loads(ask("/version")[1])["version"]
    record, body = ask(f"/{values['records'][0]['link']}")
    assert record.headers["X-Content-Type-Options"] == "nosniff"
    assert body == (folder / "record-0.json").read_bytes()


def test_a_new_record_changes_version_and_data(served):
    folder, ask, _ = served
    before = json.loads(ask("/data.json")[1])
    save(named("newcomer"), folder / "new name.json")
    (folder / "torn.json").write_text("{")
    assert json.loads(ask("/version")[1])["version"] != before["version"]
    after = json.loads(ask("/data.json")[1])
    assert "newcomer" in after["names"]["model"]
    assert [one["name"] for one in after["unread"]] == ["torn.json"]
    links = [record["link"] for record in after["records"]]
    assert "records/new%20name.json" in links
    assert ask("/records/new%20name.json")[0].status == 200


def test_records_of_one_name_in_two_folders_are_both_served(tmp_path):
    places = [saved(tmp_path / "a", BASE), saved(tmp_path / "b", named("other"))]
    desk = BoardApp(Collection(places, entries))
    links = [record["link"] for record in json.loads(desk.answer("/data.json").body)["records"]]
    assert sorted(links) == ["records/2-record-0.json", "records/record-0.json"]
    assert len({desk.answer(f"/{link}").body for link in links}) == 2


@pytest.mark.parametrize(
    "path",
    [
        "/records/../secret.json",
        "/records/..%2fsecret.json",
        "/records/%2e%2e/secret.json",
        "/records/..%5csecret.json",
        "/records//etc/passwd",
        "/records/record-0.json/..",
        "/records/record-0.json%00",
        "/records/",
        "/secret.json",
    ],
)
def test_nothing_else_can_be_read(served, path):
    _, ask, _ = served
    ask("/data.json")
    assert ask(path)[0].status == 404


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil", "[::1]", "127.0.0.1:x@evil"],
)
def test_a_request_by_another_name_is_refused(served, host):
    _, ask, _ = served
    answer, body = ask("/data.json", host=host)
    assert answer.status == 403
    assert b"names" not in body


def test_names_of_this_machine_are_known():
    assert all(
        is_own(host) for host in ("127.0.0.1", "localhost", "LOCALHOST:8765", "127.0.0.1:80")
    )
    assert not any(is_own(host) for host in ("", ":80", "0.0.0.0", "127.0.0.1:80:80"))


def test_nothing_can_be_sent(served):
    _, ask, _ = served
    assert ask("/", method="POST")[0].status == 501
    assert ask("/", method="HEAD")[1] == b""


def test_a_folder_that_is_gone_is_said(served):
    folder, ask, _ = served
    (folder / "record-0.json").unlink()
    folder.rmdir()
    (gone,) = json.loads(ask("/data.json")[1])["unread"]
    assert gone["reason"] == "cannot read profiles: No such file or directory"
    saved(folder, BASE)
    assert json.loads(ask("/data.json")[1])["names"]["model"] == [BASE.source.name]


def test_a_port_that_is_taken_is_said(served):
    port = served[2].server_address[1]
    with pytest.raises(UsageError, match=f"cannot serve on 127.0.0.1:{port}"):
        open_server(BoardApp(Collection([served[0]], entries)), port)


def test_ctrl_c_ends_it_quietly(tmp_path):
    words = [
        sys.executable,
        "-m",
        "edgecap",
        "board",
        str(saved(tmp_path / "profiles", BASE)),
        "--serve",
        "--port",
        "0",
    ]
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background jobs ignore it
    ) as run:
        said = run.stderr.readline()
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", said)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/version")
        assert connection.getresponse().status == 200
        connection.close()
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (0, "", "")


def test_cells_that_were_run_otherwise_are_no_older_ones_of_each_other():
    usual, batch = BASE, replace(BASE, spec=replace(BASE.spec, batches=(4,), threads=2))
    found = [*entries(usual), *entries(batch)]
    assert latest(found) == set(range(len(found)))
    assert {e.provider for e in found} == {"cpu", "cpu, batch 4, threads 2"}
