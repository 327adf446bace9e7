"""NVIDIA boards as NVML shows them, in the order in which CUDA numbers them. Owns pynvml.

CUDA numbers only what it may use (CUDA_VISIBLE_DEVICES), the fastest board first unless
CUDA_DEVICE_ORDER=PCI_BUS_ID; NVML numbers all boards. `visible_boards` joins them by UUID. A board
split by MIG stands for its instances there. What a board does not tell is None and fails nothing.
Source: NVIDIA NVML API reference; CUDA programming guide, environment variables; nvidia-ml-py.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from math import ceil
from typing import Any, NamedTuple

from edgecap.names import one_line
from edgecap.record import Absent, Gpu

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_MIG_SLICES = 8  # of memory, in which a board is split


class NvmlBoard(NamedTuple):
    """A board, or an instance of one: NVML's handle and number of the board, UUID and name.

    `bus` is the PCI address, `instances` are those of MIG, `problem` says why it cannot be read.
    """

    handle: Any
    number: int
    uuid: str
    name: str
    problem: str = ""
    bus: str = ""
    split: bool = False
    instances: tuple[NvmlBoard, ...] = ()


class VisibleBoards(NamedTuple):
    """Boards by CUDA's numbers, from 0 on; `unclear` says why those behind them are not known."""

    boards: tuple[NvmlBoard, ...]
    unclear: str = ""


def load_nvml(load: Callable[[], Any] | None = None) -> Any:
    """Import pynvml, by `load` if it is given, and connect it to the driver.

    Raises whatever prevents that.
    """
    nvml = load() if load else importlib.import_module("pynvml")
    nvml.nvmlInit()
    return nvml


def reading(nvml: Any, function: str, *arguments: Any) -> Any:
    """Call NVML; None if the board, the driver, the library or a permission does not allow it."""
    try:
        return getattr(nvml, function)(*arguments)
    except Exception:  # of many kinds, from the library
        return None


# --- boards -----------------------------------------------------------------------------------


def list_boards(nvml: Any) -> list[NvmlBoard]:
    """Return all boards in NVML's order. Raises if they cannot be counted."""
    return [_board(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]


def _board(nvml: Any, index: int) -> NvmlBoard:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name, own = _text(nvml.nvmlDeviceGetName(handle)), _text(nvml.nvmlDeviceGetUUID(handle))
    except Exception as error:
        return NvmlBoard(None, index, "", "", one_line(error) or type(error).__name__)
    address = reading(nvml, "nvmlDeviceGetPciInfo", handle)
    board = NvmlBoard(handle, index, own, name, bus=_text(address.busId) if address else "")
    mode = reading(nvml, "nvmlDeviceGetMigMode", handle)
    if not mode or not mode[0]:
        return board
    return board._replace(split=True, instances=_instances(nvml, board))


def _instances(nvml: Any, board: NvmlBoard) -> tuple[NvmlBoard, ...]:
    most = reading(nvml, "nvmlDeviceGetMaxMigDeviceCount", board.handle) or 0
    found = (
        reading(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", board.handle, i) for i in range(most)
    )
    return tuple(
        board._replace(
            handle=handle,
            uuid=_text(reading(nvml, "nvmlDeviceGetUUID", handle) or ""),
            name=_instance_name(nvml, handle, board),
            split=True,
        )
        for handle in found
        if handle is not None
    )


def _instance_name(nvml: Any, handle: Any, board: NvmlBoard) -> str:
    """Return the board and the profile of an instance, such as `NVIDIA H100 MIG 1g.10gb`.

    Some drivers name it themselves. The gigabytes of a profile are eighths of the board's.
    """
    name = _text(reading(nvml, "nvmlDeviceGetName", handle) or "")
    if " MIG " in name:
        return name
    has = reading(nvml, "nvmlDeviceGetAttributes", handle)
    memory = reading(nvml, "nvmlDeviceGetMemoryInfo", board.handle)
    if has is None or memory is None:
        return f"{board.name} MIG"
    slices = int(_MIG_SLICES * has.memorySizeMB * 2**20 / memory.total + 0.5)
    gigabytes = int(slices / _MIG_SLICES * ceil(memory.total / 2**30) + 0.5)
    compute, whole = has.computeInstanceSliceCount, has.gpuInstanceSliceCount
    part = f"{compute}c." if compute < whole else ""
    return f"{board.name} MIG {part}{whole}g.{gigabytes}gb"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# --- CUDA's order -----------------------------------------------------------------------------


def cuda_uuids(load: Callable[[], Any] | None = None) -> list[str] | None:
    """Ask CUDA's driver for the UUIDs of its devices, in its order; None if it cannot be asked.

    Reads CUDA's environment variables and wakes the boards. `load` opens the driver's library.
    """
    count = ctypes.c_int()
    try:
        cuda = (load or _load_cuda)()
        status = cuda.cuInit(0)
        if status == _NO_DEVICE:
            return []
        if status or cuda.cuDeviceGetCount(ctypes.byref(count)):
            return None
        return [_cuda_uuid(cuda, ordinal) for ordinal in range(count.value)]
    except (OSError, AttributeError):  # no library, or an old one
        return None


def _load_cuda() -> Any:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def _cuda_uuid(cuda: Any, ordinal: int) -> str:
    """Return the UUID of a device; of a MIG instance its own, from CUDA 11.4 on."""
    device, raw = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    read = getattr(cuda, "cuDeviceGetUuid_v2", None) or cuda.cuDeviceGetUuid
    if cuda.cuDeviceGet(ctypes.byref(device), ordinal) or read(ctypes.byref(raw), device):
        raise OSError(f"CUDA device {ordinal} has no UUID")
    return str(uuid.UUID(bytes=bytes(raw)))


def visible_boards(
    boards: Sequence[NvmlBoard], environ: Mapping[str, str], uuids: Sequence[str] | None = None
) -> VisibleBoards:
    """Return boards and instances as CUDA numbers them.

    `uuids` are CUDA's own answer. Without them, or if one is unknown to NVML, the rules for the
    environment say it where they are clear.
    """
    known = {b.uuid.partition("-")[2]: b for board in boards for b in (board, *board.instances)}
    if uuids is not None and all(u in known for u in uuids):
        return VisibleBoards(tuple(known[u] for u in uuids))
    return _visible_by_rules(boards, environ)


def _visible_by_rules(boards: Sequence[NvmlBoard], environ: Mapping[str, str]) -> VisibleBoards:
    """Apply the rules for the environment variables of CUDA.

    An entry is a number or the start of a UUID; the first invalid one hides all that follow.
    """
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    by_bus = environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    numbered, unclear = _numbered(boards, by_bus)
    if listed is None:
        return VisibleBoards(tuple(numbered), unclear)
    selected: list[NvmlBoard] = []
    for entry in (e.strip() for e in listed.split(",")):
        if entry.isdigit():
            matching = numbered[int(entry) :][:1]
            if not matching and int(entry) < len(boards):
                return VisibleBoards(tuple(selected), unclear)
        else:
            every = [b for board in boards for b in (board, *board.instances)]
            matching = [b for b in every if entry and b.uuid.startswith(entry)]
        if len(matching) != 1 or matching[0] in selected:
            break
        selected += matching
    return VisibleBoards(tuple(selected))


def _numbered(boards: Sequence[NvmlBoard], by_bus: bool) -> tuple[list[NvmlBoard], str]:
    """Return the boards that have the same numbers in CUDA whatever it does, and why no more do."""
    if not by_bus and len({b.name for b in boards if not b.problem}) > 1:
        return [], (
            "boards of different models: CUDA may number them differently from NVML; set "
            "CUDA_DEVICE_ORDER=PCI_BUS_ID, or give the board's UUID in CUDA_VISIBLE_DEVICES"
        )
    lost = next((b for b in boards if b.problem), None)
    if lost is None:
        return sorted(boards, key=lambda b: b.bus), ""
    return list(takewhile(lambda b: not b.problem, boards)), (
        f"gpu-{lost.number} cannot be read ({lost.problem}), so CUDA may number the boards "
        "differently from NVML; give the board's UUID in CUDA_VISIBLE_DEVICES"
    )


def cuda_board(nvml: Any, device: int) -> NvmlBoard | None:
    """Return the board or instance that CUDA numbers `device` here; None if that is unclear."""
    visible = visible_boards(list_boards(nvml), os.environ, cuda_uuids()).boards
    return visible[device] if device < len(visible) else None


def missing_device(device: int) -> str:
    """Return which devices CUDA has here if `device` is not one of them, else ""."""
    uuids = cuda_uuids()
    if not uuids or device < len(uuids):
        return ""
    try:
        visible = visible_boards(list_boards(load_nvml()), os.environ, uuids).boards
        names = [f"{b.name}, {b.uuid}" for b in visible]
    except Exception:  # without NVML there are no names
        names = list(uuids)
    there = "; ".join(f"{number} ({name})" for number, name in enumerate(names))
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = "" if listed is None else f", CUDA_VISIBLE_DEVICES={listed}"
    return f"CUDA has no device {device} here, only {there}{hidden}"


# --- what a board tells -----------------------------------------------------------------------


def read_gpus(on_cuda: bool = False) -> tuple[Gpu, ...]:
    """Return boards as NVML reports them, a split one by its instances; () without any.

    A run `on_cuda` asks CUDA for their numbers; others leave a sleeping board alone.
    """
    try:
        nvml = load_nvml()
    except Exception:  # no library, no driver, no permission: no board that could be used
        return ()
    try:
        driver = _text(reading(nvml, "nvmlSystemGetDriverVersion") or "unknown")
        boards = [b for b in list_boards(nvml) if not b.problem]
        visible: tuple[NvmlBoard, ...] = ()
        if on_cuda:
            visible = visible_boards(list_boards(nvml), os.environ, cuda_uuids()).boards
        numbers = {b.uuid: device for device, b in enumerate(visible)}
        shown = [b for board in boards for b in board.instances or (board,)]
        gpus = (_gpu(nvml, b, driver, numbers.get(b.uuid)) for b in shown)
        return tuple(gpu for gpu in gpus if gpu is not None)
    except Exception:  # a board that does not tell must not fail a run
        return ()
    finally:
        reading(nvml, "nvmlShutdown")


def _gpu(nvml: Any, board: NvmlBoard, driver: str, device: int | None) -> Gpu | None:
    """Describe a board; None if it has no memory of its own."""
    memory = reading(nvml, "nvmlDeviceGetMemoryInfo", board.handle)
    if memory is None:
        return None
    busy = reading(nvml, "nvmlDeviceGetUtilizationRates", board.handle)
    limit = None if board.split else reading(nvml, "nvmlDeviceGetEnforcedPowerLimit", board.handle)
    users = {p.pid for p in processes(nvml, board)} - {os.getpid()}
    return Gpu(
        name=board.name,
        driver=driver,
        memory_bytes=int(memory.total),
        users=len(users),
        uuid=board.uuid,
        device=device,
        used_bytes=int(memory.used),
        utilisation=busy.gpu / 100 if busy else None,
        power_limit_w=None if limit is None else limit / 1e3,
    )


def processes(nvml: Any, board: NvmlBoard) -> list[Any]:
    """Return NVML's list of processes that compute on a board; [] if it tells none."""
    return list(reading(nvml, "nvmlDeviceGetComputeRunningProcesses", board.handle) or [])


def free_memory(device: int) -> int | None:
    """Return the bytes that are free on CUDA's `device`; None if they are unknown or no limit.

    Windows swaps the memory of its boards.
    """
    if sys.platform == "win32":
        return None
    try:
        nvml = load_nvml()
        board = cuda_board(nvml, device)
        return None if board is None else int(nvml.nvmlDeviceGetMemoryInfo(board.handle).free)
    except Exception:  # without NVML nothing is known, and nothing refused
        return None


def process_gpu_memory(device: int) -> int | Absent:
    """Return the bytes that this process uses on CUDA's `device` now, as NVML counts them."""
    try:
        nvml = load_nvml()
        board = cuda_board(nvml, device)
        boards = [board] if board else list_boards(nvml)
    except Exception as error:  # no library, no driver, no permission
        return Absent(reason=f"NVML does not report it: {error}")
    users = [p for b in boards for p in processes(nvml, b)]
    own = [p.usedGpuMemory for p in users if p.pid == os.getpid()]
    if not own or None in own:
        return Absent(
            reason="NVML does not report the memory of this process "
            "(a container, or Windows' driver model)"
        )
    return int(sum(own))
