"""The discharge of a battery, through sysfs: the whole machine while it runs on battery.

    energy_now   µWh                            counter: 3600e-6 J per unit that it falls
    charge_now   µAh   x voltage_now µV         counter, at the voltage of each reading
    power_now    µW, or current_now x voltage   sampled, if neither of the others exists

Firmware updates these every few seconds or faster; the tick is measured. On mains the battery shows
nothing of the machine's consumption: it is refused, also during a run. psutil has percent and
seconds, but no joules.
Source: Documentation/ABI/testing/sysfs-class-power of the Linux kernel.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edgecap.machine.energy.failures import dangling, reason_of
from edgecap.machine.energy.sampled import SampledCounter
from edgecap.machine.energy.tally import CumulativeCounter
from edgecap.protocols import Counter
from edgecap.record import LeftOut

PERIOD_S, SLACK_J = 1.0, 50_000.0  # a slow battery renews its energy once a minute
JITTER_J = 100.0  # its gauge may step back by a hundredth of a watt-hour or two
_MAINS = "on mains: a battery that is not discharging does not show what the machine draws"


def open_battery(sysfs: Path) -> list[Counter | LeftOut]:
    """Open all batteries as one counter; a LeftOut if they cannot be used, [] without a battery."""
    root = sysfs / "class/power_supply"
    supplies = sorted(root.glob("*"))
    lost = [why for p in supplies if (why := dangling(p))]
    if lost:  # it may be the second battery
        return [_left_out(lost[0])]
    batteries = [p for p in supplies if _is_battery(p)]
    if not batteries:
        return []
    try:
        for battery in batteries:
            (battery / "status").read_text(errors="replace")
    except OSError as error:
        return [_left_out(f"it cannot be read: {reason_of(error)}")]
    if not discharging(root, batteries):
        return [_left_out(f"{_MAINS}; unplug it to measure")]
    return [_open_any(root, batteries)]


def _is_battery(supply: Path) -> bool:
    """Return whether a supply is a battery of the machine that is in its bay."""
    return (
        _text(supply / "type") == "Battery"
        and _text(supply / "scope") != "Device"
        and _text(supply / "present") != "0"
    )


def _open_any(root: Path, batteries: list[Path]) -> Counter | LeftOut:
    """Open the first kind of reading that all batteries answer."""
    reason = f"{batteries[0].name} has neither energy_now, charge_now nor power_now"
    for kind, needs in _KINDS.items():
        if all(os.path.exists(b / n) for b in batteries for n in needs):
            try:
                return _open(kind, root, batteries)
            except OSError as error:
                reason = f"it cannot be read: {reason_of(error)}"
    return _left_out(reason)


def _left_out(reason: str) -> LeftOut:
    return LeftOut(name="battery", reason=reason, scope="machine")


def discharging(root: Path, batteries: list[Path]) -> bool:
    """Return whether the machine runs on batteries.

    That is: no mains online, at least one battery discharging, none charging.
    """
    supplies = [
        p
        for p in root.glob("*")
        if _text(p / "type") in ("Mains", "USB") and _text(p / "scope") != "Device"
    ]
    states = [_text(b / "status") for b in batteries]
    plugged = any(_text(p / "online") == "1" for p in supplies)
    return not plugged and "Charging" not in states and "Discharging" in states


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _micro(path: Path) -> float:
    """Read a number in millionths, as sysfs stores it."""
    try:
        return int(path.read_text()) / 1e6
    except ValueError as error:
        raise OSError(f"{path} holds no number") from error


def _energy_used(battery: Path) -> float:
    return -3600 * _micro(battery / "energy_now")


def _watts(battery: Path) -> float:
    return abs(_micro(battery / "power_now"))  # negative while discharging, with some drivers


def _volts_x_amperes(battery: Path) -> float:
    return abs(_micro(battery / "current_now")) * _micro(battery / "voltage_now")


class _Charge:
    """Joules used by each battery, from steps of charge at the voltage of each step."""

    def __init__(self) -> None:
        self._last: dict[Path, float] = {}
        self._used: dict[Path, float] = {}

    def __call__(self, battery: Path) -> float:
        charge, volts = _micro(battery / "charge_now"), _micro(battery / "voltage_now")
        step = self._last.get(battery, charge) - charge
        self._last[battery] = charge
        self._used[battery] = self._used.get(battery, 0.0) + 3600 * step * volts
        return self._used[battery]


_KINDS: dict[str, tuple[str, ...]] = {
    "energy": ("energy_now",),
    "charge": ("charge_now", "voltage_now"),
    "power": ("power_now",),
    "current": ("current_now", "voltage_now"),
}


def _open(kind: str, root: Path, batteries: list[Path]) -> Counter:
    reads: dict[str, Callable[[Path], float]] = {
        "energy": _energy_used,
        "charge": _Charge(),
        "power": _watts,
        "current": _volts_x_amperes,
    }

    def values() -> list[float]:
        if not discharging(root, batteries):
            raise OSError(_MAINS)
        return [reads[kind](b) for b in batteries]

    domains = [b.name for b in batteries]
    if kind in ("power", "current"):
        values()
        return SampledCounter("battery", "machine", domains, values, PERIOD_S)
    return CumulativeCounter(
        "battery", "machine", domains, values, 3600e-6, slack_j=SLACK_J, jitter_j=JITTER_J
    )
