"""Name the processor and the board of this machine from /proc/cpuinfo and the device tree.

The keys of /proc/cpuinfo differ by architecture: x86 has a `model name`, 64-bit Arm only numbers.
`EDGECAP_PROCFS` moves the procfs root.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from edgecap.machine.arm_cores import core_name
from edgecap.machine.roots import procfs, read_text
from edgecap.names import printable

CpuFields = dict[str, str]
LONGEST = 200  # characters of a name
# 32-bit Arm kernels write only the generation: "ARMv7 Processor rev 4 (v7l)".
_GENERATION = re.compile(r"ARMv\d|ARM.*-compatible|AArch64 Processor", re.IGNORECASE)
# Names of a processor but Arm's, first match first: LoongArch, MIPS, POWER, RISC-V.
_NAMES = ("Model Name", "cpu model", "cpu", "uarch")
# Names of a board where there is no `Model`: POWER and MIPS, 32-bit Arm.
_BOARDS = ("machine", "Hardware")


class CpuInfo(NamedTuple):
    """CpuFields of each processor, and those of all blocks together."""

    processors: list[CpuFields]
    machine: CpuFields


def read_cpuinfo() -> CpuInfo:
    """Read /proc/cpuinfo, or its equivalent on macOS; without fields if that is not readable."""
    if sys.platform == "darwin":
        return CpuInfo([{"model name": _brand_string()}], {})
    text = read_text(procfs() / "cpuinfo")
    blocks = [_fields(block) for block in re.split(r"\n\s*\n", text)]
    processors = [b for b in blocks if "processor" in b or "cpu number" in b]
    return CpuInfo(processors, {key: value for b in blocks for key, value in b.items()})


def _fields(block: str) -> CpuFields:
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _brand_string() -> str:
    command = ["sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def processor_flags(info: CpuInfo) -> set[str]:
    """Return the instruction sets that all processors share."""
    lists = [f.get("flags") or f.get("Features") or "" for f in info.processors]
    present = [set(words.split()) for words in lists if words]
    return set.intersection(*present) if present else set(info.machine.get("Features", "").split())


def processor_name(info: CpuInfo) -> str:
    """Return the processor's name; cores of several kinds are named with their numbers.

    Example: `Cortex-A76 x4 + Cortex-A55 x4`.
    """
    kinds = Counter(_names_of_cores(info))
    if len(kinds) > 1:
        return _shown(" + ".join(f"{name} x{count}" for name, count in kinds.items()))
    named = next(iter(kinds), "") or _machine_wide_name(info.machine)
    return _shown(named) or platform.processor() or platform.machine()


def _names_of_cores(info: CpuInfo) -> Iterator[str]:
    """Yield a name for each processor that has one, the last first.

    Most boards number their small cores first.
    """
    names = (_name_of_core(fields) for fields in reversed(info.processors))
    return (name for name in names if name)


def _name_of_core(fields: CpuFields) -> str:
    name = fields.get("model name", "")
    if "CPU part" in fields and (not name or _GENERATION.match(name)):
        return core_name(fields.get("CPU implementer", "?"), fields["CPU part"])
    named = name or next((fields[key] for key in _NAMES if fields.get(key)), "")
    return named.split(",")[0] if fields.get("cpu") == named else named or _risc_v(fields)


def _risc_v(fields: CpuFields) -> str:
    """Return the base instruction set, and maker and core as numbers where they are known."""
    if "isa" not in fields:
        return ""
    numbers = {"vendor": fields.get("mvendorid", "0x0"), "core": fields.get("marchid", "0x0")}
    words = [f"{key} {number}" for key, number in numbers.items() if number != "0x0"]
    return " ".join(["RISC-V", fields["isa"].split("_")[0], *words])


def _machine_wide_name(machine: CpuFields) -> str:
    """Return the name of a processor that is described once for all: old Arm kernels, s390x."""
    if "CPU part" in machine:
        return _name_of_core(machine)
    if machine.get("vendor_id") == "IBM/S390":
        return f"IBM Z type {machine.get('machine') or _s390_type(machine)}"
    return next((machine[key] for key in ("Processor", "Hardware") if machine.get(key)), "")


def _s390_type(machine: CpuFields) -> str:
    """Return the type of a mainframe from the line of its first processor, such as 8561."""
    found = re.search(r"machine = (\w+)", machine.get("processor 0", ""))
    return found[1] if found else "unknown"


def board_name(info: CpuInfo) -> str | None:
    """Return the model of the board: from /proc/cpuinfo, else from the device tree; else None."""
    if info.machine.get("vendor_id") == "IBM/S390":  # `machine` is the type of its processor
        return None
    tree = read_text(procfs() / "device-tree/model").split("\0")[0]
    names = (info.machine.get("Model"), tree, *(info.machine.get(key) for key in _BOARDS))
    return next((_shown(name) for name in names if name), None)


def _shown(name: str) -> str:
    return printable(name.strip())[:LONGEST]
