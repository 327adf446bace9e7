"""Sweeps on one machine, disturbed on purpose: every cell is a record or a reason, none is lost,
none is there twice.
"""

import contextlib
import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import REFERENCE
from fakes import scripted
from sweep_process import BROKEN, lasting
from sweeps import HERE, TOOLS, as_scripted, finished_sweep, planned, swept

from edgecap import cli
from edgecap.cli import sweep_live
from edgecap.errors import DiskFull, Interrupted, UsageError
from edgecap.meters.compression import ScoredDocument
from edgecap.pipeline.worker import Export, MeasureCell, Quantize, in_child, parent
from edgecap.record import Failure
from edgecap.storage.cache import survey
from edgecap.storage.files import Paths, disk_errors
from edgecap.storage.jsonl_log import JsonlLog
from edgecap.storage.records import load
from edgecap.sweep import fingerprint, state
from edgecap.sweep import runner as sweeping
from edgecap.sweep.estimates import (
    History,
    RemainingTime,
    TimeEstimate,
    estimate_disk,
    estimate_times,
)
from edgecap.sweep.plan import read_plan
from edgecap.sweep.runner import LocalBackend, SweepEvent, SweepOptions
from edgecap.sweep.state import Finished, StateRow, open_state, read_rows

RESUMED = SweepOptions(resume=True)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def refused(*given):
    pytest.fail("nothing was to be measured")


def scores(folder):
    """What the text cost, cell by cell: bits of each document, exactly."""
    found = {}
    for path in folder.glob("*.json"):
        compression = load(path).cells[0].outcome.compression
        found[path.name] = [(d.id, d.tokens, d.nll_bits) for d in compression.per_document]
    return found


def lines_of(folder):
    return [
        json.loads(line)[1] for line in (folder / "journal.jsonl").read_bytes().split(b"\n") if line
    ]


def check_whole(folder, cells):
    """Every cell once, with its record, and nothing beside."""
    assert sorted(row["key"] for row in lines_of(folder)) == sorted(cell.key for cell in cells)
    assert {path.name for path in folder.iterdir()} == {cell.file_name for cell in cells} | {
        "journal.jsonl",
        ".edgecap",
    }
    assert {path.name for path in (folder / ".edgecap").iterdir()} == {"lock"}


# --- finished and missing ---------------------------------------------------------------------


def test_each_cell_gets_a_record_and_a_second_time_nothing_is_done(tmp_path):
    cells = planned(tmp_path)
    rows = swept(cells, tmp_path, asked=SweepOptions())
    assert list(rows) == [cell.key for cell in cells] and not any(
        row.wrong for row in rows.values()
    )
    check_whole(tmp_path / "out", cells)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert swept(cells, tmp_path, refused, SweepOptions()) == rows
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert {**before, ".edgecap": 0} == {**after, ".edgecap": 0}
    for cell in cells:
        assert load(tmp_path / "out" / cell.file_name).spec == cell.spec


def test_a_part_of_a_plan_is_gone_on_with_only_when_asked(tmp_path):
    cells = planned(tmp_path)
    swept(cells[:2], tmp_path)
    with pytest.raises(
        UsageError, match="holds 2 of the 6 cells; measure the others with --resume"
    ):
        swept(cells, tmp_path, refused, SweepOptions())
    news = []
    swept(cells, tmp_path, watch=news.append)
    assert [told.cell for told in news if told.kind == "begun"] == list(cells[2:])
    check_whole(tmp_path / "out", cells)


def test_cells_that_are_given_twice_are_measured_once(tmp_path):
    cells = planned(tmp_path, 2)
    assert len(swept([*cells, *cells], tmp_path)) == 2
    check_whole(tmp_path / "out", cells)


def test_a_plan_for_devices_needs_their_fleet(tmp_path):
    with pytest.raises(UsageError, match="the device 'laptop'"):
        swept(planned(tmp_path, device="laptop"), tmp_path, refused)
    assert not (tmp_path / "out").exists()


# --- cells that fail --------------------------------------------------------------------------


def ending(monkeypatch, context, code):
    """Cells of one context get a real child that runs `code` instead."""
    real, script = subprocess.Popen, f"import sys, os, signal, time\nsys.stdin.readline()\n{code}"

    def run(step, watch, timeout_s):
        if not isinstance(step, MeasureCell) or step.plan.context != context:
            return as_scripted(step, watch, timeout_s)
        with monkeypatch.context() as patch:
            patch.setattr(parent, "_GRACE_S", 0.2)
            patch.setattr(
                parent.subprocess,
                "Popen",
                lambda command, **kw: real([sys.executable, "-c", script], **kw),
            )
            return in_child(step, watch, 0.5)

    return run


@pytest.mark.kill
@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL", "often the system was out of memory"),
        ("os.abort()", "SIGABRT", "ended by SIGABRT"),
        ("time.sleep(60)", "Timeout", "no sign of life"),
        ("print('oops', file=sys.stderr); sys.exit(3)", "Exit", "status 3: oops"),
    ],
)
def test_a_child_that_ends_badly_is_a_row_with_a_reason(tmp_path, monkeypatch, code, error, words):
    cells = planned(tmp_path)
    rows = list(swept(cells, tmp_path, ending(monkeypatch, 17, code)).values())
    assert [row.wrong for row in rows] == [cell.spec.context == 17 for cell in cells]
    for row in (row for row in rows if row.wrong):
        assert row.failure.error == error and words in row.failure.message
        assert (
            load(tmp_path / "out" / row.record).cells[0].outcome.error == error
        )  # the board shows it


def another(folder):
    """The reference model, changed enough to be another one."""
    shutil.copytree(REFERENCE, folder)
    with (folder / "config.json").open("a") as file:
        file.write(" ")
    return folder


def test_a_bad_export_costs_the_cells_of_that_model_only(tmp_path):
    bad = another(tmp_path / "bad")
    cells = planned(tmp_path, 2, models=["./bad", str(REFERENCE)])

    def run(step, watch, timeout_s):
        if isinstance(step, Export) and step.folder == str(bad):
            return Failure(stage="export", error="ValueError", message="no such operator")
        return as_scripted(step, watch, timeout_s)

    rows = list(swept(cells, tmp_path, run).values())
    assert [row.failure and row.failure.message for row in rows] == ["no such operator"] * 2 + [
        None
    ] * 2


def test_a_model_that_vanishes_is_a_row_with_a_reason(tmp_path):
    another(tmp_path / "mine")
    cells = planned(tmp_path, 2, models=["./mine", str(REFERENCE)])
    shutil.rmtree(tmp_path / "mine")
    rows = list(swept(cells, tmp_path).values())
    assert [row.wrong for row in rows] == [True, True, False, False]
    assert "no such folder" in rows[0].failure.message and not rows[0].record


def test_a_mistake_of_ours_costs_a_cell_and_not_the_night(tmp_path):
    cells = planned(tmp_path)

    def run(step, watch, timeout_s):
        if isinstance(step, MeasureCell) and step.plan.context == 16:
            raise KeyError("a\nmistake")
        return as_scripted(step, watch, timeout_s)

    rows = list(swept(cells, tmp_path, run).values())
    assert [bool(row.record) for row in rows] == [cell.spec.context != 16 for cell in cells]
    assert rows[0].failure == Failure(stage="edgecap", error="KeyError", message="'a\\nmistake'")
    again = swept(cells, tmp_path, refused)
    assert list(again.values()) == rows


def test_failed_cells_are_done_again_when_asked(tmp_path, monkeypatch):
    cells = planned(tmp_path)
    swept(cells, tmp_path, ending(monkeypatch, 17, "os.abort()"))
    news = []
    rows = swept(cells, tmp_path, asked=SweepOptions(retry=True), watch=news.append)
    assert [told.cell.spec.context for told in news if told.kind == "begun"] == [17, 17]
    assert not any(row.wrong or row.failure for row in rows.values())
    assert read_rows(tmp_path / "out") == rows


def test_a_cell_that_fails_anew_loses_the_record_of_its_part(tmp_path):
    (cell,) = planned(tmp_path, 2, precisions="fp32")

    def gone(step, watch, timeout_s):
        raise UsageError("gone")

    with open_state(tmp_path / "out") as ledger:
        ledger.keep(Finished(cell=cell, outcome=load_of(cell, tmp_path)))
        ledger.keep(Finished(cell=cell, outcome=Failure(stage="x", error="y", message="z")))
        assert not (tmp_path / "out" / cell.file_name).exists()
    (row,) = read_rows(tmp_path / "out").values()
    assert row.failure.stage == "x" and not row.record


def load_of(cell, tmp_path):
    """A record of a cell."""
    sweeping.sweep(
        [cell], tmp_path / "other", LocalBackend(Paths(tmp_path / "cache", tmp_path), as_scripted)
    )
    return load(tmp_path / "other" / cell.file_name)


# --- cut off ----------------------------------------------------------------------------------


def test_ctrl_c_keeps_what_is_finished(tmp_path):
    cells = planned(tmp_path)
    run = scripted(None)

    def pressed(step, watch, timeout_s):
        if isinstance(step, MeasureCell) and step.plan.context == 18:
            raise KeyboardInterrupt
        return as_scripted(step, watch, timeout_s)

    with pytest.raises(Interrupted, match="2 of 6 cells are in .*; continue with --resume"):
        swept(cells, tmp_path, pressed)
    assert run.asked == [] and len(lines_of(tmp_path / "out")) == 2
    assert not (tmp_path / "out" / ".edgecap" / "scratch").exists()
    swept(cells, tmp_path)
    check_whole(tmp_path / "out", cells)


PLAN = f"""
models = {str(REFERENCE)!r}
precisions = ["fp32", "int8"]
corpora = "text.jsonl"
contexts = [16, 17, 18]
"""


class Process:
    """`edgecap sweep` as a process of its own over a plan of six cells,
    with a stand-in for the child.
    """

    def __init__(self, tmp_path, seconds=0.0, *more, plan=PLAN, out="out"):
        self.cells = planned(tmp_path)
        self.folder = tmp_path / out
        (tmp_path / "plan.toml").write_text(plan)
        command = [
            sys.executable,
            str(HERE / "sweep_process.py"),
            str(seconds),
            "sweep",
            "plan.toml",
            "-o",
            out,
        ]
        self.process = subprocess.Popen(
            [*command, "--cache", "cache", "--keep-exports", *more],
            env=TOOLS,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def finished(self, count):
        """Waits until so many cells are."""
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if (self.folder / "journal.jsonl").read_bytes().count(b"}]\n") >= count:
                    return self
            time.sleep(0.01)
        raise AssertionError(self.process.communicate())

    def end(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        return self.told()

    def told(self):
        """The exit status, what was printed, and what was told beside."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.mark.kill
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_asked_to_end_keeps_everything(tmp_path, number):
    status, out, err = Process(tmp_path, 0.5).finished(2).end(number)
    assert (status, out) == (130, "")
    assert re.fullmatch(
        r"edgecap: interrupted: [1-5] of 6 cells are in out; continue with --resume",
        err.splitlines()[-1],
    )
    assert 2 <= len(lines_of(tmp_path / "out")) < 6
    resumed = Process(tmp_path, 0, "--resume")
    assert resumed.told()[0] == 0
    check_whole(resumed.folder, resumed.cells)


@pytest.mark.kill
def test_a_process_that_is_killed_at_any_moment_loses_nothing(tmp_path):
    chance, undisturbed = random.Random(8), planned(tmp_path)
    crew = LocalBackend(Paths(tmp_path / "cache", tmp_path), as_scripted)
    sweeping.sweep(undisturbed, tmp_path / "whole", crew)
    for _ in range(10):
        one = Process(tmp_path, 0.15, "--resume")
        time.sleep(0.3 + chance.random() * 0.6)
        one.end()
    one = Process(tmp_path, 0, "--resume")
    assert one.told()[0] == 0
    check_whole(one.folder, one.cells)
    assert scores(one.folder) == scores(tmp_path / "whole") != {}


REAL = """
models = "edgecap-ref-xs"
precisions = "fp32"
contexts = 32
batches = [1, 2]
[options]
documents = 2
limit_s = 0.2
energy = "off"
context_sweep = []
"""


def really(tmp_path, cache, *more):
    """`edgecap sweep` with nothing but real rooms."""
    (tmp_path / "real.toml").write_text(REAL)
    command = [sys.executable, "-m", "edgecap", "sweep", "real.toml", "-o", "out", "--resume"]
    command += ["--cache", str(cache), *more]
    return subprocess.Popen(
        command, env=TOOLS, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.kill
@pytest.mark.core
def test_a_real_sweep_that_is_killed_goes_on_with_the_same_bits(tmp_path, cache):
    first, folder = really(tmp_path, cache), tmp_path / "out"
    until = time.monotonic() + 120
    while time.monotonic() < until and not list(folder.glob(".edgecap/scores/*.jsonl")):
        time.sleep(0.02)
    children = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.communicate()
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert gone and not alive
    second = really(tmp_path, cache, "--json")
    out, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    told, cells = json.loads(out), read_plan(tmp_path / "real.toml", cache)
    assert [row["failure"] for row in told["rows"]] == [None, None]
    check_whole(folder, cells)
    found = scores(folder)
    assert (
        len(found) == 2 and len({str(bits) for bits in found.values()}) == 1
    )  # another batch, the same bits
    one, other = (told["rows"][i]["seconds"] for i in (0, 1))
    assert one > 0 and other > 0


# --- two at once ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_sweep_on_a_folder_is_told_who_works_there(tmp_path):
    first = Process(tmp_path, 1.0).finished(1)
    status, out, err = Process(tmp_path, 0, "--resume").told()
    assert (status, out) == (2, "")
    assert (
        err.count("\n") == 1
        and f"out is in use by another sweep (process {first.process.pid} on " in err
    )
    (tmp_path / "out" / ".edgecap" / "holder").write_bytes(
        b"\x1b[2J\xff\n" * 900
    )  # by whoever may write here
    err = Process(tmp_path, 0, "--resume").told()[2]
    assert "\x1b" not in err and len(err) < 600 and err.count("\n") == 1
    first.end()
    third = Process(tmp_path, 0, "--resume")
    assert third.told()[0] == 0
    check_whole(third.folder, third.cells)


# --- folders and disks ------------------------------------------------------------------------


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="it is not a folder"):
        swept(planned(tmp_path), tmp_path, refused)
    assert (tmp_path / "out").read_text() == "mine"
    with pytest.raises(UsageError, match="cannot read"):
        read_rows(tmp_path / "out")


@on_linux
def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    crew = LocalBackend(Paths(tmp_path / "cache", tmp_path), refused)
    with pytest.raises(UsageError, match="cannot write /proc/out"):
        sweeping.sweep(planned(tmp_path), Path("/proc/out"), crew)


def test_files_of_others_stay(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    mine = {
        ".scratch/a": b"a",
        "notes.json": b"{}",
        ".hidden.json.abcd1234": b"b",
        "deep/c.json": b"c",
    }
    for name, data in mine.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(data)
    swept(planned(tmp_path), tmp_path)
    assert {name: (out / name).read_bytes() for name in mine} == mine


def test_what_a_killed_process_left_half_written_goes(tmp_path):
    cells, out = planned(tmp_path), tmp_path / "out"
    (out / ".edgecap" / "scratch").mkdir(parents=True)
    for name in (
        f".{cells[0].file_name}.a1b2c3_d",
        ".edgecap-a1b2c3_d",
        ".edgecap/.edgecap-a1b2c3_d",
        ".edgecap/scratch/x.json",
    ):
        (out / name).write_bytes(b"{")
    swept(cells, tmp_path)
    check_whole(out, cells)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of four megabytes, and what fills it to the last byte."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], capture_output=True
    )
    if made.returncode:
        pytest.skip("no disk can be mounted here")

    def fill():
        with contextlib.suppress(OSError), (place / "filler").open("ab", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass

    yield place, fill
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs to mount a disk")
@pytest.mark.parametrize("full", ["records", "cache"])
def test_a_full_disk_is_waited_for_and_then_given_up_without_loss(
    tmp_path, small_disk, monkeypatch, full
):
    monkeypatch.setattr(sweeping, "DISK_PAUSE_S", 0.05)
    (disk, fill), cells, waits = small_disk, planned(tmp_path), []
    out = disk / "out" if full == "records" else tmp_path / "out"
    home = Paths(disk / "cache" if full == "cache" else tmp_path / "cache", tmp_path)

    def run(step, watch, timeout_s):
        if isinstance(step, Quantize if full == "cache" else MeasureCell) and not waits:
            fill()
        with disk_errors(disk):
            return as_scripted(step, watch, timeout_s)

    def freed(news):
        if news.kind == "waits":
            waits.append(news)
        if len(waits) == 3:
            (disk / "filler").unlink(missing_ok=True)

    rows = sweeping.sweep(
        cells,
        out,
        LocalBackend(home, run, disk_patience_s=60),
        SweepOptions(disk_patience_s=60),
        freed,
    )
    assert len(waits) == 3 and "no room left on the disk" in waits[0].words
    assert not any(row.wrong for row in rows)
    check_whole(out, cells)
    more = planned(tmp_path, 12)
    waits.clear()
    with pytest.raises(
        DiskFull, match=r"\d of 12 cells are in .*; free disk space, then continue with --resume"
    ):
        shutil.rmtree(home.cache / "variants")
        sweeping.sweep(
            more,
            out,
            LocalBackend(home, run, disk_patience_s=0.2),
            SweepOptions(True, disk_patience_s=0.2),
        )
    (disk / "filler").unlink()
    kept = scores(out)
    assert len(kept) == len(lines_of(out)) >= 6
    sweeping.sweep(more, out, LocalBackend(home, as_scripted), RESUMED)
    check_whole(out, more)
    assert kept.items() <= scores(out).items()


def test_patience_begins_when_the_disk_is_full_and_not_with_the_cell(tmp_path, monkeypatch):
    now, tries = [0.0], []
    monkeypatch.setattr(sweeping.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sweeping.time, "sleep", lambda seconds: None)

    def measuring():
        now[0] += 1000
        tries.append(now[0])
        if len(tries) < 2:
            raise DiskFull("full")

    sweeping._wait_for_space(measuring, None, 900, lambda news: None)
    assert tries == [1000, 2000]


def test_a_disk_that_is_too_small_for_one_cell_costs_that_cell(tmp_path):
    cells = planned(tmp_path)

    def run(step, watch, timeout_s):
        if isinstance(step, MeasureCell) and step.plan.context == 17:
            raise DiskFull("no room left")
        return as_scripted(step, watch, timeout_s)

    rows = swept(cells, tmp_path, run)
    assert [row.failure and row.failure.stage for row in rows.values()] == [None, "disk", None] * 2


# --- a folder that was damaged ----------------------------------------------------------------


def measured_again(cells, tmp_path):
    """Places in the plan of what a resumed sweep does."""
    news = []
    swept(cells, tmp_path, watch=news.append)
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {
        cell.file_name for cell in cells
    }
    assert len(read_rows(tmp_path / "out")) == len(cells)
    return [cells.index(told.cell) for told in news if told.kind == "begun"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def changed(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [Path.unlink, cut, changed, lambda path: path.write_bytes(b"")])
def test_a_record_that_is_not_as_it_was_written_is_measured_again(tmp_path, damage):
    cells = planned(tmp_path)
    swept(cells, tmp_path)
    damage(tmp_path / "out" / cells[3].file_name)
    assert measured_again(cells, tmp_path) == [3]


def test_a_torn_line_at_the_end_is_made_good_from_its_record(tmp_path):
    cells = planned(tmp_path)
    swept(cells, tmp_path)
    cut(tmp_path / "out" / "journal.jsonl")
    assert measured_again(cells, tmp_path) == []
    check = [
        row["key"]
        for line in (tmp_path / "out" / "journal.jsonl").read_text().split("\n")
        for row in whole(line)
    ]
    assert sorted(check) == sorted(cell.key for cell in cells)


def whole(line):
    with contextlib.suppress(ValueError):
        return [json.loads(line)[1]]
    return []


def test_a_journal_that_is_gone_is_made_anew_from_the_records(tmp_path):
    cells = planned(tmp_path)
    before = swept(cells, tmp_path)
    (tmp_path / "out" / "journal.jsonl").unlink()
    assert measured_again(cells, tmp_path) == []
    assert {key: row.sha256 for key, row in read_rows(tmp_path / "out").items()} == {
        key: row.sha256 for key, row in before.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("place", ["front", "middle", "end"])
def test_rubbish_in_the_journal_costs_no_other_line(tmp_path, monkeypatch, place):
    cells = planned(tmp_path)
    swept(
        cells, tmp_path, ending(monkeypatch, 18, "os.abort()")
    )  # failures have no other place than the journal
    path = tmp_path / "out" / "journal.jsonl"
    lines = path.read_bytes().split(b"\n")
    at = {"front": 0, "middle": 3, "end": len(lines)}[place]
    rubbish = b"\x00\xff\xfe\n[[[[[\n[0]\n[0, {}]\n[-5, null]\n" + b"[" * 5000
    path.write_bytes(b"\n".join([*lines[:at], rubbish, *lines[at:]]))
    assert measured_again(cells, tmp_path) == []
    assert sum(row.wrong for row in read_rows(tmp_path / "out").values()) == 2


def test_a_record_of_another_question_is_not_taken_for_an_answer(tmp_path):
    cells = planned(tmp_path)
    swept(cells, tmp_path)
    out = tmp_path / "out"
    (out / "journal.jsonl").unlink()
    shutil.copy(out / cells[0].file_name, out / cells[1].file_name)  # as somebody may rename them
    assert measured_again(cells, tmp_path) == [1]


# --- many cells -------------------------------------------------------------------------------


def test_finished_cells_are_known_by_their_hashes_alone(tmp_path, typed, monkeypatch):
    """A hash a record, and neither a record nor the model read again: cheap for 10,000 cells."""
    cells = finished_sweep(tmp_path, 60)
    hashes, real = [], state.sha256_of_file
    monkeypatch.setattr(
        state, "sha256_of_file", lambda path: hashes.append(path.name) or real(path)
    )
    monkeypatch.setattr(state, "load", refused)
    files = sorted(cell.file_name for cell in cells)
    rows = swept(cells, tmp_path, refused)
    assert list(rows) == [cell.key for cell in cells]
    assert sorted(hashes) == files
    hashes.clear()
    models, also = [], fingerprint.sha256_of_file
    monkeypatch.setattr(
        fingerprint, "sha256_of_file", lambda path: models.append(path) or also(path)
    )
    status, out, _ = typed((tmp_path / "plan.toml").read_text(), "--dry-run", "--json")
    assert status == 0
    assert [cell["state"] for cell in json.loads(out)["cells"]] == ["done"] * 60
    assert sorted(hashes) == files and len(models) == len(set(models))


# --- graphs and scores are shared -------------------------------------------------------------


def graphs(cache):
    return {
        thing.path for thing in survey(cache).things if thing.kind in ("export", "variant", "fused")
    }


def counted(asked):
    """Keeps the steps that were asked for."""

    def run(step, watch, timeout_s):
        asked.append(step)
        return as_scripted(step, watch, timeout_s)

    return run


def test_graphs_are_made_once_and_go_when_the_sweep_is_done(tmp_path):
    asked = []
    swept(planned(tmp_path), tmp_path, counted(asked), keep_exports=False)
    assert [type(step) for step in asked if isinstance(step, Export | Quantize)] == [
        Export,
        Quantize,
    ]
    assert not graphs(tmp_path / "cache")


def test_graphs_stay_when_asked(tmp_path):
    swept(planned(tmp_path), tmp_path, keep_exports=True)
    assert len(graphs(tmp_path / "cache")) == 2


def test_graphs_that_were_there_stay(tmp_path):
    cells = planned(tmp_path)
    sweeping.sweep(
        cells[:1],
        tmp_path / "before",
        LocalBackend(Paths(tmp_path / "cache", tmp_path), as_scripted),
    )
    there = graphs(tmp_path / "cache")
    swept(cells, tmp_path, keep_exports=False)
    assert graphs(tmp_path / "cache") == there != set()


def test_graphs_that_somebody_makes_meanwhile_stay(tmp_path):
    cells, others = planned(tmp_path, 2, precisions="fp32"), planned(tmp_path, 2, precisions="int4")

    def run(step, watch, timeout_s):
        if isinstance(step, MeasureCell):
            sweeping.sweep(
                others,
                tmp_path / "others",
                LocalBackend(Paths(tmp_path / "cache", tmp_path), as_scripted),
            )
        return as_scripted(step, watch, timeout_s)

    swept(cells, tmp_path, run, keep_exports=False)
    assert [path.split("/")[1].split("-")[0] for path in graphs(tmp_path / "cache")] == ["int4"]


@pytest.mark.slow
@pytest.mark.parametrize("at", ["measure", "last"])
def test_a_sweep_that_was_cut_off_still_knows_its_graphs(tmp_path, monkeypatch, at):
    cells = planned(tmp_path)
    sweeping.sweep(
        cells[:1],
        tmp_path / "before",
        LocalBackend(Paths(tmp_path / "cache", tmp_path), as_scripted),
    )
    there = graphs(tmp_path / "cache")

    def pressed(step, watch, timeout_s):
        if isinstance(step, MeasureCell) and step.plan.context == 18 and at == "measure":
            raise KeyboardInterrupt
        return as_scripted(step, watch, timeout_s)

    def removed(*given):
        raise KeyboardInterrupt  # before the graphs of a model that is done with are gone

    with monkeypatch.context() as patch:
        if at == "last":
            patch.setattr(sweeping.SweepCleanup, "remove", removed)
        with pytest.raises(Interrupted):
            swept(cells[3:], tmp_path, pressed, keep_exports=False)
    assert len(graphs(tmp_path / "cache")) == 2
    swept(cells[3:], tmp_path, keep_exports=False)
    assert graphs(tmp_path / "cache") == there != set()


def test_cells_that_differ_in_the_batch_only_share_their_scores(tmp_path):
    had = []

    def run(step, watch, timeout_s):
        if isinstance(step, MeasureCell):
            had.append(len(JsonlLog(Path(step.journal), ScoredDocument).finished))
        return as_scripted(step, watch, timeout_s)

    cells = planned(tmp_path, 2, precisions="fp32", batches=[1, 2, 4])
    swept(cells, tmp_path, run)
    assert had == [0, 4, 4]
    assert len({str(bits) for bits in scores(tmp_path / "out").values()}) == 1
    check_whole(tmp_path / "out", cells)


# --- estimates --------------------------------------------------------------------------------


def row_of(cell, seconds, **more):
    spec = cell.spec
    return StateRow(
        key=cell.key,
        measured=cell.measured,
        model=Path(spec.model).name,
        precision=spec.precisions[0],
        provider=spec.providers[0],
        label=str(cell),
        like=cell.like,
        seconds=seconds,
        **more,
    )


def test_cells_of_other_options_or_texts_say_nothing_of_time(tmp_path):
    (cell, *_), (other, *_) = planned(tmp_path, 2), planned(tmp_path, 2, options={"limit_s": 99.0})
    assert estimate_times([other], [row_of(cell, 10.0)]) == [TimeEstimate(None, "never measured")]
    assert cell.like != other.like


def test_times_come_from_the_most_alike(tmp_path):
    fp32, other, int8, int8_other = planned(tmp_path, 4)
    rows = [row_of(fp32, 10.0), row_of(fp32, 30.0), row_of(int8, 4.0)]
    assert [time.seconds for time in estimate_times([fp32, other, int8, int8_other], rows)] == [
        20.0,
        20.0,
        4.0,
        4.0,
    ]
    (gpu,) = planned(tmp_path, 2, precisions="fp32", providers="cuda")
    assert estimate_times([gpu], rows) == [TimeEstimate(None, "never measured")]
    assert estimate_times(planned(tmp_path, 2, precisions="int4"), rows) == [
        TimeEstimate(10.0, "from other variants")
    ]


def test_a_cell_that_failed_tells_no_time(tmp_path):
    (cell, _), history = planned(tmp_path, 2), History(tmp_path / "cache")
    history.add(row_of(cell, 0.1, failure=Failure(stage="a", error="b", message="c"), wrong=True))
    assert History(tmp_path / "cache").rows == []
    history.add(row_of(cell, 5.0))
    assert estimate_times([cell], History(tmp_path / "cache").rows) == [
        TimeEstimate(5.0, "measured before")
    ]
    (tmp_path / "cache" / "sweeps.jsonl").write_bytes(b"\xff\x00rubbish\n" * 3)
    assert History(tmp_path / "cache").rows == []


def test_what_is_left_is_corrected_as_the_sweep_goes(tmp_path):
    cells = planned(tmp_path, 8)
    left = RemainingTime(cells, [TimeEstimate(10.0, "")] * 4 + [TimeEstimate(None, "")] * 4)
    assert left.seconds({}) == 80.0
    assert left.seconds({cells[0].key: 4.0}) == 76.0
    left.finished(row_of(cells[0], 20.0))
    assert left.seconds({}) == 3 * 20.0 + 4 * 20.0
    left.finished(row_of(cells[1], 0.1, failure=Failure(stage="a", error="b", message="c")))
    assert left.seconds({}) == 2 * 20.0 + 4 * 20.0
    assert left.seconds({cells[2].key: 0.0, cells[3].key: 50.0}) == (20.0 + 4 * 20.0) / 2
    assert RemainingTime(cells, [TimeEstimate(None, "")] * 8).seconds({}) is None


def test_disk_is_counted_by_model(tmp_path):
    cells = planned(tmp_path, 2)
    need = estimate_disk(
        cells,
        [
            row_of(cells[0], 1.0, graph_bytes=100, bytes=7),
            row_of(cells[1], 1.0, graph_bytes=30, bytes=9),
        ],
    )
    assert (need.graphs, need.largest, need.records, need.unknown) == (130, 130, 16, ())
    need = estimate_disk([*cells, *planned(tmp_path, 2, models="org/name")], [])
    assert need.unknown == ("name",) and need.graphs == need.largest > 1_000_000


# --- what people see --------------------------------------------------------------------------

FAILING = PLAN.replace("17", str(BROKEN))


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Types `edgecap sweep` over a plan, with a stand-in for the child: the exit status,
    what is printed and told.
    """
    planned(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    monkeypatch.setattr(
        LocalBackend.__init__, "__defaults__", (lasting(0), *LocalBackend.__init__.__defaults__[1:])
    )

    def run(plan, *more, words=("plan.toml", "-o", "out")):
        (tmp_path / "plan.toml").write_text(plan)
        monkeypatch.setattr(sys, "argv", ["edgecap", "sweep", *words, *more, "--cache", "cache"])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def test_plain_lines_tell_each_cell_and_failures_make_the_status(tmp_path, typed):
    status, out, err = typed(FAILING)
    assert status == 1
    assert err.splitlines()[:3] == [
        "edgecap: started: edgecap-ref-xs, fp32 on cpu, text, context 16",
        err.splitlines()[1],
        "edgecap: started: edgecap-ref-xs, fp32 on cpu, text, context 13",
    ]
    assert "[1/6] edgecap-ref-xs, fp32 on cpu, text, context 16, " in err
    assert (
        "[2/6] failed: edgecap-ref-xs, fp32 on cpu, text, context 13: compression: NotFinite: NaN"
        in err
    )
    assert (
        out.startswith("6 cells: 4 measured, 2 failed\nfailed: edgecap-ref-xs")
        and "\x1b" not in out + err
    )
    assert "--retry-failed" in out and out.endswith("edgecap board out\n")


def test_json_is_alone_on_standard_output(tmp_path, typed):
    status, out, _ = typed(FAILING, "--json")
    told = json.loads(out)
    assert status == 1 and [row["wrong"] for row in told["rows"]] == [False, True, False] * 2
    status, out, err = typed(FAILING, "--json", "--dry-run")
    told = json.loads(out)
    assert (status, err) == (0, "")
    assert [cell["state"] for cell in told["cells"]] == ["done", "failed", "done"] * 2
    assert told["cells"][1]["failure"]["error"] == "NotFinite"


def test_a_dry_run_lists_cells_time_and_disk_and_does_nothing(tmp_path, typed):
    status, out, err = typed(PLAN, "--dry-run")
    assert (status, err) == (0, "") and not (tmp_path / "out").exists()
    assert "each with provider cpu, corpus text" in out
    assert (
        "6 cells: 0 finished, 6 to do" in out
        and "time: unknown" in out
        and "disk: graphs up to" in out
    )
    typed(FAILING)
    out = typed(FAILING.replace("18", "18, 19"), "--dry-run")[1]
    assert "8 cells: 6 finished (2 failed), 2 to do" in out and "time: about" in out
    assert (
        out.count("failed: edgecap-ref-xs, ") == 2 and "NaN for a ?[31mtoken's probability" in out
    )


def test_cells_that_differ_in_their_options_are_told_apart(tmp_path, typed):
    out = typed(f"{PLAN}[[also]]\noptions.documents = 2\n", "--dry-run")[1]
    assert out.count("documents None") == out.count("documents 2") == 6


def test_nothing_of_a_name_commands_the_terminal(tmp_path, typed):
    shutil.copytree(REFERENCE, tmp_path / "a\x1b[2J\nb")
    plan = FAILING.replace(repr(str(REFERENCE)), '"./a\\u001B[2J\\nb"')
    for more in (["--dry-run"], [], ["--dry-run"]):
        _, out, err = typed(plan, *more)
        assert "\x1b" not in out + err and "a?[2J" in out + err
    for plan in ("models = './\\u001B[2J'", f"device = '\\u001B[2J'\n{PLAN}"):
        status, _, err = typed(plan)
        assert status == 2 and "\x1b" not in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [(), ("plan.toml", "--model", "a"), ("--context", "1,²", "--model", "a"), ("none.toml",)],
)
def test_what_is_asked_wrongly_is_told_with_status_2(typed, words):
    status, out, err = typed(PLAN, words=words)
    assert (status, out) == (2, "") and err


@on_linux
def test_a_terminal_shows_how_far_it_is(tmp_path):
    """A failed cell stays; what runs is drawn over itself and is gone at the end."""
    planned(tmp_path)
    (tmp_path / "plan.toml").write_text(FAILING)
    main, side = pty.openpty()
    command = [
        sys.executable,
        str(HERE / "sweep_process.py"),
        "0.2",
        "sweep",
        "plan.toml",
        "-o",
        "out",
        "--cache",
        "cache",
    ]
    env = {**TOOLS, "COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    process = subprocess.Popen(
        command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=side, stdin=side
    )
    os.close(side)
    seen = b""
    with contextlib.suppress(OSError):
        while piece := os.read(main, 65536):
            seen += piece
    os.close(main)
    assert process.wait() == 1
    text = seen.decode()
    assert "0 of 6 finished" in text and "2 failed" in text and "left, until" in text
    assert "[2/6] failed: edgecap-ref-xs" in text and "\x1b[31mtoken" not in text
    process.stdout.close()


class Screen:
    """What `rich` is told to draw, and the lines that stay."""

    def __init__(self):
        self.console, self.drawn, self.kept = self, [], []

    def update(self, picture, refresh):
        self.drawn.append(str(picture).split("\n"))

    def print(self, line, **how):
        self.kept.append(line)


@pytest.fixture
def live(monkeypatch):
    """A live view whose first ten seconds a cell were expected, and its screen."""
    screen = Screen()
    monkeypatch.setattr(sweep_live, "_live", lambda: screen)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(sweep_live, "_clock", lambda seconds: f"+{seconds:.0f}")
    return sweep_live.SweepLive(lambda left: [TimeEstimate(10.0, "")] * len(left)), screen


def test_what_is_new_is_drawn_at_once_and_each_line_says_what_it_is(tmp_path, live):
    (view, screen), cells = live, planned(tmp_path)
    view(SweepEvent("planned", None, cells=cells, left=cells[1:]))
    view(SweepEvent("begun", cells[1]))
    for stage in ("export", "export", "compression"):
        view(SweepEvent("stage", cells[1], stage))
    assert len(screen.drawn) == 4  # a stage that goes on waits for its half second
    head, line = screen.drawn[-1]
    assert head == "━━────────── 1 of 6 finished, about 50 s left, until +50"
    assert line == "  since +0  compression  edgecap-ref-xs, fp32 on cpu, text, context 17"
    why = Failure(stage="export", error="E", message="no\nsuch\x1b[2J thing")
    view(SweepEvent("finished", cells[1], row=row_of(cells[1], 1.0, failure=why, wrong=True)))
    assert screen.drawn[-1] == [
        "━━━━──────── 2 of 6 finished, 1 failed, about 40 s left, until +40"
    ]
    assert screen.kept == [
        "1 of 6 cells were finished before",
        "[2/6] failed: edgecap-ref-xs, fp32 on cpu, text, context 17: export: E: no such?[2J thing",
    ]


def test_a_fleet_shows_devices_and_a_full_disk_is_told_once(tmp_path, live):
    (view, screen), cells = live, planned(tmp_path, 40)
    view(SweepEvent("planned", None, cells=cells, left=cells))
    for number, cell in enumerate(cells[:14]):
        view(SweepEvent("begun", cell, "", f"device-{number}"))
    lines = screen.drawn[-1]
    assert "14 running" in lines[0] and lines[-1] == "  and 2 more" and len(lines) == 14
    assert "device-3: edgecap-ref-xs" in lines[4]
    for _ in range(3):
        view(SweepEvent("waits", cells[0], "no room; waiting"))
    assert (
        screen.kept == [f"{cells[0]}: no room; waiting"]
        and "waiting for disk space" in screen.drawn[-1][1]
    )


# --- the board --------------------------------------------------------------------------------


def test_the_board_shows_failed_cells_and_names_those_without_a_record(tmp_path):
    cells = planned(tmp_path)

    def run(step, watch, timeout_s):
        if isinstance(step, MeasureCell) and step.plan.context == 16:
            raise KeyError("mistake")
        if isinstance(step, MeasureCell) and step.plan.context == 17:
            return Failure(stage="compression", error="NotFinite", message="NaN")
        return as_scripted(step, watch, timeout_s)

    swept(cells, tmp_path, run)
    command = [sys.executable, "-m", "edgecap", "board", "out", "--json", "-o", "page.html"]
    run = subprocess.run(command, env=TOOLS, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert sorted(row["outcome"] for row in told["rows"]) == ["failed"] * 2 + ["measured"] * 2
    reasons = [one["reason"] for one in told["unread"]]
    assert len(reasons) == 2 and all(
        "context 16: edgecap: KeyError: 'mistake'" in reason for reason in reasons
    )
    assert run.stderr.count("not shown: edgecap-ref-xs, ") == 2
    assert "KeyError" in (tmp_path / "page.html").read_text()
