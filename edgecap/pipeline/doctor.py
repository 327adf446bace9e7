"""Diagnose this machine: providers, energy counters, peaks, noise, and remedies.

Changes nothing and runs no command for the user: remedies are text.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from edgecap.errors import EdgecapError
from edgecap.machine.diagnosis import Diagnosis, FolderSpace, Remedy
from edgecap.machine.energy.permission import powercap_commands
from edgecap.machine.info import default_threads, read_machine
from edgecap.pipeline.peaks import peaks_of
from edgecap.pipeline.run_context import ProgressCallback, ProgressEvent, StepRunner, ignore_events
from edgecap.pipeline.worker import Diagnose, Diagnosed, ignore_progress, in_child
from edgecap.provider_options import any_on_cuda
from edgecap.record import Absent, Failure, Machine
from edgecap.storage.files import Paths, check_writable, free_bytes

EXPORT_BYTES = 2_000_000_000  # of disk, for the exports of a small model
TIMEOUT_S = 300.0


def examine(
    home: Paths,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
    calibrate: bool = False,
) -> Diagnosis:
    """Diagnose everything. Peaks come from the cache; `calibrate` measures them again."""
    notice(ProgressEvent(None, "trying providers and counters"))
    threads = default_threads()
    answer = run(Diagnose(threads=threads), ignore_progress, TIMEOUT_S)
    nothing = Diagnosed(providers={}, counters=(), refused=(), totals={})
    diagnosed = answer if isinstance(answer, Diagnosed) else nothing
    working = [name for name, reason in diagnosed.providers.items() if not reason]
    peaks = {name: peaks_of(home, name, threads, notice, run, calibrate) for name in working}
    machine, cache = read_machine(tuple(working), any_on_cuda(working)), _folder_space(home.cache)
    trouble = answer.message if isinstance(answer, Failure) else ""
    return Diagnosis(
        machine=machine,
        providers=diagnosed.providers,
        exporter=_exporter(),
        counters=diagnosed.counters,
        refused=diagnosed.refused,
        totals=diagnosed.totals,
        peaks=peaks,
        cache=cache,
        remedies=tuple(_remedies(machine, diagnosed, cache, trouble)),
    )


def _folder_space(path: Path) -> FolderSpace:
    try:
        check_writable(path)
        writable = True
    except EdgecapError:
        writable = False
    size = (
        sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if os.path.isdir(path) else 0
    )
    free = free_bytes(path)
    return FolderSpace(path=str(path), bytes=size, free_bytes=free, writable=writable)


def _exporter() -> str | Absent:
    """Return the versions of the exporter's packages, or the one that is missing."""
    names = ("optimum-onnx", "transformers", "torch")
    try:
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    except importlib.metadata.PackageNotFoundError as error:
        return Absent(
            reason=f"{error.name} is not installed; "
            "pip install 'edgecap[export]' on a workstation is enough"
        )


def _remedies(
    machine: Machine, diagnosed: Diagnosed, cache: FolderSpace, trouble: str
) -> Iterator[Remedy]:
    if diagnosed.providers.get("cpu") != "":
        why = trouble or diagnosed.providers.get("cpu") or "no answer"
        yield Remedy(
            f"ONNX Runtime does not run a node: {why}",
            "pip install --force-reinstall onnxruntime",
            True,
        )
    if not cache.writable:
        yield Remedy(
            f"cannot write {cache.path}", "give another folder: EDGECAP_CACHE or --cache", True
        )
    if cache.free_bytes < EXPORT_BYTES:
        yield Remedy(
            f"{cache.free_bytes / 1e9:.1f} GB are left on the disk of {cache.path}",
            "free some, or move the cache",
        )
    if any("not readable" in r.reason and r.name.startswith("rapl") for r in diagnosed.refused):
        once, permanent = powercap_commands(_os_release())
        yield Remedy(
            "the energy counter of the processor is not readable by this user",
            f"until the next boot: {once}",
        )
        yield Remedy("the same, for good", permanent)
    for counter in diagnosed.counters:
        if not any(counter.load_w.values()):
            yield Remedy(
                f"{counter.name} did not move under load",
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
    readable = sys.platform == "linux" and os.access(path, os.R_OK)
    return path.read_text("utf-8", "replace") if readable else ""
