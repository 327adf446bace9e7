"""Power rails of boards: INA monitors through hwmon, and the Raspberry Pi 5's PMIC.

    hwmon N/name                 ina3221, ina238, ina228, ... (Jetson modules and carrier boards)
    in1_label                    the rail; VDD_IN supplies the whole module
    in1_input mV x curr1_input mA, power1_input µW                          sampled
    energy1_input µJ             if the chip counts (ina228, sq52206)       counter

A board's total is one rail that supplies the others, or several rails known to be disjoint
(`TOTALS`); rails that they contain are never added. If neither is known, no rail is counted.
Sources: Documentation/hwmon/{sysfs-interface,ina2xx,ina3221,ina238}.rst of the Linux kernel; NVIDIA
Jetson Linux developer guide, software-based power consumption modeling; Raspberry Pi documentation,
vcgencmd pmic_read_adc.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edgecap.machine.energy.failures import dangling, reason_of, unreadable
from edgecap.machine.energy.sampled import SampledCounter
from edgecap.machine.energy.tally import CumulativeCounter
from edgecap.protocols import Counter
from edgecap.record import LeftOut

PERIOD_S, PMIC_PERIOD_S = 0.05, 0.2
_CHIP = re.compile(r"(ina\d|sq52206)")
# The rails that make up a board's total; the first complete set is used.
TOTALS = (
    ("VDD_IN",),  # Jetson Orin NX and Nano, Xavier NX, TX2: the module
    ("VIN",),  # Jetson Thor's carrier board
    ("POM_5V_IN",),  # Jetson Nano
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # Jetson AGX Orin
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),  # Jetson AGX Thor, the module alone
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # Jetson AGX Xavier
)
_UNLABELLED = {("Thor", "ina238"): "VIN"}  # jetson_stats pull request 900


class Rail(NamedTuple):
    """One rail: its name, and functions that read watts and, if the chip counts, joules."""

    name: str
    watts: Callable[[], float]
    joules: Callable[[], float] | None
    period_s: float


def open_rails(sysfs: Path) -> list[Counter | LeftOut]:
    """Open the board's total as one counter; a LeftOut for other rails, [] without a monitor.

    Each rail is read once; those that cannot be read are in no total.
    """
    rails, failed = dict[str, Rail](), list[LeftOut]()
    for rail in _rails(sysfs):
        tried = rail if isinstance(rail, LeftOut) else _try_rail(rail)
        if isinstance(tried, LeftOut):
            failed.append(tried)
        else:
            rails[tried.name] = tried
    return [*_board(rails), *failed]


def _board(rails: dict[str, Rail]) -> list[Counter | LeftOut]:
    total = next((t for t in TOTALS if set(t) <= set(rails)), None)
    if not rails:
        return []
    if total is None:
        reason = "which of these rails contain others is not known: none is counted"
        return [
            LeftOut(name="rails " + ", ".join(rails), reason=reason, scope="board", missing=True)
        ]
    inside = f"part of, or fed from, {' + '.join(total)}"
    others = [
        LeftOut(name=f"rails {n}", reason=inside, scope="board") for n in rails if n not in total
    ]
    return [_counter([rails[n] for n in total]), *others]


def _try_rail(rail: Rail) -> Rail | LeftOut:
    """Read a rail once; return it without its count if only its watts can be read."""
    try:
        if rail.joules is not None:
            rail.joules()
            return rail
    except OSError:
        rail = rail._replace(joules=None)
    try:
        rail.watts()
    except OSError as error:
        return unreadable(f"rails {rail.name}", "board", error)
    return rail


def _counter(rails: list[Rail]) -> Counter:
    names, joules = [r.name for r in rails], [r.joules for r in rails]
    counts = [j for j in joules if j is not None]
    if len(counts) == len(rails):
        return CumulativeCounter(
            "rails", "board", names, lambda: [j() for j in counts], resolution_j=1e-3
        )
    period = max(r.period_s for r in rails)
    return SampledCounter("rails", "board", names, lambda: [r.watts() for r in rails], period)


def _rails(sysfs: Path) -> Iterator[Rail | LeftOut]:
    model = _text(sysfs / "firmware/devicetree/base/model")
    chips = sorted((sysfs / "class/hwmon").glob("hwmon*"))
    older = sysfs / "bus/i2c/drivers/ina3221x"  # Jetson Linux before 5
    lost = [why for p in (*chips, *sorted(older.glob("*"))) if (why := dangling(p))]
    if lost:
        more = f" ({len(lost)} such links)" if lost[1:] else ""
        yield LeftOut(name="rails", reason=f"{lost[0]}{more}", scope="board", missing=True)
    for chip in chips:
        if _CHIP.match(_text(chip / "name")):
            yield from _chip_rails(chip, model)
    for label in sorted(older.glob("*/iio:device*/rail_name_*")):
        number = label.name.removeprefix("rail_name_")
        yield Rail(
            _text(label),
            partial(_number, label.with_name(f"in_power{number}_input"), 1e-3),
            None,
            PERIOD_S,
        )


def _chip_rails(chip: Path, model: str) -> Iterator[Rail]:
    period = max(PERIOD_S, _interval(chip))
    for number in (1, 2, 3):  # further inputs are shunts and their sum
        watts = _watts(chip, number)
        name = _rail_name(chip, number, model)
        if watts is not None and "NC" not in name.split("_"):  # not connected
            energy = chip / f"energy{number}_input"
            joules = partial(_number, energy, 1e-6) if os.path.exists(energy) else None
            yield Rail(name, watts, joules, period)


def _interval(chip: Path) -> float:
    try:
        return _number(chip / "update_interval", 1e-3)
    except OSError:
        return 0.0


def _rail_name(chip: Path, number: int, model: str) -> str:
    kind = _text(chip / "name")
    known = next((n for (board, c), n in _UNLABELLED.items() if board in model and c == kind), "")
    labels = (
        _text(chip / f"in{number}_label"),
        _text(chip / f"power{number}_label"),
        _text(chip / "label"),
    )
    return next(
        (label for label in labels if label),
        known or f"{kind}-{chip.name.removeprefix('hwmon')}-{number}",
    )


def _watts(chip: Path, number: int) -> Callable[[], float] | None:
    power, volts, amperes = (chip / f"{q}{number}_input" for q in ("power", "in", "curr"))
    if os.path.exists(power):
        return partial(_number, power, 1e-6)
    if os.path.exists(volts) and os.path.exists(amperes):
        return lambda: _number(volts, 1e-3) * _number(amperes, 1e-3)
    return None


def _number(path: Path, unit: float) -> float:
    try:
        return int(path.read_text()) * unit
    except ValueError as error:
        raise OSError(f"{path} holds no number") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


# --- Raspberry Pi 5 ---------------------------------------------------------------------------

_ADC = re.compile(r"^\s*(\w+)_([AV])\s+\w+\(\d+\)=([-\d.]+)[AV]\s*$", re.MULTILINE)


def pmic_watts(output: str) -> dict[str, float]:
    """Parse watts by rail from the output of `vcgencmd pmic_read_adc`.

    Rails without a current are skipped.
    """
    readings: dict[tuple[str, str], float] = {
        (m[1], m[2]): float(m[3]) for m in _ADC.finditer(output)
    }
    return {
        n: a * readings[n, "V"]
        for (n, kind), a in readings.items()
        if kind == "A" and (n, "V") in readings
    }


def open_pmic(query: Callable[[], str] | None = None) -> list[Counter | LeftOut]:
    """Open the sum of the PMIC's rails; [] without vcgencmd, which only Raspberry Pis have.

    `query` returns the output of `vcgencmd pmic_read_adc`.
    """
    query = query or _vcgencmd
    try:
        rails = sorted(pmic_watts(query()))
    except FileNotFoundError:
        return []
    except (OSError, subprocess.SubprocessError) as error:
        return [
            LeftOut(
                name="pmic",
                reason=f"vcgencmd pmic_read_adc failed: {reason_of(error)}",
                scope="board",
                missing=True,
            )
        ]
    if not rails:
        reason = "this board's PMIC reports no currents (Raspberry Pi 5 and newer do)"
        return [LeftOut(name="pmic", reason=reason, scope="board", missing=True)]

    def watts() -> list[float]:
        watts_by_rail = pmic_watts(query())
        return [sum(watts_by_rail[r] for r in rails)]

    return [
        SampledCounter("pmic", "board", ["pmic"], watts, PMIC_PERIOD_S, extra_cpu_s=_children_s)
    ]


def _vcgencmd() -> str:
    done = subprocess.run(
        ["vcgencmd", "pmic_read_adc"], capture_output=True, text=True, timeout=5, check=True
    )
    return done.stdout


def _children_s() -> float:
    """Return the CPU seconds of child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system
