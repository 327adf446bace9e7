"""NVIDIA boards through NVML: total energy if the board counts it, else sampled power.

    nvmlDeviceGetTotalEnergyConsumption   mJ since the driver was loaded (Volta and newer)   counter
    nvmlDeviceGetPowerUsage               mW (a mean over up to a second on newer boards)    sampled

Only the boards that the run uses are opened: `edgecap.machine.nvidia` finds them. A board split by
MIG reports only its total power, which other instances share: it is refused.
Source: NVIDIA NVML API reference; nvidia-ml-py.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgecap.machine.energy.failures import one_line
from edgecap.machine.energy.sampled import SampledCounter
from edgecap.machine.energy.tally import CumulativeCounter
from edgecap.machine.nvidia import NvmlBoard, list_boards, load_nvml, visible_boards
from edgecap.protocols import Counter
from edgecap.record import LeftOut

PERIOD_S = (0.02, 0.5)  # bounds of a board's update period
_SPLIT = "this board is split by MIG: its power belongs to all instances and cannot be told apart"


def open_nvml(
    environ: Mapping[str, str],
    devices: Sequence[int] = (0,),
    load: Callable[[], Any] | None = None,
    uuids: Sequence[str] | None = None,
) -> list[Counter | LeftOut]:
    """Open a counter for each board that a run on CUDA's `devices` uses; a LeftOut for the others.

    `load` imports pynvml. `uuids` are those of CUDA's devices, in its order, if it was asked.
    """
    try:
        nvml = load_nvml(load)
        boards = list_boards(nvml)
    except ImportError:
        return [_missing("nvml", "nvidia-ml-py is not installed: pip install nvidia-ml-py")]
    except Exception as error:
        return [_missing("nvml", f"NVML cannot be used: {one_line(error)}")]
    used = _used_boards(boards, environ, devices, uuids)
    if isinstance(used, LeftOut):
        return [used]
    numbers = {b.number for b in used}
    unused = [b for b in boards if b.number not in numbers]
    return [*(_open_board(nvml, b) for b in used), *(_unused(b) for b in unused)]


def _missing(name: str, reason: str) -> LeftOut:
    return LeftOut(name=name, reason=reason, scope="nvidia", missing=True)


def _unused(board: NvmlBoard) -> LeftOut:
    reason = "the run does not use this board"
    if board.problem:
        reason += f", and it cannot be read: {board.problem}"
    return LeftOut(name=f"nvml gpu-{board.number}", reason=reason, scope="nvidia")


def _used_boards(
    boards: Sequence[NvmlBoard],
    environ: Mapping[str, str],
    devices: Sequence[int],
    uuids: Sequence[str] | None,
) -> list[NvmlBoard] | LeftOut:
    """Return the boards that CUDA numbers `devices`, or a LeftOut if that is unclear."""
    visible = visible_boards(boards, environ, uuids)
    if all(device < len(visible.boards) for device in devices):
        return [visible.boards[device] for device in devices]
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed and "MIG-" in listed:  # NVML may hide instances
        return _missing("nvml", _SPLIT)
    absent = f"CUDA device {max(devices)} is not there (CUDA_VISIBLE_DEVICES={listed!r})"
    return _missing("nvml", visible.unclear or absent)


def _open_board(nvml: Any, board: NvmlBoard) -> Counter | LeftOut:
    name, domain = "nvml", f"gpu-{board.number}"
    if board.split:
        return _missing(f"nvml {domain}", f"{_SPLIT} ({board.name})")

    def joules() -> tuple[float]:
        return (nvml.nvmlDeviceGetTotalEnergyConsumption(board.handle) / 1e3,)

    def watts() -> tuple[float]:
        return (nvml.nvmlDeviceGetPowerUsage(board.handle) / 1e3,)

    try:
        return CumulativeCounter(name, "nvidia", [domain], joules, resolution_j=1e-3)
    except OSError:  # the board does not count energy
        pass
    try:
        watts()
    except Exception as error:
        return _missing(
            f"nvml {domain}", f"{board.name} reports neither energy nor power: {one_line(error)}"
        )
    return SampledCounter(name, "nvidia", [domain], watts, update_period(nvml, board.handle))


def update_period(nvml: Any, handle: Any) -> float:
    """Return the seconds between the power samples that a board stores, within `PERIOD_S`.

    0.1 if it stores none.
    """
    try:
        _, samples = nvml.nvmlDeviceGetSamples(handle, nvml.NVML_TOTAL_POWER_SAMPLES, 0)
        stamps = sorted({s.timeStamp for s in samples})
    except Exception:
        stamps = []
    steps = [b - a for a, b in zip(stamps, stamps[1:], strict=False)]
    period = statistics.median(steps) / 1e6 if steps else 0.1  # microseconds
    return min(max(period, PERIOD_S[0]), PERIOD_S[1])
