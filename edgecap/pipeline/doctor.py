"""What this machine can measure, and why not the rest: providers, energy counters, peaks, and what disturbs.

Nothing is changed and no command is run for the user: remedies are words.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from edgecap.errors import EdgecapError
from edgecap.machine.diagnosis import Diagnosis, FolderSpace, Remedy
from edgecap.machine.energy.permission import powercap_commands
from edgecap.machine.info import default_threads, read_machine
from edgecap.pipeline.peaks import peaks_of
from edgecap.pipeline.prepare import ProgressCallback, ProgressEvent, StepRunner, ignore_events
from edgecap.pipeline.worker import Diagnose, Diagnosed, in_child
from edgecap.record import Absent, Failure, Machine
from edgecap.storage import files
from edgecap.storage.files import Paths

ROOM = 2_000_000_000  # bytes of disk that exports of a small model need


def examine(
    home: Paths,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
    calibrate: bool = False,
) -> Diagnosis:
    """Looks at everything; peaks are those that are kept, measured where there are none."""
    notice(ProgressEvent(None, "trying providers and counters"))
    threads = default_threads()
    answer = run(Diagnose(threads=threads), lambda p: None, 300.0)
    seen = (
        answer
        if isinstance(answer, Diagnosed)
        else Diagnosed(providers={}, counters=(), refused=(), totals={})
    )
    working = [name for name, reason in seen.providers.items() if not reason]
    peaks = {name: peaks_of(home, name, threads, notice, run, calibrate) for name in working}
    machine, cache, exporter = read_machine(tuple(working)), _place(home.cache), _exporter()
    trouble = answer.message if isinstance(answer, Failure) else ""
    return Diagnosis(
        machine=machine,
        providers=seen.providers,
        exporter=exporter,
        counters=seen.counters,
        refused=seen.refused,
        totals=seen.totals,
        peaks=peaks,
        cache=cache,
        remedies=tuple(_remedies(machine, seen, cache, trouble)),
    )


def _place(path: Path) -> FolderSpace:
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    try:
        files.check_writable(path)
        writable = True
    except EdgecapError:
        writable = False
    size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else 0
    return FolderSpace(
        path=str(path), bytes=size, free_bytes=shutil.disk_usage(there).free, writable=writable
    )


def _exporter() -> str | Absent:
    """The versions of what exports Hugging Face models, or what is missing."""
    names = ("optimum-onnx", "transformers", "torch")
    try:
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    except importlib.metadata.PackageNotFoundError as error:
        return Absent(
            reason=f"{error.name} is not installed; pip install 'edgecap[export]' on a workstation is enough"
        )


def _remedies(
    machine: Machine, seen: Diagnosed, cache: FolderSpace, trouble: str
) -> Iterator[Remedy]:
    if seen.providers.get("cpu") != "":
        why = trouble or seen.providers.get("cpu") or "no answer"
        yield Remedy(
            f"ONNX Runtime does not run a node: {why}",
            "pip install --force-reinstall onnxruntime",
            True,
        )
    if not cache.writable:
        yield Remedy(
            f"cannot write {cache.path}", "give another folder: EDGECAP_CACHE or --cache", True
        )
    if cache.free_bytes < ROOM:
        yield Remedy(
            f"{cache.free_bytes / 1e9:.1f} GB are left on the disk of {cache.path}",
            "free some, or move the cache",
        )
    if any("not readable" in r.reason and r.name.startswith("rapl") for r in seen.refused):
        once, kept = powercap_commands(_os_release())
        yield Remedy(
            "the energy counter of the processor is not readable by this user",
            f"until the next boot: {once}",
        )
        yield Remedy("the same, for good", kept)
    for seen_counter in seen.counters:
        if not any(seen_counter.load_w.values()):
            yield Remedy(
                f"{seen_counter.name} did not move under load",
                "it counts nothing here: its energy will be absent",
            )
    yield from _disturbances(machine)


def _disturbances(machine: Machine) -> Iterator[Remedy]:
    cores = machine.physical_cores or machine.logical_cores
    if isinstance(machine.load_average, float) and machine.load_average > 0.25 * cores:
        yield Remedy(
            f"load average {machine.load_average:.2f} on {cores} cores",
            "close other programs before measuring",
        )
    if machine.power_source == "battery":
        yield Remedy("running on battery", "plug in for comparable times")
    if isinstance(machine.governor, str) and machine.governor not in ("performance", "schedutil"):
        yield Remedy(
            f"frequency governor {machine.governor}", "sudo cpupower frequency-set -g performance"
        )
    for gpu in machine.gpus:
        if gpu.users:
            yield Remedy(
                f"{gpu.users} other processes use {gpu.name}",
                "end them before measuring: nvidia-smi lists them",
            )


def _os_release() -> str:
    path = Path("/etc/os-release")
    return (
        path.read_text("utf-8", "replace")
        if sys.platform == "linux" and os.access(path, os.R_OK)
        else ""
    )
