"""A fleet of real processes on loopback, broken on purpose: every cell is a record or a reason,
none twice, none lost.
"""

import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from fleet_worker import slow
from fleets import HERE, RULES, TOOLS, Fleet, lines, measured, plan, scores

from edgecap.errors import DiskFull, UsageError
from edgecap.storage.cache import survey
from edgecap.storage.files import Paths
from edgecap.storage.records import load
from edgecap.sweep import runner as sweeping
from edgecap.sweep.fleet import network
from edgecap.sweep.fleet.bundles import Bundles
from edgecap.sweep.fleet.connection import FleetConnection
from edgecap.sweep.fleet.dispatch import FleetLimits
from edgecap.sweep.runner import LocalBackend, SweepOptions, cells_to_do

pytestmark = pytest.mark.fleet


@pytest.fixture
def fleet(tmp_path):
    """A fleet to be broken."""
    network.configure()
    found = Fleet(tmp_path / "devices")
    yield found
    found.end()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two devices that no test harms."""
    network.configure()
    found = Fleet(tmp_path_factory.mktemp("pair") / "devices")
    for name in ("one", "two"):
        found.add(name)
    for name in ("one", "two"):
        found.wait_for(name, "joined")
    yield found
    found.end()


def local(tmp_path, cells):
    """The scores of one machine."""
    sweeping.sweep(
        cells, tmp_path / "local", LocalBackend(Paths(tmp_path / "cache", tmp_path), slow(0))
    )
    return scores(tmp_path / "local")


# --- a fleet that works -----------------------------------------------------------------------


@pytest.mark.core
def test_a_sweep_on_a_fleet_finds_what_one_machine_finds(pair, tmp_path):
    cells = plan(tmp_path)
    rows = measured(pair, cells, tmp_path / "fleet")
    assert {row.device for row in rows.values()} == {"one", "two"}
    assert not any(row.wrong for row in rows.values())
    assert scores(tmp_path / "fleet") == local(tmp_path, cells) != {}
    record = load(tmp_path / "fleet" / cells[0].file_name)
    assert record.source.name == "edgecap-ref-xs" and record.spec == cells[0].spec
    assert record.machine.name == rows[cells[0].key].device


def test_graphs_that_were_made_for_devices_go_unless_they_are_kept(pair, tmp_path):
    cells, cache = plan(tmp_path, cells=2), tmp_path / "graphs"
    measured(pair, cells, tmp_path / "kept", cache=cache)
    before = sorted(
        thing.path for thing in survey(cache).things if thing.kind in ("export", "variant")
    )
    measured(
        pair,
        plan(tmp_path, cells=2, precisions=["fp32", "int4"]),
        tmp_path / "gone",
        cache=cache,
        keeps=False,
    )
    assert (
        sorted(t.path for t in survey(cache).things if t.kind in ("export", "variant"))
        == before
        != []
    )


def test_cells_go_where_they_are_pinned_and_what_nobody_can_run_is_told(pair, tmp_path):
    cells = plan(tmp_path, cells=4, device="two") + plan(tmp_path, cells=2, providers="cuda")
    away = plan(tmp_path, cells=2, device="away")
    rows = measured(pair, cells + away, tmp_path / "out", FleetLimits(attempts=2, wait_s=2.0))
    assert [rows[cell.key].device for cell in cells[:4]] == ["two"] * 4
    for cell in cells[4:]:
        told = rows[cell.key].failure.message
        assert "one has no cuda" in told and "two has no cuda" in told
    assert cells_to_do(cells + away, rows) == list(
        cells[4:] + away
    )  # nothing was found out about them
    for cell in away:
        assert (
            rows[cell.key].failure.message
            == "no device of the fleet can run it: away is not connected; connected: one, two"
        )


def test_every_device_measures_what_is_meant_for_every_device(pair, tmp_path):
    rows = measured(pair, plan(tmp_path, cells=2, device="every"), tmp_path / "out")
    assert sorted(row.device for row in rows.values()) == ["one", "one", "two", "two"]


def test_a_text_in_parts_costs_the_same_bits_to_the_last(pair, tmp_path):
    cells = plan(tmp_path, cells=2, shards=5)
    rows = measured(pair, cells, tmp_path / "out")
    assert not any(row.wrong for row in rows.values())
    assert scores(tmp_path / "out") == local(tmp_path, cells)
    compression = load(tmp_path / "out" / cells[0].file_name).cells[0].outcome.compression
    assert set(compression.scored_on) <= {"one", "two"} and compression.scored_on
    assert not (tmp_path / "out" / ".scores").exists()


@pytest.mark.parametrize("what", ["keep", "parts"])
def test_a_full_disk_is_waited_for_and_nothing_is_lost(pair, tmp_path, monkeypatch, what):
    full, waited = threading.Event(), []
    full.set()
    kind = (
        sweeping.SweepState
        if what == "keep"
        else sys.modules["edgecap.sweep.fleet.scored_parts"].ScoredParts
    )
    save = kind.keep

    def keep(self, *given):
        if full.is_set():
            raise DiskFull("no room left on the disk of out")
        return save(self, *given)

    def news(told):
        if told.kind == "waits":
            waited.append(told)
            full.clear()

    monkeypatch.setattr(kind, "keep", keep)
    monkeypatch.setattr(sweeping, "DISK_PAUSE_S", 0.1)
    monkeypatch.setattr(sys.modules["edgecap.sweep.fleet.dispatch"], "DISK_PAUSE_S", 0.1)
    cells = plan(tmp_path, cells=4, shards=2)
    rows = measured(pair, cells, tmp_path / "out", news=news)
    assert waited and len(rows) == len(cells) and not any(row.wrong for row in rows.values())


def test_a_disk_that_stays_full_ends_the_sweep_and_it_goes_on_later(pair, tmp_path, monkeypatch):
    cells = plan(tmp_path, cells=2)
    monkeypatch.setattr(sys.modules["edgecap.sweep.fleet.bundles"], "FULL_BELOW_BYTES", 10**18)

    def full(*_):
        raise DiskFull("no room left on the disk of the cache")

    with monkeypatch.context() as patched, pytest.raises(DiskFull):
        patched.setattr(Bundles, "_build", full)
        measured(pair, cells, tmp_path / "out", RULES._replace(disk_patience_s=0.3))
    assert len(measured(pair, cells, tmp_path / "out")) == 2


def test_two_clients_share_a_fleet(pair, tmp_path):
    found, cells = {}, plan(tmp_path, cells=10)

    def client(number):
        folder = tmp_path / str(number) / "out"
        found[number] = measured(pair, cells, folder, cache=tmp_path / str(number))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert not any(row.wrong or row.attempts > 1 for row in found[number].values())
    assert scores(tmp_path / "0" / "out") == scores(tmp_path / "1" / "out")


def test_plain_dask_workers_are_never_given_a_cell(tmp_path):
    from distributed import LocalCluster

    network.configure()
    with LocalCluster(
        2, processes=False, dashboard_address="127.0.0.1:0", protocol="tcp", host="127.0.0.1"
    ) as cluster:
        fleet = Fleet.__new__(Fleet)
        fleet.folder, fleet.devices = tmp_path / "devices", {}
        fleet.folder.mkdir()
        fleet.port = int(cluster.scheduler_address.rpartition(":")[2])
        fleet.add("one")
        try:
            fleet.wait_for("one", "joined")
            rows = measured(fleet, plan(tmp_path, cells=4), tmp_path / "out")
        finally:
            fleet.devices["one"].kill()
            fleet.devices["one"].wait()
        assert {row.device for row in rows.values()} == {"one"} and not any(
            row.wrong for row in rows.values()
        )


# --- a fleet that breaks ----------------------------------------------------------------------


def test_nothing_is_lost_while_devices_die_and_stall_and_the_scheduler_restarts(fleet, tmp_path):
    names = ["a", "b", "c", "d"]
    for name in names:
        fleet.add(name, 0.3)
    cells = plan(tmp_path, cells=24)
    stop, chance = threading.Event(), random.Random(7)

    def trouble():
        for turn in range(1000):
            if stop.wait(1.2):
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
        rows = measured(fleet, cells, tmp_path / "out", FleetLimits(attempts=8, wait_s=60.0))
    finally:
        stop.set()
        thread.join()
        fleet.kill("a", signal.SIGCONT)
    assert rows.keys() == {cell.key for cell in cells}
    assert all(row.record or row.failure for row in rows.values())
    assert lines(tmp_path / "out") == sorted(rows)  # each exactly once
    kept = scores(tmp_path / "out")
    assert len(kept) == sum(bool(row.record) for row in rows.values()) >= 20
    assert kept.items() <= local(tmp_path, cells).items()


def test_a_laptop_that_was_closed_loses_its_cell_and_gets_others_when_it_wakes(fleet, tmp_path):
    fleet.add("lid", 0.5)
    fleet.add("home", 0.5)
    for name in ("lid", "home"):
        fleet.wait_for(name, "joined")
    seen = []

    def news(told):
        seen.append((told.kind, told.device))
        if (
            told.kind == "begun"
            and told.device == "lid"
            and ("again", "lid") not in seen
            and len(seen) < 9
        ):
            fleet.kill("lid", signal.SIGSTOP)
        if told.kind == "again":
            fleet.kill("lid", signal.SIGCONT)

    rows = measured(fleet, plan(tmp_path, cells=24), tmp_path / "out", news=news, silent_s=6.0)
    fleet.kill("lid", signal.SIGCONT)
    assert not any(row.wrong for row in rows.values())
    again = seen.index(("again", "lid"))
    assert ("finished", "lid") in seen[again:]


def test_what_bad_devices_send_is_not_written(fleet, tmp_path):
    tricks = ["garbage", "object", "other", "cut", "cells", "samples"]
    for trick in tricks:
        fleet.add(trick, 0.0, trick)
    cells = plan(tmp_path, cells=2, device=tricks)[: len(tricks)]
    rows = measured(fleet, cells, tmp_path / "out", FleetLimits(attempts=2, wait_s=30.0))
    assert {cell.device for cell in cells} == set(tricks)
    for cell in cells:
        row = rows[cell.key]
        assert row.failure.stage == "fleet" and row.attempts == 2
        assert cell.device in row.failure.message and not list((tmp_path / "out").glob("*.json"))


def test_a_cell_that_a_bad_device_spoils_is_measured_by_a_good_one(fleet, tmp_path):
    fleet.add("bad", 0.0, "garbage")
    fleet.add("good", 0.2)
    fleet.wait_for("good", "joined")
    rows = measured(fleet, plan(tmp_path), tmp_path / "out")
    assert {row.device for row in rows.values()} == {"good"} and not any(
        row.wrong for row in rows.values()
    )


def test_a_device_that_hangs_loses_its_cell(fleet, tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys.modules["edgecap.sweep.fleet.dispatch"], "SILENT_S", 6.0
    )  # a beat comes in 5 s
    fleet.add("stuck", 0.0, "hang")
    fleet.add("good")
    for name in ("stuck", "good"):
        fleet.wait_for(name, "joined")
    cells = plan(tmp_path, cells=2, options={"timeout_s": 1})
    rows = measured(fleet, cells, tmp_path / "out", RULES._replace(attempts=4))
    assert {row.device for row in rows.values()} == {"good"} and not any(
        row.wrong for row in rows.values()
    )
    assert max(row.attempts for row in rows.values()) > 1


def test_parts_that_do_not_agree_are_reported_and_scored_anew(fleet, tmp_path):
    fleet.add("good")
    fleet.wait_for("good", "joined")
    fleet.add("bad", 0.0, "tokens")
    fleet.wait_for("bad", "joined")
    cells = plan(tmp_path, cells=2, shards=4)[:1]
    rows = measured(fleet, cells, tmp_path / "out")
    row = rows[cells[0].key]
    assert "do not agree" in row.failure.message and "bad, good" in row.failure.message
    fleet.kill("bad")
    again = measured(fleet, cells, tmp_path / "out", asked=SweepOptions(retry=True))
    assert not any(row.wrong for row in again.values())


CLIENT = """
import sys
from pathlib import Path
from edgecap.sweep.fleet import network
import fleets
network.configure()
class There: address = sys.argv[1]
fleets.measured(There, fleets.plan(Path(sys.argv[2]), 2), Path(sys.argv[2]) / "out", fleets.RULES)
"""


def test_a_client_that_is_killed_frees_its_devices_at_once_and_goes_on(fleet, tmp_path):
    fleet.add("one", 600.0)  # what is measured now would take all night
    fleet.wait_for("one", "joined")
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, fleet.address, str(tmp_path)], env=TOOLS
    ) as client:
        began = time.monotonic()
        while not list((fleet.folder / "one").glob("bundles/*/*/edgecap.json")):
            assert time.monotonic() - began < 60
            time.sleep(0.1)
        time.sleep(1)  # now it measures
        with FleetConnection(fleet.address, None) as line:
            assert [seen.busy for seen in line.devices()] == [True]
        client.send_signal(signal.SIGKILL)
    (fleet.folder / "one" / "fast").touch()
    rows = measured(fleet, plan(tmp_path, cells=2), tmp_path / "out")
    assert len(rows) == 2 and not any(row.wrong for row in rows.values())


def test_a_clock_that_is_hours_off_makes_no_device_silent(pair, monkeypatch):
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + 7200)
    with FleetConnection(pair.address, None) as line:
        assert [seen.alive for seen in line.devices()] == [True, True]


def test_a_device_that_borrows_a_name_is_turned_away(pair):
    thief = pair.devices["thief"] = pair.begin(
        "thief", str(HERE / "fleet_worker.py"), pair.address, "one", str(pair.folder / "thief")
    )
    pair.wait_for("thief", "a device named one is connected")
    thief.kill()
    thief.wait()
    del pair.devices["thief"]


def test_nobody_there_is_told(fleet, tmp_path):
    with pytest.raises(UsageError, match="no device has joined"):
        measured(
            fleet,
            plan(tmp_path, cells=2, device="every"),
            tmp_path / "out",
            FleetLimits(wait_s=1.0),
        )
    rows = measured(fleet, plan(tmp_path, cells=2), tmp_path / "out", FleetLimits(wait_s=1.0))
    assert {row.failure.message for row in rows.values()} == {
        "no device of the fleet can run it: no device is connected"
    }


def test_a_scheduler_that_stays_away_ends_the_sweep_with_what_is_finished(fleet, tmp_path):
    fleet.add("one", 0.3)
    fleet.wait_for("one", "joined")
    cells = plan(tmp_path, cells=10)

    def news(told):
        if told.kind == "finished":
            fleet.scheduler.kill()

    with pytest.raises(UsageError, match="finished cells are kept"):
        measured(fleet, cells, tmp_path / "out", FleetLimits(wait_s=2.0), news)
    assert 1 <= len(scores(tmp_path / "out")) < 10
    fleet.scheduler.wait()
    fleet.start_scheduler()
    rows = measured(fleet, cells, tmp_path / "out")
    assert len(rows) == 10 and not any(row.wrong for row in rows.values())
