"""A fleet of real processes on loopback, broken on purpose: every cell is a record or a reason, none twice, none lost."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import REFERENCE
from fakes import scripted
from fleet_worker import slow

from edgecap import sweep as sweeping
from edgecap.fleet import network
from edgecap.fleet.bundles import Bundles
from edgecap.fleet.dispatch import OnFleet, Rules
from edgecap.fleet.line import Line
from edgecap.plan import unfold
from edgecap.store import Home, load
from edgecap.sweep import Asked, Locally

HERE = Path(__file__).parent
RULES = Rules(attempts=3, wait_s=20.0)
TOOLS = {**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}


class Fleet:
    """A scheduler and devices, each a process; what they say goes into files."""

    def __init__(self, folder):
        self.folder, self.devices, self.port = folder, {}, 0
        self.folder.mkdir()
        self.start_scheduler()

    @property
    def address(self):
        return f"tcp://127.0.0.1:{self.port}"

    def start_scheduler(self):
        self.scheduler = self._start(
            "scheduler", "-m", "edgecap", "fleet", "start", "--port", str(self.port), "--ttl", "20"
        )
        while not self.port:
            told = (self.folder / "scheduler.log").read_text()
            self.port = int(told.split()[1].rpartition(":")[2]) if "\n" in told else 0
            time.sleep(0.05)

    def add(self, name, seconds=0.0, *trick):
        place = str(self.folder / name)
        script = str(HERE / "fleet_worker.py")
        self.devices[name] = self._start(f"{name}.log", script, self.address, name, place, str(seconds), *trick)

    def _start(self, name, *command):
        with (self.folder / name).with_suffix(".log").open("ab") as log:
            return subprocess.Popen([sys.executable, *command], env=TOOLS, stdout=log, stderr=log)

    def kill(self, name, number=signal.SIGKILL):
        self.devices[name].send_signal(number)

    def end(self):
        for process in (*self.devices.values(), self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def fleet(tmp_path):
    network.configure()
    found = Fleet(tmp_path / "devices")
    yield found
    found.end()


def plan(tmp_path, cells=8, **more):
    """A plan of so many cells over a text of four documents."""
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"{i} words and words " * 9}) + "\n" for i in range(4)))
    asked = {"models": str(REFERENCE), "precisions": ["fp32", "int8"], "corpora": str(text)}
    asked |= {"contexts": list(range(16, 16 + cells // 2)), **more}
    return unfold(asked, tmp_path, tmp_path / "cache")


def measured(fleet, cells, folder, rules=RULES, news=None):
    """Rows by key of a sweep on the fleet."""
    cache = folder.parent / "cache"
    bundles = Bundles(Home(cache, folder), None, lambda step, w, t: scripted(getattr(step, "corpus", None))(step, w, t))
    with Line(fleet.address, None, silent_s=8.0) as line:
        rows = sweeping.sweep(
            cells, folder, OnFleet(line, bundles, rules), Asked(resume=True), news or (lambda told: None)
        )
    return {row.key: row for row in rows}


def scores(folder):
    """What the text cost, cell by cell: bits of each document, exactly."""
    found = {}
    for path in folder.glob("*.json"):
        compression = load(path).cells[0].outcome.compression
        found[path.name] = [(d.id, d.tokens, d.nll_bits) for d in compression.per_document]
    return found


def test_a_sweep_on_a_fleet_finds_what_one_machine_finds(fleet, tmp_path):
    fleet.add("one")
    fleet.add("two")
    cells = plan(tmp_path)
    rows = measured(fleet, cells, tmp_path / "fleet")
    assert {row.device for row in rows.values()} == {"one", "two"}
    assert not any(row.wrong for row in rows.values())
    run = slow(0)
    sweeping.sweep(cells, tmp_path / "local", Locally(Home(tmp_path / "cache", tmp_path), run))
    assert scores(tmp_path / "fleet") == scores(tmp_path / "local") != {}
    record = load(tmp_path / "fleet" / cells[0].file_name)
    assert record.source.name == REFERENCE.name and record.spec == cells[0].spec


def test_nothing_is_lost_while_devices_die_and_stall_and_the_scheduler_restarts(fleet, tmp_path):
    names = ["a", "b", "c", "d"]
    for name in names:
        fleet.add(name, 0.3)
    cells = plan(tmp_path, cells=40)
    stop, chance = threading.Event(), random.Random(7)

    def trouble():
        for turn in range(1000):
            if stop.wait(1.5):
                return
            name = chance.choice(names[1:])
            if turn == 2:
                fleet.kill("a", signal.SIGSTOP)
            elif turn == 4:
                fleet.scheduler.kill()
                fleet.scheduler.wait()
                fleet.start_scheduler()
            elif turn == 7:
                fleet.kill("a", signal.SIGCONT)
            else:
                fleet.kill(name)
                fleet.devices[name].wait()
                fleet.add(name, 0.3)

    thread = threading.Thread(target=trouble)
    thread.start()
    try:
        rows = measured(fleet, cells, tmp_path / "out", Rules(attempts=8, wait_s=60.0))
    finally:
        stop.set()
        thread.join()
        fleet.kill("a", signal.SIGCONT)
    assert rows.keys() == {cell.key for cell in cells}
    assert all(row.record or row.failure for row in rows.values())
    lines = [json.loads(line) for line in (tmp_path / "out" / "journal.jsonl").read_text().split("\n") if line]
    assert sorted(row["key"] for _, row in lines) == sorted(rows)  # each exactly once
    kept = scores(tmp_path / "out")
    assert len(kept) == sum(bool(row.record) for row in rows.values()) >= 35
    sweeping.sweep(cells, tmp_path / "local", Locally(Home(tmp_path / "cache", tmp_path), slow(0)))
    assert kept.items() <= scores(tmp_path / "local").items()


@pytest.mark.parametrize("trick", ["garbage", "object", "other", "cut", "cells", "samples"])
def test_what_a_bad_device_sends_is_not_written(fleet, tmp_path, trick):
    fleet.add("bad", 0.0, trick)
    cells = plan(tmp_path, cells=2)[:1]
    (row,) = measured(fleet, cells, tmp_path / "out", Rules(attempts=2, wait_s=20.0)).values()
    assert row.failure and row.failure.stage == "fleet" and row.attempts == 2
    assert "bad" in row.failure.message and not list((tmp_path / "out").glob("*.json"))


def test_a_cell_that_a_bad_device_spoils_is_measured_by_a_good_one(fleet, tmp_path):
    fleet.add("bad", 0.0, "garbage")
    fleet.add("good", 0.2)
    rows = measured(fleet, plan(tmp_path), tmp_path / "out")
    assert {row.device for row in rows.values()} == {"good"} and not any(row.wrong for row in rows.values())


def test_cells_go_where_they_are_pinned_and_what_nobody_can_run_is_told(fleet, tmp_path):
    fleet.add("one")
    fleet.add("two")
    cells = plan(tmp_path, cells=4, device="two") + plan(tmp_path, cells=2, providers="cuda")
    rows = measured(fleet, cells, tmp_path / "out", Rules(attempts=2, wait_s=3.0))
    assert [rows[cell.key].device for cell in cells[:4]] == ["two"] * 4
    for cell in cells[4:]:
        assert "one has no cuda, two has no cuda" in rows[cell.key].failure.message.replace(
            "two has no cuda, one has no cuda", "one has no cuda, two has no cuda"
        )


def test_every_device_measures_what_is_meant_for_every_device(fleet, tmp_path):
    fleet.add("one")
    fleet.add("two")
    time.sleep(4)
    rows = measured(fleet, plan(tmp_path, cells=2, device="every"), tmp_path / "out")
    assert sorted(row.device for row in rows.values()) == ["one", "one", "two", "two"]


def test_a_text_in_parts_costs_the_same_bits_to_the_last(fleet, tmp_path):
    for name in ("one", "two", "three"):
        fleet.add(name)
    cells = plan(tmp_path, cells=2, shards=5)
    rows = measured(fleet, cells, tmp_path / "out")
    assert not any(row.wrong for row in rows.values())
    sweeping.sweep(cells, tmp_path / "local", Locally(Home(tmp_path / "cache", tmp_path), slow(0)))
    assert scores(tmp_path / "out") == scores(tmp_path / "local")
    compression = load(tmp_path / "out" / cells[0].file_name).cells[0].outcome.compression
    assert set(compression.scored_on) <= {"one", "two", "three"} and compression.scored_on
    assert not (tmp_path / "out" / ".scores").exists()


def test_a_full_disk_is_waited_for_and_nothing_is_lost(fleet, tmp_path, monkeypatch):
    fleet.add("one")
    full, waited = threading.Event(), []
    full.set()
    save = sweeping.Ledger.keep

    def keep(ledger, finished):
        if full.is_set():
            raise sweeping.DiskFull("no room left on the disk of out")
        return save(ledger, finished)

    def news(told):
        if told.kind == "waits":
            waited.append(told)
            full.clear()

    monkeypatch.setattr(sweeping.Ledger, "keep", keep)
    monkeypatch.setattr(sweeping, "DISK_PAUSE_S", 0.1)
    cells = plan(tmp_path, cells=4)
    rows = measured(fleet, cells, tmp_path / "out", news=news)
    assert waited and len(rows) == len(cells) and not any(row.wrong for row in rows.values())
