"""RAPL through Linux's powercap: packages and their memory, Intel and AMD.

    /sys/class/powercap/
        intel-rapl:0        package-0        counted
        intel-rapl:0:0      core             part of its package, never added
        intel-rapl:0:1      dram             counted: not in its package
        intel-rapl:1        psys             the whole platform: a counter of its own
        intel-rapl:2        package-0-die-1  counted, unless it repeats another die's value
        intel-rapl-mmio:0   package-0        counted only without the first

`energy_uj` counts microjoules and wraps at `max_energy_range_uj`.
Sources: Documentation/power/powercap/powercap.rst of the Linux kernel. On AMD's first Zen
processors each die shows the counter of the whole socket (mlco2/codecarbon issue 1274).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgecap.machine.energy.failures import dangling, reason_of, unreadable
from edgecap.machine.energy.permission import powercap_remedy
from edgecap.machine.energy.tally import CumulativeCounter
from edgecap.protocols import Counter
from edgecap.record import LeftOut

_ZONE = re.compile(r"intel-rapl(?P<mmio>-mmio)?:\d+(?P<sub>:\d+)?\Z")
_DIE = re.compile(r"(?P<package>package-\d+)-die-\d+\Z")
RESOLUTION_J = 61e-6  # 2^-14 J, the usual energy status unit


class RaplZone(NamedTuple):
    """One powercap zone: its folder, its domain, and the joules at which it wraps."""

    path: Path
    name: str
    wrap_j: float | None

    def joules(self) -> float:
        """Return the value of the counter.

        Retries an empty file: a test's stand-in may be writing it; the kernel has none.
        """
        for _ in range(5):
            text = (self.path / "energy_uj").read_text(errors="replace").strip()
            if text.isascii() and text.isdigit():
                return int(text) / 1e6
            time.sleep(0.0005)
        raise OSError(f"{self.path / 'energy_uj'} holds no number")


def open_rapl(sysfs: Path) -> list[Counter | LeftOut]:
    """Open packages and memory as one counter, psys as another; a LeftOut for the rest."""
    root = sysfs / "class/powercap"
    paths = _zone_paths(root)
    if not paths:
        return [_missing("rapl", f"no RAPL counter: {_why_no_zone(root)}")]
    zones, left_out = list[RaplZone](), list[LeftOut]()
    for path in paths:
        zone = _open_zone(path)
        (left_out if isinstance(zone, LeftOut) else zones).append(zone)  # type: ignore[arg-type]
    counted, parts = _classify(zones)
    left_out = [_without_counted(x, counted) for x in left_out]
    return [*_counters(counted, left_out), *_psys(zones), *left_out, *parts]


def _missing(name: str, reason: str) -> LeftOut:
    return LeftOut(name=name, reason=reason, scope="processor", missing=True)


def _why_no_zone(root: Path) -> str:
    try:
        os.listdir(root)
    except OSError as error:
        if dangling(root) or not isinstance(error, FileNotFoundError):
            return reason_of(error)
    return f"{root} holds no intel-rapl zone"


def _without_counted(zone: LeftOut, counted: list[RaplZone]) -> LeftOut:
    """Return a refused zone, not missing if another zone shows the same package."""
    again = any(zone.name == f"rapl {z.name}" and z.name.startswith("package") for z in counted)
    return msgspec.structs.replace(zone, missing=zone.missing and not again)


def _zone_paths(root: Path) -> list[Path]:
    """Return each zone once, whether it is listed flat, as the kernel does, or in its parent."""
    by_name = {
        p.name: p for depth in ("*/*/", "*/", "") for p in root.glob(depth + "intel-rapl*:*")
    }
    return [by_name[name] for name in sorted(by_name) if _ZONE.match(name)]


def _open_zone(path: Path) -> RaplZone | LeftOut:
    """Open a zone and read it once; a LeftOut if it cannot be read."""
    name = path.name
    try:
        name = " ".join((path / "name").read_text(errors="replace").split()) or name
        zone = RaplZone(path, name, _range(path / "max_energy_range_uj"))
        zone.joules()
    except (OSError, ValueError) as error:
        reason = (
            powercap_remedy(path)
            if isinstance(error, PermissionError)
            else f"it cannot be read: {reason_of(error)}"
        )
        return LeftOut(
            name=f"rapl {name}",
            reason=reason,
            scope="processor",
            missing=_is_part_of_total(path.name, name),
        )
    return zone


def _is_part_of_total(folder: str, name: str) -> bool:
    """Return whether a readable zone would be part of the total."""
    top = folder.count(":") == 1
    return name != "psys" and "mmio" not in folder and (top or name in ("dram", folder))


def _range(path: Path) -> float | None:
    """Return the joules at which a counter wraps; None if the kernel does not say."""
    try:
        range_uj = int(path.read_text())
    except (OSError, ValueError):
        return None
    return range_uj / 1e6 if range_uj > 0 else None


def _classify(zones: list[RaplZone]) -> tuple[list[RaplZone], list[LeftOut]]:
    """Return the zones that make up the total, and the others with a reason."""
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
    """Return why a zone is not added to those already counted; None if it is."""
    match = _ZONE.match(zone.path.name)
    if match is None or zone.name == "psys":
        return "the whole platform"
    if match["sub"]:
        return None if zone.name == "dram" else "part of its package, never added to it"
    if not zone.name.startswith("package"):
        return "neither a package nor its memory"
    if match["mmio"] and any(z.name == zone.name for z in counted):
        return "the same package again, through memory-mapped registers"
    twin = next((z.name for z in counted if _repeats(zone, z)), None)
    return (
        twin and f"shows the same number as {twin}: one counter of the socket, seen from each die"
    )


def _repeats(zone: RaplZone, other: RaplZone) -> bool:
    """Return whether two dies of one package show the same counter.

    That is, if one value lies between two readings of the other.
    """
    a, b = _DIE.match(zone.name), _DIE.match(other.name)
    if not a or not b or a["package"] != b["package"]:
        return False
    first, between, last = other.joules(), zone.joules(), other.joules()
    return 0 < first <= between <= last


def _counters(zones: list[RaplZone], left_out: list[LeftOut]) -> Iterator[Counter | LeftOut]:
    if any(z.name.startswith("package") for z in zones):
        yield _counter("rapl", "processor", zones, _domains(zones))
        return
    if not any(x.missing for x in left_out):
        why = "; ".join(f"{x.name}: {x.reason}" for x in left_out)
        yield _missing("rapl", f"RAPL is there, but has no package zone{why and f' ({why})'}")
    for zone in zones:
        yield LeftOut(
            name=f"rapl {zone.name}", reason="no package can be read beside it", scope="processor"
        )


def _psys(zones: list[RaplZone]) -> Iterator[Counter | LeftOut]:
    psys = [z for z in zones if z.name == "psys"][:1]
    if psys:
        yield _counter("rapl-psys", "platform", psys, ["psys"])


def _counter(name: str, scope: str, zones: list[RaplZone], domains: list[str]) -> Counter | LeftOut:
    def raw() -> list[float]:
        return [z.joules() for z in zones]

    try:
        return CumulativeCounter(name, scope, domains, raw, RESOLUTION_J, [z.wrap_j for z in zones])
    except OSError as error:  # it could be read a moment ago
        return unreadable(name, scope, error)


def _domains(zones: list[RaplZone]) -> list[str]:
    """Return the names of the zones, each once.

    Memory of several packages gets the package's number, other zones of one name their folder's.
    """
    several = sum(z.name == "dram" for z in zones) > 1
    packages = {z.path.name: z.name.removeprefix("package-") for z in zones if z.name != "dram"}

    def name(zone: RaplZone) -> str:
        parent = zone.path.name.rpartition(":")[0]
        return (
            f"dram-{packages.get(parent, parent)}" if several and zone.name == "dram" else zone.name
        )

    names = [name(z) for z in zones]
    return [
        n if names.count(n) == 1 else f"{n} ({z.path.name})"
        for n, z in zip(names, zones, strict=True)
    ]
