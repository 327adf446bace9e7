"""RAPL through Linux's powercap: packages and their memory, Intel and AMD.

    /sys/class/powercap/intel-rapl:0        name package-0   counted
    /sys/class/powercap/intel-rapl:0:0      name core        part of its package, never added
    /sys/class/powercap/intel-rapl:0:1      name dram        counted: beside its package, not in it
    /sys/class/powercap/intel-rapl:1        name psys        the whole platform, never added
    /sys/class/powercap/intel-rapl-mmio:0   a mirror of package-0, dropped

`energy_uj` counts microjoules and wraps at `max_energy_range_uj`.
Source: Documentation/power/powercap/powercap.rst of the Linux kernel.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgecap.record import Absent

_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?\Z")


class RaplZone:
    """One zone: joules since it was opened, wrap-around taken out."""

    def __init__(self, path: Path) -> None:
        self._file = path / "energy_uj"
        self.name = (path / "name").read_text().strip()
        self._range = int((path / "max_energy_range_uj").read_text())
        self._last, self._total = self._raw(), 0

    def _raw(self) -> int:
        return int(self._file.read_text())

    def read(self) -> float:
        """Joules; read it more often than the counter wraps (a minute at full power)."""
        now = self._raw()
        step = now - self._last
        self._total += step if step >= 0 else step + self._range
        self._last = now
        return self._total / 1e6


class Rapl:
    """The packages and memories of a machine as one counter; see `seams.Counter`."""

    name = "rapl"
    provenance = "counter"
    resolution_j = 61e-6  # 2^-14 J, the usual energy status unit

    def __init__(self, zones: list[RaplZone]) -> None:
        self._zones = zones
        self.domains = tuple(z.name for z in zones)

    def read(self) -> float:
        """Joules over all zones. Raises OSError if a zone can no longer be read."""
        try:
            return sum(z.read() for z in self._zones)
        except ValueError as error:
            raise OSError(f"a RAPL counter holds no number: {error}") from error


def open_rapl(sysfs: Path) -> Rapl | Absent:
    """The counted zones, or the reason why there are none."""
    root = sysfs / "class/powercap"
    paths = sorted(p for p in root.glob("intel-rapl:*") if _ZONE.match(p.name)) if root.is_dir() else []
    if not paths:
        return Absent(reason=f"no RAPL counter: {root} holds no intel-rapl zone")
    try:
        counted = [p for p in paths if _is_counted((p / "name").read_text().strip(), p.name.count(":"))]
        zones = [RaplZone(p) for p in counted]
    except PermissionError as error:
        remedy = "let your user read it: sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj"
        return Absent(reason=f"RAPL is there, but {error.filename} is not readable by this user; {remedy}")
    except (OSError, ValueError) as error:
        return Absent(reason=f"RAPL is there, but cannot be read: {error}")
    if not any(z.name.startswith("package") for z in zones):
        return Absent(reason="RAPL is there, but has no package zone")
    return Rapl(zones)


def _is_counted(name: str, depth: int) -> bool:
    return name.startswith("package") if depth == 1 else name == "dram"
