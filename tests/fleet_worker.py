"""A device for tests, as a process: dask, messages, files and records are real; only the child that
measures is not.

    python fleet_worker.py ADDRESS NAME CACHE [SECONDS [TRICK]]

Each measurement takes SECONDS. TRICK is what a bad device sends instead of its record; with
"replay", a device answers what any of them answered before, so that only the fleet's own work is
seen.
"""

import asyncio
import hashlib
import sys
import time
from pathlib import Path

import msgspec
from fakes import corpus_of, scripted

from edgecap import __version__
from edgecap.pipeline.worker import MeasureCell, Progress, ScorePart
from edgecap.sweep.fleet import network
from edgecap.sweep.fleet.dask_worker import join
from edgecap.sweep.fleet.device import Device
from edgecap.sweep.fleet.messages import CellDone, DeviceInfo, Order, decode, encode


def slow(seconds, fast=None):
    """A stand-in for `in_child` that takes its time and tells so;
    it takes none once the file `fast` is there.
    """

    def run(step, watch, timeout_s):
        until = time.monotonic() + seconds
        while isinstance(step, MeasureCell | ScorePart) and (left := until - time.monotonic()) > 0:
            if fast and fast.exists():
                break
            watch(Progress(stage="sleeps", done=0, total=1))
            time.sleep(min(left, 0.5))
        return scripted(corpus_of(step))(step, watch, timeout_s)

    return run


def spoiled(trick, order, reply):
    """What a bad device makes of a good reply."""
    if trick == "garbage":
        return b"\x80\x04\x95cos\nsystem\n"
    if trick == "object":
        return Path("/etc/passwd")  # a pickle of something: dask would carry it
    if trick == "huge":
        return b" " * 300_000_000
    told = msgspec.json.decode(reply)
    if trick == "tokens":
        told["shares"][0]["tokens"] += 1
        return msgspec.json.encode(told)
    record = told["record"]
    if trick == "other":
        record["source"]["weights_sha256"] = "0" * 64
    if trick == "cut":
        return reply[: len(reply) // 2]
    if trick == "cells":
        record["cells"] *= 2
    if trick == "samples":
        record["cells"][0]["outcome"]["latency"]["decode"]["samples_s"] = [-1.0]
    return encode(CellDone(record=msgspec.Raw(msgspec.json.encode(record))))


class BadDevice(Device):
    def __init__(self, *given, trick):
        super().__init__(*given)
        self._trick = trick

    def answer(self, data, *wanted):
        if self._trick == "hang":
            time.sleep(600)
        reply = super().answer(data, *wanted)
        spoils = b'"kind":"part"' if self._trick == "tokens" else b'"kind":"done"'
        return spoiled(self._trick, decode(data, Order), reply) if spoils in reply[:40] else reply


class Replay(Device):
    """Answers an order as it was answered before, after the seconds that a child would take."""

    def __init__(self, cache, seconds):
        super().__init__(cache, None, slow(0))
        self._answers, self._seconds = cache.parent / "answers", seconds
        self._answers.mkdir(exist_ok=True)

    def answer(self, data, *wanted):
        kept = self._answers / hashlib.sha256(data).hexdigest()
        if kept.exists():
            time.sleep(self._seconds)
            return kept.read_bytes()
        reply = super().answer(data, *wanted)
        if b'"kind":"done"' in reply[:40]:
            kept.write_bytes(reply)
        return reply


def main():
    address, name, cache = sys.argv[1:4]
    seconds = float(sys.argv[4]) if sys.argv[4:] else 0.0
    network.configure()
    given = (Path(cache), None, slow(seconds, Path(cache) / "fast"))
    trick = sys.argv[5] if sys.argv[5:] else ""
    device = BadDevice(*given, trick=trick) if trick else Device(*given)
    if trick == "replay":
        device = Replay(Path(cache), seconds)
    about = DeviceInfo(
        edgecap=__version__,
        name=name,
        host="elsewhere",
        cpu="fake",
        memory_bytes=8_000_000_000,
        providers=("cpu",),
        counters=(),
    )
    asyncio.run(join(address, None, device, about, lambda words: print(words, flush=True)))


if __name__ == "__main__":
    main()
