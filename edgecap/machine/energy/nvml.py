"""NVIDIA boards through NVML: total energy if the board counts it, else sampled power.

    nvmlDeviceGetTotalEnergyConsumption   mJ since the driver was loaded (Volta and newer)   counter
    nvmlDeviceGetPowerUsage               mW (a mean over up to a second on newer boards)    sampled

Only the boards that the run uses are opened, as CUDA numbers them (CUDA_VISIBLE_DEVICES,
CUDA_DEVICE_ORDER). A board split by MIG reports only its total power, which other instances share:
it is refused.
Source: NVIDIA NVML API reference; nvidia-ml-py.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from edgecap.machine.energy.failures import one_line
from edgecap.machine.energy.sampled import SampledCounter
from edgecap.machine.energy.tally import CumulativeCounter
from edgecap.protocols import Counter
from edgecap.record import LeftOut

PERIOD_S = (0.02, 0.5)  # bounds of a board's update period
_FIRST_MIG = (
    "this board is split by MIG: its power belongs to all instances and cannot be told apart"
)


class NvmlBoard(NamedTuple):
    """One board: its NVML handle and number, UUID and name; the `problem` if it has none."""

    handle: Any
    number: int
    uuid: str
    name: str
    problem: str = ""


def open_nvml(
    environ: Mapping[str, str], devices: Sequence[int] = (0,), load: Callable[[], Any] | None = None
) -> list[Counter | LeftOut]:
    """Open a counter for each board that a run on CUDA's `devices` uses; a LeftOut for the others.

    `load` imports pynvml.
    """
    try:
        nvml = (load or _load)()
        nvml.nvmlInit()
        boards = [_board(nvml, i) for i in range(nvml.nvmlDeviceGetCount())]
    except ImportError:
        return [_missing("nvml", "nvidia-ml-py is not installed: pip install nvidia-ml-py")]
    except Exception as error:
        return [_missing("nvml", f"NVML cannot be used: {one_line(error)}")]
    used = used_boards(boards, environ, devices)
    if isinstance(used, LeftOut):
        return [used]
    unused = [b for b in boards if b not in used]
    return [*(_open_board(nvml, b) for b in used), *(_unused(b) for b in unused)]


def _load() -> Any:
    return importlib.import_module("pynvml")


def _missing(name: str, reason: str) -> LeftOut:
    return LeftOut(name=name, reason=reason, scope="nvidia", missing=True)


def _unused(board: NvmlBoard) -> LeftOut:
    reason = "the run does not use this board"
    if board.problem:
        reason += f", and it cannot be read: {board.problem}"
    return LeftOut(name=f"nvml gpu-{board.number}", reason=reason, scope="nvidia")


def _board(nvml: Any, index: int) -> NvmlBoard:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
        return NvmlBoard(handle, index, _text(uuid), _text(name))
    except Exception as error:
        return NvmlBoard(None, index, "", "", one_line(error) or type(error).__name__)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def used_boards(
    boards: Sequence[NvmlBoard], environ: Mapping[str, str], devices: Sequence[int]
) -> list[NvmlBoard] | LeftOut:
    """Return the boards that CUDA numbers `devices`, or a LeftOut if that is unclear.

    Source: CUDA programming guide, environment variables. An entry is a number or the start of a
    UUID; the first invalid one hides itself and all that follow.
    """
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    by_number = listed is None or any(e.strip().isdigit() for e in listed.split(","))
    unsorted = (
        environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"
        and len({b.name for b in boards if not b.problem}) > 1
    )
    if by_number and unsorted:
        return _missing(
            "nvml",
            "boards of different models: CUDA may number them differently from NVML; set "
            "CUDA_DEVICE_ORDER=PCI_BUS_ID, or give the board's UUID in CUDA_VISIBLE_DEVICES",
        )
    visible = list(boards) if listed is None else _listed(boards, listed)
    try:
        used = [visible[d] for d in devices]
        return by_number and _unclear(boards, used) or used
    except IndexError:
        if listed and "MIG-" in listed:
            return _missing("nvml", _FIRST_MIG)
        return _missing(
            "nvml", f"CUDA device {max(devices)} is not there (CUDA_VISIBLE_DEVICES={listed!r})"
        )


def _unclear(boards: Sequence[NvmlBoard], used: Sequence[NvmlBoard]) -> LeftOut | None:
    """Return a LeftOut if boards were counted over one that cannot be read: CUDA may skip it."""
    lost = next((b for b in boards if b.problem), None)
    if lost is None or all(b.number < lost.number for b in used):
        return None
    return _missing(
        "nvml",
        f"gpu-{lost.number} cannot be read ({lost.problem}), so CUDA may number the boards "
        "differently from NVML; give the board's UUID in CUDA_VISIBLE_DEVICES",
    )


def _listed(boards: Sequence[NvmlBoard], listed: str) -> list[NvmlBoard]:
    selected = list[NvmlBoard]()
    for entry in (e.strip() for e in listed.split(",")):
        matching = [
            b for b in boards if entry == str(b.number) or entry and b.uuid.startswith(entry)
        ]
        if len(matching) != 1 or matching[0] in selected:
            break
        selected += matching
    return selected


def _open_board(nvml: Any, board: NvmlBoard) -> Counter | LeftOut:
    name, domain = "nvml", f"gpu-{board.number}"
    if _has_mig(nvml, board):
        return _missing(f"nvml {domain}", _FIRST_MIG)

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


def _has_mig(nvml: Any, board: NvmlBoard) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(board.handle)
    except Exception:  # Not Supported: the board cannot be split
        return False
    return bool(current)


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
