"""Measure the overhead of a fleet, and test it: python benchmarks/fleet.py [calm] [rough] [many]

calm    100 cells of 2 s on 4 devices: time beyond the cells, and CPU of idle processes
rough   the same with killed and stopped devices, a restarted scheduler, a full disk, a wrong device
many    1,000 cells of 0.1 s on 8 devices: cells per second

Scheduler and devices are processes on this machine. The children that measure are stand-ins that
sleep. Where time is measured, devices replay earlier answers, because they share the processors.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import psutil  # noqa: E402
from fleet_worker import slow  # noqa: E402
from fleets import Fleet, lines, measured, plan, scores  # noqa: E402

from edgecap.storage.files import Paths  # noqa: E402
from edgecap.sweep import runner as sweeping  # noqa: E402
from edgecap.sweep.fleet import network  # noqa: E402
from edgecap.sweep.fleet.dispatch import FleetLimits  # noqa: E402


@contextmanager
def fleet_of(folder, names, seconds, *trick):
    fleet = Fleet(folder / "devices")
    try:
        for name in names:
            fleet.add(name, seconds, *trick)
        for name in names:
            fleet.wait_for(name, "joined")
        yield fleet
    finally:
        fleet.end()


def cpu(process):
    return sum(process.cpu_times()[:2])


def say(name, value):
    print(f"{name:<58}{value}", flush=True)


def waiting(fleet, seconds=20.0):
    """Print the CPU time of an idle device and the idle scheduler."""
    who = {"a waiting device": fleet.devices["a"], "a waiting scheduler": fleet.scheduler}
    before = {name: cpu(psutil.Process(process.pid)) for name, process in who.items()}
    time.sleep(seconds)
    for name, process in who.items():
        say(
            f"{name}, CPU",
            f"{1000 * (cpu(psutil.Process(process.pid)) - before[name]) / seconds:.1f} ms a second",
        )


def timed(fleet, folder, cells, seconds, devices):
    own, scheduler = psutil.Process(), psutil.Process(fleet.scheduler.pid)
    before, there, began = cpu(own), cpu(scheduler), time.monotonic()
    rows = measured(fleet, cells, folder / "out")
    wall = time.monotonic() - began
    assert len(rows) == len(cells) and not any(row.wrong for row in rows.values())
    say("wall", f"{wall:.1f} s")
    say(
        "beyond the cells' own time", f"{100 * (wall / (len(cells) * seconds / devices) - 1):.1f} %"
    )
    say("cells a second", f"{len(cells) / wall:.1f}")
    say("client, CPU a cell", f"{1000 * (cpu(own) - before) / len(cells):.1f} ms")
    say("scheduler, CPU a cell", f"{1000 * (cpu(scheduler) - there) / len(cells):.1f} ms")


def calm(folder):
    cells = plan(folder, 100)
    with fleet_of(folder, "abcd", 2.0, "replay") as fleet:
        waiting(fleet)
        measured(fleet, cells, folder / "first")
        timed(fleet, folder, cells, 2.0, 4)


def many(folder):
    cells = plan(folder, 1000)
    with fleet_of(folder, "abcdefgh", 0.1, "replay") as fleet:
        measured(fleet, cells, folder / "first")
        timed(fleet, folder, cells, 0.1, 8)


# --- rough ------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder):
    """Mount a small disk for the records; use a folder if mounting is not permitted."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    with suppress(OSError), (folder / "ballast").open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()


def trouble(fleet, out, has_disk, stop):
    """Cause one failure every 3 s, in the same order in each run."""
    chance = random.Random(7)
    special = {
        3: ("a device stops", lambda: fleet.kill("a", signal.SIGSTOP)),
        6: ("the scheduler dies and is started again", lambda: restart(fleet)),
        9: ("the disk is full", lambda: fill(out) if has_disk else None),
        13: ("the disk has room", lambda: (out / "ballast").unlink(missing_ok=True)),
        14: ("the device goes on", lambda: fleet.kill("a", signal.SIGCONT)),
    }
    for turn in range(10_000):
        if stop.wait(3.0):
            return
        if turn in special:
            words, act = special[turn]
            print(f"  {words}", flush=True)
            act()
        else:
            name = chance.choice("bcd")
            fleet.kill(name)
            fleet.devices[name].wait()
            fleet.add(name, 2.0)


def restart(fleet):
    fleet.scheduler.kill()
    fleet.scheduler.wait()
    fleet.start_scheduler()


def rough(folder):
    cells, events = plan(folder, 100), []
    with fleet_of(folder, "abcd", 2.0) as fleet, small_disk(folder / "out") as has_disk:
        fleet.add("liar", 2.0, "other")
        stop = threading.Event()
        thread = threading.Thread(target=trouble, args=(fleet, folder / "out", has_disk, stop))
        thread.start()
        began = time.monotonic()
        try:
            rules = FleetLimits(attempts=12, wait_s=60.0)
            rows = measured(fleet, cells, folder / "out", rules, events.append, silent_s=15.0)
        finally:
            stop.set()
            thread.join()
        say("wall", f"{time.monotonic() - began:.0f} s")
        sweeping.sweep(
            cells, folder / "local", sweeping.LocalBackend(Paths(folder / "cache", folder), slow(0))
        )
        kept, local = scores(folder / "out"), scores(folder / "local")
        say("cells", len(cells))
        say("records", len(kept))
        say("cells that failed", sum(row.failure is not None for row in rows.values()))
        say("tries that were repeated", sum(event.kind == "again" for event in events))
        say("waits for room or the scheduler", sum(event.kind == "waits" for event in events))
        say("lost", len({cell.key for cell in cells} - rows.keys()))
        say("twice in the journal", len(lines(folder / "out")) - len(set(lines(folder / "out"))))
        say(
            "sums that differ from one machine's",
            sum(local[name] != score for name, score in kept.items()),
        )
        say(
            "records of the wrong device",
            sum(row.device == "liar" for row in rows.values() if row.record),
        )


def main():
    network.configure()
    for name in sys.argv[1:] or ("calm", "rough", "many"):
        print(f"--- {name}, {os.cpu_count()} processors")
        with tempfile.TemporaryDirectory() as scratch:
            {"calm": calm, "rough": rough, "many": many}[name](Path(scratch))


if __name__ == "__main__":
    main()
