"""Warnings about the NVIDIA board of a cell: others that use it, its memory, its clock. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edgecap.analysis.warnings.timing import FREQUENCY, OTHER_LOAD
from edgecap.provider_options import parse_provider
from edgecap.record import BoardConditions, Caution, Energy, Gpu, Latency, Machine, Measurement
from edgecap.units import size

HELD_BYTES, HELD_SHARE = 1e9, 0.02  # of memory; less is the driver's own, or a desktop's


def check_board(machine: Machine, provider: str, measured: Measurement) -> Iterator[Caution]:
    """Warn about the board that CUDA's number of the provider stands for."""
    kind, device = parse_provider(provider).place
    if kind != "cuda":
        return
    gpu = machine.gpu(device)
    name = gpu.name if gpu else "the board"
    latency = measured.latency
    during = latency.conditions.board if isinstance(latency, Latency) else None
    others = [*_before(gpu, name), *(_meanwhile(during, name) if during else ())]
    yield from others
    energy = measured.energy
    domains = energy.domains if isinstance(energy, Energy) else ()
    if others and any(d.rpartition(" ")[2].startswith("gpu-") for d in domains):
        yield Caution(
            code="energy-shared-board",
            message=f"other processes computed on {name}: its joules are not the run's alone",
            advice="end them and run again: nvidia-smi lists them",
        )
    if gpu:
        yield from _check_memory(gpu)
    if during:
        yield from _check_clock(during, gpu, name)


def _before(gpu: Gpu | None, name: str) -> Iterator[Caution]:
    if gpu and gpu.utilisation and gpu.utilisation > OTHER_LOAD:
        yield Caution(
            code="board-busy",
            message=f"{name} was busy {gpu.utilisation:.0%} of the time before the run, "
            f"with {_processes(gpu.users)}",
            advice="end what computes on it (nvidia-smi lists it), or choose another board",
        )


def _meanwhile(during: BoardConditions, name: str) -> Iterator[Caution]:
    if not during.others or (during.other_load is not None and during.other_load <= OTHER_LOAD):
        return
    load = during.other_load
    computed = "how much is not known" if load is None else f"{load:.0%} of the time"
    yield Caution(
        code="board-busy-meanwhile",
        message=f"{_processes(during.others)} computed on {name} during the benchmark, {computed}",
        advice="end them (nvidia-smi lists them) and run again",
    )


def _check_memory(gpu: Gpu) -> Iterator[Caution]:
    """Warn about memory that was taken before the run."""
    if (gpu.used_bytes or 0) > max(HELD_BYTES, HELD_SHARE * gpu.memory_bytes):
        yield Caution(
            code="board-memory-taken",
            message=f"{size(gpu.used_bytes or 0)} of the {size(gpu.memory_bytes)} of {gpu.name} "
            f"were taken before the run, by {_processes(gpu.users)}",
            advice="end them (nvidia-smi lists them) if long contexts or batches do not fit",
        )


def _check_clock(during: BoardConditions, gpu: Gpu | None, name: str) -> Iterator[Caution]:
    """Warn about a clock that moved between rounds, and about what held it down."""
    if not during.clocks_hz:
        return
    slowest, fastest = min(during.clocks_hz), max(during.clocks_hz)
    clock = f"{slowest / 1e9:.2f} to {fastest / 1e9:.2f} GHz"
    most = f", {during.most_hz / 1e9:.2f} GHz at most" if during.most_hz else ""
    if fastest / slowest - 1 > FREQUENCY:
        yield Caution(
            code="board-clock",
            message=f"the clock of {name} was {clock} from round to round{most}",
            advice="fix it for comparable times (nvidia-smi --lock-gpu-clocks), or warm up longer",
        )
    if during.slowed:
        limit = f" ({gpu.power_limit_w:.0f} W)" if gpu and gpu.power_limit_w else ""
        what = " and ".join(
            f"{cause}{limit * (cause == 'power limit')} in {rounds}"
            for cause, rounds in during.slowed.items()
        )
        yield Caution(
            code="board-throttled",
            message=f"the clock of {name} was held down by {what} of {during.rounds} rounds: "
            f"{clock}{most}",
            advice="these are times under sustained load; cool the board or raise its power limit",
        )


def _processes(count: int) -> str:
    """Name processes by their number; a container may hide them from NVML."""
    if count == 0:
        return "processes that NVML does not list"
    return f"{count} other process{'es' * (count != 1)}"
