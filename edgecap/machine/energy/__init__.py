"""Energy counters, one file per kind, each behind the Counter protocol; and the choice among them.

rapl      Intel and AMD packages and memory, through powercap       processor
emi       the same on Windows                                       processor
nvml      NVIDIA boards                                             nvidia
amd       AMD boards                                                amd
apple     Apple Silicon                                             board
rails     INA monitors (Jetson) and the Raspberry Pi 5's PMIC       board
battery   discharge of a battery                                    machine
meter/    the file of a wall meter                                  machine
assumed   constant watts given by the user

The right column is the scope: what a counter's domains are part of. `find_counters` opens all that
exist, `resolve` chooses those that make up the total and gives a reason for each of the others.
`tally` and `sampled` turn raw readings and watts into joules that never fall, `joined` combines
counters, `permission` has the commands that make counters readable, `failures` keeps one that
cannot be read away from the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgecap.machine.energy.amd import open_amd
from edgecap.machine.energy.apple import open_apple
from edgecap.machine.energy.battery import open_battery
from edgecap.machine.energy.emi import open_emi
from edgecap.machine.energy.failures import contained, reason_of
from edgecap.machine.energy.meter import WallMeter
from edgecap.machine.energy.nvml import open_nvml
from edgecap.machine.energy.rails import open_pmic, open_rails
from edgecap.machine.energy.rapl import open_rapl
from edgecap.machine.energy.resolver import Resolution, providers_of_scope, resolve
from edgecap.protocols import Counter, EnergySource
from edgecap.record import LeftOut

__all__ = ["Resolution", "providers_of_scope", "find_counters", "resolve"]

# Name, scope, and the function that opens the counters of one kind.
_Opener = tuple[str, str, Callable[[], list[Counter | LeftOut]]]


def find_counters(
    sysfs: Path,
    environ: Mapping[str, str] = os.environ,
    meter: Path | None = None,
    meter_offset_s: float | None = None,
    devices: Sequence[int] = (0,),
    uuids: Sequence[str] | None = None,
) -> list[EnergySource | LeftOut]:
    """Open every energy counter of this machine; a LeftOut stands for one that cannot be read.

    `meter` is a wall meter's CSV file, `meter_offset_s` its clock minus ours (None: derived from
    steps of load). `devices` are the GPUs of the run as its runtime numbers them, `uuids` those
    behind CUDA's numbers, if it was asked.
    """
    sources: list[EnergySource | LeftOut] = []
    for name, scope, open_counters in _openers(sysfs, environ, devices, uuids):
        sources += contained(name, scope, open_counters)
    if meter is not None:
        sources.append(_open_meter(meter, meter_offset_s))
    return sources


def _openers(
    sysfs: Path, environ: Mapping[str, str], devices: Sequence[int], uuids: Sequence[str] | None
) -> list[_Opener]:
    """Return what opens counters on this system; a moved sysfs means Linux."""
    boards: list[_Opener] = [("nvml", "nvidia", lambda: open_nvml(environ, devices, uuids=uuids))]
    if sys.platform == "win32":
        return [("emi", "processor", open_emi), *boards]
    if sys.platform == "darwin" and sysfs == Path("/sys"):
        return [("apple", "board", open_apple)]
    if os.path.isdir(sysfs / "class/kfd"):
        boards.append(("amdsmi", "amd", lambda: open_amd(environ, devices)))
    return [
        ("rapl", "processor", lambda: open_rapl(sysfs)),
        *boards,
        ("rails", "board", lambda: open_rails(sysfs)),
        ("pmic", "board", open_pmic),
        ("battery", "machine", lambda: open_battery(sysfs)),
    ]


def _open_meter(path: Path, offset_s: float | None) -> EnergySource | LeftOut:
    try:
        return WallMeter(path, offset_s)
    except Exception as error:
        return LeftOut(name="meter", reason=reason_of(error), scope="machine", missing=True)
