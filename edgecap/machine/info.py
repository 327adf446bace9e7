"""Looks at the machine: processor, memory, power and library versions. Owns psutil and sysfs.

What cannot be read is `Absent` with the reason. The sysfs root can be moved (`EDGECAP_SYSFS`).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgecap.errors import UsageError
from edgecap.record import Absent, Gpu, Machine

FLAGS = (
    *(
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "avx_vnni",
    ),
    *(
        "amx_tile",
        "amx_int8",
        "amx_bf16",
        "neon",
        "asimd",
        "asimddp",
        "asimdhp",
        "fphp",
        "i8mm",
        "bf16",
        "sve",
    ),
)
RUNTIMES = (  # packages that bring `import onnxruntime`: one of them is installed
    *(
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-openvino",
        "onnxruntime-directml",
        "onnxruntime-qnn",
    ),
    *("onnxruntime-migraphx", "onnxruntime-webgpu"),
)
LIBRARIES = (*RUNTIMES, "onnx", "numpy", "tokenizers", "optimum-onnx", "transformers", "torch")


def sysfs() -> Path:
    """The root of sysfs: `EDGECAP_SYSFS` or /sys."""
    return Path(os.environ.get("EDGECAP_SYSFS") or "/sys")


def read_machine(providers: tuple[str, ...]) -> Machine:
    """The machine as it is now; `providers` are those that the installed runtime offers."""
    import psutil

    info = _cpuinfo()
    return Machine(
        name=platform.node() or "machine",
        system=f"{platform.system()} {platform.release()}",
        cpu=info.get("model name") or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        flags=_flags(info),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=usable_processors(),
        memory_bytes=psutil.virtual_memory().total,
        governor=_read(sysfs() / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        turbo=_turbo(),
        power_source=_power_source(),
        temperature_c=_temperature(),
        load_average=os.getloadavg()[0]
        if hasattr(os, "getloadavg")
        else Absent(reason="no load average on this system"),
        versions=library_versions(),
        providers=providers,
        smt=_smt(),
        gpus=read_gpus(),
    )


def _flags(info: dict[str, str]) -> tuple[str, ...]:
    had = (info.get("flags") or info.get("Features") or "").split()
    return tuple(f for f in FLAGS if f in had)


def int8_may_saturate() -> bool:
    """Whether unsigned x signed int8 products may be added in 16 bits here: x86 that shows no VNNI."""
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i686", "x86")
    return x86 and not {"avx512_vnni", "avx_vnni"} & set(_flags(_cpuinfo()))


def process_gpu_memory() -> int | Absent:
    """Bytes that this process holds on NVIDIA boards now, as their management library counts them."""
    try:
        import pynvml

        pynvml.nvmlInit()
        boards = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        users = [p for board in boards for p in pynvml.nvmlDeviceGetComputeRunningProcesses(board)]
    except Exception as error:  # no library, no driver, no permission
        return Absent(reason=f"NVML does not tell it: {error}")
    own = [p.usedGpuMemory for p in users if p.pid == os.getpid()]
    if not own or None in own:
        return Absent(
            reason="NVML does not show this process with its memory (a container, or Windows' driver model)"
        )
    return int(sum(own))


def check_processors(processors: tuple[int, ...]) -> None:
    """Raises UsageError where this process may not run on all of them."""
    import psutil

    had = psutil.Process().cpu_affinity() if hasattr(psutil.Process, "cpu_affinity") else None
    missing = [p for p in processors if had is not None and p not in had]
    if missing:
        raise UsageError(
            f"--affinity: processor {missing[0]} is not there; this process may use {had}"
        )


def check_threads(threads: int | None, processors: tuple[int, ...] = ()) -> None:
    """Raises UsageError where there are more threads than processors to run them: they wait for each other for minutes."""
    usable = len(processors) or usable_processors()
    if threads and threads > usable:
        where = "--affinity keeps it to" if processors else "this process may use"
        raise UsageError(
            f"--threads {threads} is more than the {usable} processor{'s' * (usable > 1)} that {where}"
        )


def usable_processors() -> int:
    """Logical processors that this process may use."""
    import psutil

    return (
        len(psutil.Process().cpu_affinity()) if sys.platform == "linux" else psutil.cpu_count() or 1
    )


def pin_process(processors: tuple[int, ...]) -> None:
    """Keeps this process, with the threads that it will start, on some processors; on all where none are named.

    Raises UsageError where the system or the machine does not have that.
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
    except (OSError, ValueError) as error:
        raise UsageError(f"--affinity {','.join(map(str, processors))}: {error}") from error


def available_memory() -> int:
    """Bytes that new processes can have without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def default_threads() -> int:
    """One thread a physical core that this process may use."""
    import psutil

    allowed = usable_processors()
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo, or what macOS and Windows say instead."""
    if sys.platform == "darwin":
        brand = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=False,
        )
        return {"model name": brand.stdout.strip()}
    try:
        first = Path("/proc/cpuinfo").read_text("utf-8", "replace").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _read(path: Path) -> str | Absent:
    try:
        return path.read_text().strip()
    except OSError as error:
        return Absent(reason=f"{path}: {error.strerror}")


def _turbo() -> bool | Absent:
    """Intel's `no_turbo` (inverted) or the generic `boost`."""
    root = sysfs() / "devices/system/cpu"
    for path, on in (("intel_pstate/no_turbo", "0"), ("cpufreq/boost", "1")):
        value = _read(root / path)
        if isinstance(value, str):
            return value == on
    return Absent(reason="neither intel_pstate/no_turbo nor cpufreq/boost is readable")


def _smt() -> bool | Absent:
    value = _read(sysfs() / "devices/system/cpu/smt/active")
    return value if isinstance(value, Absent) else value == "1"


def read_gpus() -> tuple[Gpu, ...]:
    """NVIDIA boards as their management library tells them; none where there is no such library or board."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library, no driver, no permission: no board that could be used
        return ()
    try:
        driver = _words(pynvml.nvmlSystemGetDriverVersion())
        boards = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return tuple(_gpu(pynvml, board, driver) for board in boards)
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml: Any, board: Any, driver: str) -> Gpu:
    users = {p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(board)} - {os.getpid()}
    memory = int(pynvml.nvmlDeviceGetMemoryInfo(board).total)
    return Gpu(
        name=_words(pynvml.nvmlDeviceGetName(board)),
        driver=driver,
        memory_bytes=memory,
        users=len(users),
    )


def _words(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _power_source() -> str | Absent:
    import psutil

    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None or battery.power_plugged is None:
        return Absent(reason="no battery is reported")
    return "mains" if battery.power_plugged else "battery"


def _temperature() -> float | Absent:
    """The hottest sensor of the processor, degrees Celsius."""
    import psutil

    readings = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    cpu = [
        t.current
        for name in ("coretemp", "k10temp", "cpu_thermal", "zenpower")
        for t in readings.get(name, [])
    ]
    return max(cpu) if cpu else Absent(reason="no processor temperature is readable")


def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that decide what is measured; asked several times a cell."""
    found = {name: version for name in LIBRARIES if (version := _version(name))}
    for name in _hidden({name: version for name, version in found.items() if name in RUNTIMES}):
        del found[name]
    return {"python": platform.python_version(), **found}


def _hidden(runtimes: dict[str, str]) -> list[str]:
    """Of several runtimes that are installed those that `import onnxruntime` does not find, told by their version."""
    spec = importlib.util.find_spec("onnxruntime") if len(runtimes) > 1 else None
    if spec is None or spec.origin is None:
        return []
    told = re.search(
        r'^__version__ *= *"([^"]+)"', Path(spec.origin).read_text("utf-8", "replace"), re.MULTILINE
    )
    others = [name for name, version in runtimes.items() if told and version != told[1]]
    return others if len(others) < len(runtimes) else []


def _version(package: str) -> str:
    """A package's version, or nothing; importlib.metadata would parse all of its long description for it."""
    try:
        told = importlib.metadata.distribution(package).read_text("METADATA") or ""
    except importlib.metadata.PackageNotFoundError:
        return ""
    named = re.search(r"^Version: *(\S+)", told, re.MULTILINE)
    return named[1] if named else importlib.metadata.version(package)


def package_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
