"""Read the machine: processor, memory, power and library versions. Owns psutil.

A value that cannot be read is `Absent` with the reason. A container's limits come from `container`,
names of processors and boards from `cpuinfo`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
from pathlib import Path

from edgecap.errors import UsageError
from edgecap.machine.container import cpu_quota, memory_left, memory_limit
from edgecap.machine.cpuinfo import (
    CpuInfo,
    board_name,
    processor_flags,
    processor_name,
    read_cpuinfo,
)
from edgecap.machine.nvidia import read_gpus
from edgecap.machine.roots import sysfs
from edgecap.names import one_line
from edgecap.record import Absent, Machine

# Instruction sets that matter to kernels.
FLAGS = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("avx_vnni", "amx_tile", "amx_int8", "amx_bf16"),
    *("neon", "asimd", "asimddp", "asimdhp", "fphp", "i8mm", "bf16", "sve"),
)
# Packages that provide `import onnxruntime`.
RUNTIMES = (
    *("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
    *("onnxruntime-qnn", "onnxruntime-migraphx", "onnxruntime-webgpu"),
)
LIBRARIES = (*RUNTIMES, "onnx", "numpy", "tokenizers", "optimum-onnx", "transformers", "torch")


def read_machine(providers: tuple[str, ...], on_cuda: bool = False) -> Machine:
    """Describe the machine as it is now; `providers` are those that the installed runtime has.

    A run `on_cuda` knows which boards CUDA's numbers stand for.
    """
    info, memory = read_cpuinfo(), total_memory()
    limit = memory_limit()
    return Machine(
        name=platform.node() or "machine",
        system=f"{platform.system()} {platform.release()}",
        cpu=processor_name(info),
        architecture=platform.machine(),
        flags=_flags(info),
        physical_cores=_physical_cores(),
        logical_cores=usable_processors(),
        memory_bytes=memory,
        governor=_read(sysfs() / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        turbo=_turbo(),
        power_source=_power_source(),
        temperature_c=_temperature(),
        load_average=_load_average(),
        versions=library_versions(),
        providers=providers,
        smt=_smt(),
        gpus=read_gpus(on_cuda),
        board=board_name(info),
        cpu_quota=cpu_quota(),
        memory_limit_bytes=limit if limit is not None and limit < memory else None,
    )


def _flags(info: CpuInfo) -> tuple[str, ...]:
    present = processor_flags(info)
    return tuple(f for f in FLAGS if f in present)


def int8_may_saturate() -> bool:
    """Return whether unsigned x signed int8 products may saturate in 16 bits: x86 without VNNI."""
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i686", "x86")
    return x86 and not {"avx512_vnni", "avx_vnni"} & set(_flags(read_cpuinfo()))


def check_processors(processors: tuple[int, ...]) -> None:
    """Raise UsageError unless this process may run on all of them."""
    usable = _affinity()
    missing = [p for p in processors if usable is not None and p not in usable]
    if missing:
        raise UsageError(
            f"--affinity: processor {missing[0]} is not available; this process may use {usable}"
        )


def check_threads(threads: int | None, processors: tuple[int, ...] = ()) -> None:
    """Raise UsageError if there are more threads than usable processors.

    Such threads wait for each other for minutes.
    """
    usable = len(processors) or usable_processors()
    if threads and threads > usable:
        limit = "--affinity keeps it to" if processors else "this process may use"
        raise UsageError(
            f"--threads {threads} is more than the {usable} processor{'s' * (usable > 1)} "
            f"that {limit}"
        )


def usable_processors() -> int:
    """Return the number of logical processors that this process may use."""
    return len(_affinity() or ()) or os.cpu_count() or 1


def _affinity() -> list[int] | None:
    """Return the processors that this process may use; None if the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    import psutil

    try:
        return list(psutil.Process().cpu_affinity())
    except (AttributeError, OSError, psutil.Error):
        return None


def pin_process(processors: tuple[int, ...]) -> None:
    """Restrict this process and the threads it will start to some processors; () means all.

    Raises UsageError if the system or the machine does not support it.
    """
    import psutil

    if not processors:
        return
    try:
        psutil.Process().cpu_affinity(list(processors))
    except AttributeError:
        raise UsageError(
            f"--affinity: {platform.system()} does not let a process choose its processors"
        ) from None
    except (OSError, ValueError, psutil.Error) as error:
        raise UsageError(f"--affinity {','.join(map(str, processors))}: {error}") from error


def available_memory() -> int:
    """Return the bytes that new processes can use without swapping, within all limits."""
    import psutil

    try:
        free = int(psutil.virtual_memory().available)
    except Exception:  # no /proc
        free = _pages("SC_AVPHYS_PAGES")
    left = memory_left()
    return free if left is None else min(free, left)


def usable_memory() -> int:
    """Return the bytes of this machine's memory, or of the container's limit if that is less."""
    limit = memory_limit()
    return total_memory() if limit is None else min(total_memory(), limit)


def total_memory() -> int:
    """Return the bytes of this machine's memory."""
    import psutil

    try:
        return int(psutil.virtual_memory().total)
    except Exception:  # no /proc
        return _pages("SC_PHYS_PAGES")


def _pages(name: str) -> int:
    """Return the bytes of a number of pages that the C library reports; 0 without it."""
    try:
        return max(0, os.sysconf(name) * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return 0


def default_threads() -> int:
    """Return one thread per physical core that this process may use, at least 1.

    A CPU quota of a container allows as many threads as it has whole processors.
    """
    most = min(usable_processors(), int(cpu_quota() or usable_processors()))
    return max(1, min(_physical_cores() or most, most))


def _physical_cores() -> int | None:
    import psutil

    try:
        return psutil.cpu_count(logical=False) or None
    except Exception:  # no /proc
        return None


def _load_average() -> float | Absent:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return Absent(reason="the system reports no load average")


def _read(path: Path) -> str | Absent:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        return Absent(reason=f"{path}: {getattr(error, 'strerror', None) or error}")


def _turbo() -> bool | Absent:
    """Read Intel's `no_turbo` (inverted) or the generic `boost`."""
    root = sysfs() / "devices/system/cpu"
    for path, on in (("intel_pstate/no_turbo", "0"), ("cpufreq/boost", "1")):
        value = _read(root / path)
        if isinstance(value, str):
            return value == on
    return Absent(reason="neither intel_pstate/no_turbo nor cpufreq/boost is readable")


def _smt() -> bool | Absent:
    value = _read(sysfs() / "devices/system/cpu/smt/active")
    return value if isinstance(value, Absent) else value == "1"


def _power_source() -> str | Absent:
    import psutil

    try:
        battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    except Exception as error:  # such as a container without /sys/class/power_supply
        return Absent(reason=f"no battery is readable: {one_line(error, 200)}")
    if battery is None or battery.power_plugged is None:
        return Absent(reason="no battery is reported")
    return "mains" if battery.power_plugged else "battery"


def _temperature() -> float | Absent:
    """Return the hottest sensor of the processor, in degrees Celsius."""
    import psutil

    try:
        readings = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    except Exception as error:  # a driver that answers with an error
        return Absent(reason=f"no temperature is readable: {one_line(error, 200)}")
    cpu = [
        t.current
        for name in ("coretemp", "k10temp", "cpu_thermal", "zenpower")
        for t in readings.get(name, [])
    ]
    return max(cpu) if cpu else Absent(reason="no processor temperature is readable")


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that affect measurements.

    Called several times per cell.
    """
    installed = {name: version for name in LIBRARIES if (version := _version(name))}
    runtimes = {name: version for name, version in installed.items() if name in RUNTIMES}
    for name in _shadowed(runtimes):
        del installed[name]
    return {"python": platform.python_version(), **installed}


def _shadowed(runtimes: dict[str, str]) -> list[str]:
    """Return the installed runtimes that `import onnxruntime` does not load, by their version."""
    spec = importlib.util.find_spec("onnxruntime") if len(runtimes) > 1 else None
    if spec is None or spec.origin is None:
        return []
    loaded = re.search(
        r'^__version__ *= *"([^"]+)"', Path(spec.origin).read_text("utf-8", "replace"), re.MULTILINE
    )
    shadowed = [name for name, version in runtimes.items() if loaded and version != loaded[1]]
    return shadowed if len(shadowed) < len(runtimes) else []


def _version(package: str) -> str:
    """Return a package's version, or "".

    Reads the metadata directly: importlib.metadata would parse the whole description.
    """
    try:
        metadata = importlib.metadata.distribution(package).read_text("METADATA") or ""
    except importlib.metadata.PackageNotFoundError:
        return ""
    match = re.search(r"^Version: *(\S+)", metadata, re.MULTILINE)
    return match[1] if match else importlib.metadata.version(package)


def package_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    installed = {}
    for name in packages:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
