"""The peaks of this machine through a provider: measured once, kept, and measured again when asked; the faster stays."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from edgecap.machine.info import read_machine
from edgecap.pipeline.prepare import ProgressCallback, ProgressEvent, StepRunner
from edgecap.pipeline.worker import Calibrate, Calibrated, expected
from edgecap.provider_options import parse_provider
from edgecap.record import Absent, Bandwidth, Failure, Machine, Peaks
from edgecap.storage import files
from edgecap.storage.files import Paths

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
    """What an earlier run kept for this machine, provider, threads and processors, or else a new measurement."""
    here = read_machine((provider,))
    path = _kept_at(home, here, provider, threads, affinity)
    kept = kept_peaks(path)
    if kept and not again:
        return kept
    notice(ProgressEvent(None, "measuring the machine's peaks"))
    step = Calibrate(
        provider=provider, threads=threads, memory_bytes=_memory(here, provider), affinity=affinity
    )
    answer = expected(run(step, lambda p: None, _PATIENCE_S), Calibrated)
    if isinstance(answer, Failure):
        return Absent(reason=f"the peaks could not be measured: {answer.message}")
    found = Peaks(
        provider=provider,
        threads=threads,
        gemm_flops_per_s=answer.gemm_flops_per_s,
        bandwidth=answer.bandwidth,
        measured_utc=files.utc_now(),
    )
    best = _faster(kept, found) if kept else found
    files.write_atomically(path, msgspec.json.encode(best))
    return best


def _memory(here: Machine, provider: str) -> int:
    """What both ends of a probe must fit in."""
    on_board = parse_provider(provider).place[0] != "cpu"
    return min([here.memory_bytes, *(g.memory_bytes for g in here.gpus if on_board)])


def _faster(a: Peaks, b: Peaks) -> Peaks:
    """The faster of two measurements, number by number: what slows a moment down is no property of the machine."""
    gemm = {p: max(a.gemm_flops_per_s.get(p, 0.0), rate) for p, rate in b.gemm_flops_per_s.items()}
    had = {x.working_set_bytes: x for x in a.bandwidth}
    return msgspec.structs.replace(
        b,
        gemm_flops_per_s=gemm,
        bandwidth=tuple(_wider(had.get(x.working_set_bytes, x), x) for x in b.bandwidth),
    )


def _wider(a: Bandwidth, b: Bandwidth) -> Bandwidth:
    return msgspec.structs.replace(
        b,
        read_bytes_per_s=max(a.read_bytes_per_s, b.read_bytes_per_s),
        copy_bytes_per_s=max(a.copy_bytes_per_s, b.copy_bytes_per_s),
    )


def kept_peaks(path: Path) -> Peaks | None:
    """Peaks from a file, if it is there and whole."""
    with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(path.read_bytes(), type=Peaks)
    return None


def _kept_at(
    home: Paths, here: Machine, provider: str, threads: int, affinity: tuple[int, ...]
) -> Path:
    """A file named by all that the peaks depend on."""
    runtime = [f"{k} {v}" for k, v in here.versions.items() if k.startswith("onnxruntime")]
    told = [
        here.name,
        here.cpu,
        *here.flags,
        str(here.memory_bytes),
        str(here.logical_cores),
        *runtime,
    ]
    kept_to = [f"on {','.join(map(str, sorted(affinity)))}"] if affinity else []
    key = files.sha256_of("\n".join([*told, provider, str(threads), *kept_to]).encode())[:16]
    return home.cache / "peaks" / f"{provider}-{threads}-{key}.json"
