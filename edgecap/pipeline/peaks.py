"""Peaks of this machine through a provider: FLOP/s and bytes/s, measured once and cached.

A repeated measurement keeps the faster value of each peak.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from edgecap.errors import UsageError
from edgecap.machine.info import read_machine
from edgecap.pipeline.run_context import ProgressCallback, ProgressEvent, StepRunner
from edgecap.pipeline.worker import Calibrate, Calibrated, expected
from edgecap.provider_options import any_on_cuda, parse_provider
from edgecap.record import Absent, Bandwidth, Failure, Machine, Peaks
from edgecap.storage.files import Paths, sha256_of, utc_now, write_atomically

_PATIENCE_S = 600.0


def peaks_of(
    home: Paths,
    provider: str,
    threads: int,
    notice: ProgressCallback,
    run: StepRunner,
    again: bool = False,
    affinity: tuple[int, ...] = (),
) -> Peaks | Absent:
    """Return the cached peaks of this machine, provider, threads and processors, or measure them.

    `again` measures even if they are cached. Absent if the measurement fails.
    """
    machine = read_machine((provider,), any_on_cuda([provider]))
    path = _cache_path(home, machine, provider, threads, affinity)
    cached = read_peaks(path)
    if cached and not again:
        return cached
    notice(ProgressEvent(None, "measuring the machine's peaks"))
    step = Calibrate(
        provider=provider,
        threads=threads,
        memory_bytes=_memory(machine, provider),
        affinity=affinity,
    )
    answer = expected(run(step, lambda p: None, _PATIENCE_S), Calibrated)
    if isinstance(answer, Failure):
        return Absent(reason=f"the peaks could not be measured: {answer.message}")
    measured = Peaks(
        provider=provider,
        threads=threads,
        gemm_flops_per_s=answer.gemm_flops_per_s,
        bandwidth=answer.bandwidth,
        measured_utc=utc_now(),
    )
    best = _faster(cached, measured) if cached else measured
    try:
        write_atomically(path, msgspec.json.encode(best))
    except UsageError as error:  # a full disk, or a cache of another user
        notice(ProgressEvent(None, f"the peaks will be measured again next time: {error}"))
    return best


def are_measured(home: Paths, provider: str, threads: int, affinity: tuple[int, ...]) -> bool:
    """Return True if the peaks of this machine are cached."""
    machine = read_machine((provider,), any_on_cuda([provider]))
    return read_peaks(_cache_path(home, machine, provider, threads, affinity)) is not None


def _memory(machine: Machine, provider: str) -> int:
    """Return the bytes of memory that a probe must fit in."""
    kind, device = parse_provider(provider).place
    limits = [b for b in (machine.memory_bytes, machine.memory_limit_bytes) if b is not None]
    own = machine.gpu(device)
    boards = [] if kind == "cpu" else [own] if own else machine.gpus
    return min([*limits, *(g.memory_bytes for g in boards)])


def _faster(a: Peaks, b: Peaks) -> Peaks:
    """Take the faster of two measurements, number by number.

    What slows one moment down is no property of the machine.
    """
    gemm = {p: max(a.gemm_flops_per_s.get(p, 0.0), rate) for p, rate in b.gemm_flops_per_s.items()}
    before = {x.working_set_bytes: x for x in a.bandwidth}
    return msgspec.structs.replace(
        b,
        gemm_flops_per_s=gemm,
        bandwidth=tuple(_wider(before.get(x.working_set_bytes, x), x) for x in b.bandwidth),
    )


def _wider(a: Bandwidth, b: Bandwidth) -> Bandwidth:
    return msgspec.structs.replace(
        b,
        read_bytes_per_s=max(a.read_bytes_per_s, b.read_bytes_per_s),
        copy_bytes_per_s=max(a.copy_bytes_per_s, b.copy_bytes_per_s),
    )


def read_peaks(path: Path) -> Peaks | None:
    """Read peaks from a file; return None if it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return msgspec.json.decode(path.read_bytes(), type=Peaks)
    return None


def _cache_path(
    home: Paths, machine: Machine, provider: str, threads: int, affinity: tuple[int, ...]
) -> Path:
    """Return the cache file, named by all that the peaks depend on."""
    runtime = [f"{k} {v}" for k, v in machine.versions.items() if k.startswith("onnxruntime")]
    hardware = [
        machine.name,
        machine.processor,
        *machine.flags,
        str(machine.memory_bytes),
        str(machine.logical_cores),
        *runtime,
        *_container(machine),
        *_board(machine, provider),
    ]
    processors = [f"on {','.join(map(str, sorted(affinity)))}"] if affinity else []
    key = sha256_of("\n".join([*hardware, provider, str(threads), *processors]).encode())[:16]
    return home.cache / "peaks" / f"{provider}-{threads}-{key}.json"


def _board(machine: Machine, provider: str) -> list[str]:
    """Return the board or the instance that CUDA's number stands for, if that is known."""
    kind, device = parse_provider(provider).place
    gpu = machine.gpu(device) if kind == "cuda" else None
    return [gpu.name] if gpu else []


def _container(machine: Machine) -> list[str]:
    """Return the limits of the container, without which the same machine is faster."""
    quota, memory = machine.cpu_quota, machine.memory_limit_bytes
    return [
        *([] if quota is None else [f"CPU quota {quota}"]),
        *([] if memory is None else [f"memory limit {memory}"]),
    ]
