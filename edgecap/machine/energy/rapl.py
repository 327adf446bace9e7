"""RAPL through Linux's powercap: packages and their memory, Intel and AMD.

    /sys/class/powercap/intel-rapl:0        name package-0        counted
    /sys/class/powercap/intel-rapl:0:0      name core             part of its package, never added
    /sys/class/powercap/intel-rapl:0:1      name dram             counted: beside its package, not in it
    /sys/class/powercap/intel-rapl:1        name psys             the whole platform: a counter of its own
    /sys/class/powercap/intel-rapl:2        name package-0-die-1  counted, unless it repeats another die's number
    /sys/class/powercap/intel-rapl-mmio:0   name package-0        counted only where the other one is not there

`energy_uj` counts microjoules and wraps at `max_energy_range_uj`.
Sources: Documentation/power/powercap/powercap.rst of the Linux kernel; on AMD's first Zen processors each
die shows the counter of the whole socket (mlco2/codecarbon issue 1274).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edgecap.machine.energy.permission import powercap_remedy
from edgecap.machine.energy.tally import CumulativeCounter
from edgecap.protocols import Counter
from edgecap.record import LeftOut

_ZONE = re.compile(r"intel-rapl(?P<mmio>-mmio)?:\d+(?P<sub>:\d+)?\Z")
_DIE = re.compile(r"(?P<package>package-\d+)-die-\d+\Z")
RESOLUTION_J = 61e-6  # 2^-14 J, the usual energy status unit


class RaplZone(NamedTuple):
    """One powercap zone: its folder, the name of its domain, what it counts up to in joules."""

    path: Path
    name: str
    wrap_j: float | None

    def joules(self) -> float:
        """What its counter shows. An empty file is one that is being written (a stand-in's; the kernel has none)."""
        for _ in range(5):
            text = (self.path / "energy_uj").read_text().strip()
            if text.isdigit():
                return int(text) / 1e6
            time.sleep(0.0005)
        raise OSError(f"{self.path / 'energy_uj'} holds no number")


def open_rapl(sysfs: Path) -> list[Counter | LeftOut]:
    """Packages and memory as one counter, psys as another, and what is in neither."""
    root = sysfs / "class/powercap"
    paths = _zone_paths(root)
    if not paths:
        return [_missing("rapl", f"no RAPL counter: {root} holds no intel-rapl zone")]
    zones, left_out = list[RaplZone](), list[LeftOut]()
    for path in paths:
        found = _open_zone(path)
        (left_out if isinstance(found, LeftOut) else zones).append(found)  # type: ignore[arg-type]
    counted, parts = _sort_out(zones)
    return [*_counters(counted, left_out), *_psys(zones), *left_out, *parts]


def _missing(name: str, reason: str) -> LeftOut:
    return LeftOut(name=name, reason=reason, scope="processor", missing=True)


def _zone_paths(root: Path) -> list[Path]:
    """Each zone once, whether the tree lists it flat, as the kernel does, or only inside its parent."""
    found = {p.name: p for depth in ("*/*/", "*/", "") for p in root.glob(depth + "intel-rapl*:*")}
    return [found[name] for name in sorted(found) if _ZONE.match(name)]


def _open_zone(path: Path) -> RaplZone | LeftOut:
    """A zone that could be read once, or why not."""
    name = path.name
    try:
        name = (path / "name").read_text().strip()
        zone = RaplZone(path, name, _range(path / "max_energy_range_uj"))
        zone.joules()
    except (OSError, ValueError) as error:
        reason = (
            powercap_remedy(path)
            if isinstance(error, PermissionError)
            else f"it cannot be read: {error}"
        )
        return LeftOut(
            name=f"rapl {name}", reason=reason, scope="processor", missing=_belongs(path.name, name)
        )
    return zone


def _belongs(folder: str, name: str) -> bool:
    """Whether a zone would be part of the total if it could be read."""
    top = folder.count(":") == 1
    return name != "psys" and "mmio" not in folder and (top or name in ("dram", folder))


def _range(path: Path) -> float | None:
    return int(path.read_text()) / 1e6 if path.exists() else None


def _sort_out(zones: list[RaplZone]) -> tuple[list[RaplZone], list[LeftOut]]:
    """The zones that make up the total, and the others with the reason."""
    counted, parts = list[RaplZone](), list[LeftOut]()
    for zone in sorted(zones, key=lambda z: "mmio" in z.path.name):
        reason = _why_not(zone, counted)
        if reason is None:
            counted.append(zone)
        elif zone.name != "psys":
            parts.append(
                LeftOut(
                    name=f"rapl {zone.name} ({zone.path.name})", reason=reason, scope="processor"
                )
            )
    return counted, parts


def _why_not(zone: RaplZone, counted: list[RaplZone]) -> str | None:
    """Why a zone is not added to those already counted; None if it is."""
    found = _ZONE.match(zone.path.name)
    if found is None or zone.name == "psys":
        return "the whole platform"
    if found["sub"]:
        return None if zone.name == "dram" else "part of its package, never added to it"
    if not zone.name.startswith("package"):
        return "neither a package nor its memory"
    if found["mmio"] and any(z.name == zone.name for z in counted):
        return "the same package again, through memory-mapped registers"
    twin = next((z.name for z in counted if _repeats(zone, z)), None)
    return (
        twin and f"shows the same number as {twin}: one counter of the socket, seen from each die"
    )


def _repeats(zone: RaplZone, other: RaplZone) -> bool:
    """Whether two dies of one package show one counter: a number between two readings of the other."""
    a, b = _DIE.match(zone.name), _DIE.match(other.name)
    if not a or not b or a["package"] != b["package"]:
        return False
    first, between, last = other.joules(), zone.joules(), other.joules()
    return 0 < first <= between <= last


def _counters(zones: list[RaplZone], left_out: list[LeftOut]) -> Iterator[Counter | LeftOut]:
    if any(z.name.startswith("package") for z in zones):
        yield _tallied("rapl", "processor", zones, _domains(zones))
        return
    if not any(x.missing for x in left_out):
        yield _missing("rapl", "RAPL is there, but has no package zone")
    for zone in zones:
        yield LeftOut(
            name=f"rapl {zone.name}", reason="no package can be read beside it", scope="processor"
        )


def _psys(zones: list[RaplZone]) -> Iterator[Counter]:
    found = [z for z in zones if z.name == "psys"][:1]
    if found:
        yield _tallied("rapl-psys", "platform", found, ["psys"])


def _tallied(name: str, scope: str, zones: list[RaplZone], domains: list[str]) -> CumulativeCounter:
    def raw() -> list[float]:
        return [z.joules() for z in zones]

    return CumulativeCounter(name, scope, domains, raw, RESOLUTION_J, [z.wrap_j for z in zones])


def _domains(zones: list[RaplZone]) -> list[str]:
    """Names of the zones; the memories of several packages carry their package's number."""
    several = sum(z.name == "dram" for z in zones) > 1
    packages = {z.path.name: z.name.removeprefix("package-") for z in zones if z.name != "dram"}

    def name(zone: RaplZone) -> str:
        parent = zone.path.name.rpartition(":")[0]
        return (
            f"dram-{packages.get(parent, parent)}" if several and zone.name == "dram" else zone.name
        )

    return [name(z) for z in zones]
