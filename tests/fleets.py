"""A fleet of real processes on loopback, for tests and the benchmark: a scheduler, devices,
and a client in this process.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import REFERENCE
from fakes import corpus_of, scripted

from edgecap import __version__
from edgecap.storage.files import Paths
from edgecap.storage.records import load
from edgecap.sweep import runner as sweeping
from edgecap.sweep.fleet.bundles import Bundles
from edgecap.sweep.fleet.connection import FleetConnection
from edgecap.sweep.fleet.dispatch import FleetBackend, FleetLimits
from edgecap.sweep.fleet.messages import DeviceInfo
from edgecap.sweep.plan import unfold
from edgecap.sweep.runner import SweepOptions

HERE = Path(__file__).parent
TOOLS = {**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
RULES = FleetLimits(attempts=3, wait_s=20.0)


def interruptible():
    """A shell's background jobs ignore Ctrl-C; these heed it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Fleet:
    """A scheduler and devices, each a process; what they say goes into files."""

    def __init__(self, folder, *options):
        self.folder, self.options, self.devices, self.port = folder, options, {}, 0
        self.folder.mkdir()
        self.start_scheduler()

    @property
    def address(self):
        return f"tcp://127.0.0.1:{self.port}"

    def start_scheduler(self):
        words = [
            "edgecap",
            "fleet",
            "start",
            "--port",
            str(self.port),
            "--ttl",
            "20",
            *self.options,
        ]
        log = self.folder / "scheduler.log"
        log.unlink(missing_ok=True)
        self.scheduler = self.begin("scheduler", "-m", *words)
        self.wait_for("scheduler", "to measure:")
        self.port = int(self.said("scheduler").split()[1].rpartition(":")[2])

    def add(self, name, seconds=0.0, *trick):
        """A device whose children are stand-ins."""
        place = str(self.folder / name)
        script = str(HERE / "fleet_worker.py")
        self.devices[name] = self.begin(
            name, script, self.address, name, place, str(seconds), *trick
        )

    def worker(self, name, *options, env=()):
        """`edgecap worker`, with a cache of its own."""
        words = [
            "edgecap",
            "worker",
            self.address,
            "--name",
            name,
            "--cache",
            str(self.folder / name),
            *options,
        ]
        self.devices[name] = self.begin(name, "-m", *words, env=env)

    def begin(self, name, *command, env=()):
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *command],
                env={**TOOLS, **dict(env)},
                stdout=log,
                stderr=log,
                preexec_fn=interruptible,
            )

    def said(self, name):
        return (self.folder / f"{name}.log").read_text()

    def wait_for(self, name, words, seconds=60.0):
        """Until a process has said something."""
        began = time.monotonic()
        while words not in self.said(name):
            assert time.monotonic() - began < seconds, self.said(name)
            time.sleep(0.05)

    def kill(self, name, number=signal.SIGKILL):
        self.devices[name].send_signal(number)

    def end(self):
        for process in (*self.devices.values(), self.scheduler):
            process.kill()
            process.wait()


ASKED = SweepOptions(resume=True)


def plan(folder, cells=8, **more):
    """A plan of so many cells over a text of four documents."""
    text = folder / "text.jsonl"
    text.write_text(
        "".join(json.dumps({"text": f"{i} words and words " * 9}) + "\n" for i in range(4))
    )
    asked = {"models": str(REFERENCE), "precisions": ["fp32", "int8"], "corpora": str(text)}
    asked |= {"contexts": list(range(16, 16 + cells // 2)), **more}
    return unfold(asked, folder, folder / "cache")


def measured(
    fleet, cells, folder, rules=RULES, news=None, cache=None, silent_s=8.0, asked=ASKED, keeps=True
):
    """Rows by key of a sweep on the fleet."""
    home = Paths(cache or folder.parent / "cache", folder)
    bundles = Bundles(home, None, lambda step, w, t: scripted(corpus_of(step))(step, w, t))
    with FleetConnection(fleet.address, None, silent_s=silent_s) as line:
        rows = sweeping.sweep(
            cells,
            folder,
            FleetBackend(line, bundles, rules, keeps),
            asked,
            news or (lambda told: None),
        )
    return {row.key: row for row in rows}


def scores(folder):
    """What the text cost, cell by cell: bits of each document, exactly."""
    found = {}
    for path in folder.glob("*.json"):
        compression = load(path).cells[0].outcome.compression
        found[path.name] = [(d.id, d.tokens, d.nll_bits) for d in compression.per_document]
    return found


def lines(folder):
    """The journal's keys, as often as they are there."""
    text = (folder / "journal.jsonl").read_text()
    return sorted(json.loads(line)[1]["key"] for line in text.split("\n") if line)


ABOUT = DeviceInfo(
    edgecap=__version__,
    name="one",
    host="h",
    cpu="c",
    memory_bytes=10**9,
    providers=("cpu",),
    counters=(),
)
