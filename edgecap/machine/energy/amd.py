"""AMD boards through amdsmi, part of ROCm: energy count x counter resolution, in microjoules.

On some boards the count is wrong (ROCm/amdsmi issue 38). So it is compared with the board's own
power for a moment; if they differ by more than a quarter, the power is sampled instead.
`amdsmi_get_energy_count` named its first field "power" before 6.2.1, "energy_accumulator" since.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgecap.machine.energy.failures import one_line, reason_of
from edgecap.machine.energy.sampled import SampledCounter
from edgecap.machine.energy.tally import CumulativeCounter
from edgecap.protocols import Counter
from edgecap.record import LeftOut

PERIOD_S, CHECK_S, AGREE = 0.1, 0.5, 0.25


def open_amd(
    environ: Mapping[str, str],
    devices: Sequence[int] = (0,),
    load: Callable[[], Any] | None = None,
    clock: tuple[Callable[[], float], Callable[[float], None]] = (time.monotonic, time.sleep),
) -> list[Counter | LeftOut]:
    """Open a counter for each board that a run on HIP's `devices` uses; a LeftOut for the others.

    `load` imports amdsmi, `clock` has functions for now and sleep, in seconds.
    """
    try:
        smi = (load or _load)()
        smi.amdsmi_init()
        found = list(smi.amdsmi_get_processor_handles())
    except Exception as error:
        return [_missing("amdsmi", f"amdsmi cannot be used: {reason_of(error)}")]
    handles, lost = _by_number(smi, found)
    visible = _visible(environ, sorted(handles))
    used = [visible[d] for d in devices if d < len(visible)]
    if len(used) < len(devices):
        return [_missing("amdsmi", f"HIP device {max(devices)} is not visible")]
    opened = [_open_board(smi, n, handles[n], clock) for n in used]
    return [*opened, *(_unused(n) for n in sorted(handles) if n not in used), *lost]


def _load() -> Any:
    return importlib.import_module("amdsmi")


def _missing(name: str, reason: str) -> LeftOut:
    return LeftOut(name=name, reason=reason, scope="amd", missing=True)


def _unused(number: int) -> LeftOut:
    return LeftOut(
        name=f"amdsmi gpu-{number}", reason="the run does not use this board", scope="amd"
    )


def _by_number(smi: Any, found: Sequence[Any]) -> tuple[dict[int, Any], list[LeftOut]]:
    """Return boards by HIP's number, and those that have none beside others that have.

    The number is amdsmi's index if amdsmi is too old to report HIP's.
    """
    numbers = [_hip_number(smi, h) for h in found]
    if all(n is None for n in numbers):
        return dict(enumerate(found)), []
    lost = [
        LeftOut(name=f"amdsmi board {i}", reason="it does not tell its HIP number", scope="amd")
        for i, n in enumerate(numbers)
        if n is None
    ]
    return {n: h for n, h in zip(numbers, found, strict=True) if n is not None}, lost


def _hip_number(smi: Any, handle: Any) -> int | None:
    try:
        return int(smi.amdsmi_get_gpu_enumeration_info(handle)["hip_id"])
    except Exception:
        return None


def _visible(environ: Mapping[str, str], numbers: list[int]) -> list[int]:
    listed = environ.get("HIP_VISIBLE_DEVICES") or environ.get("ROCR_VISIBLE_DEVICES")
    if not listed:
        return numbers
    return [int(e) for e in listed.split(",") if e.strip().isdigit() and int(e) in numbers]


def _open_board(smi: Any, number: int, handle: Any, clock: Any) -> Counter | LeftOut:
    name, domain = "amdsmi", f"gpu-{number}"

    def joules() -> tuple[float]:
        reading = smi.amdsmi_get_energy_count(handle)
        field = "energy_accumulator" if "energy_accumulator" in reading else "power"
        return (reading[field] * reading["counter_resolution"] / 1e6,)

    def watts() -> tuple[float]:
        return (_watts(smi.amdsmi_get_power_info(handle)),)

    try:
        if _agree(joules, watts, clock):
            return CumulativeCounter(
                name, "amd", [domain], joules, resolution_j=_resolution(smi, handle)
            )
    except Exception:  # the board does not count energy, but may report its power
        pass
    try:
        watts()
    except Exception as error:
        return _missing(
            f"{name} {domain}", f"it reports neither energy nor power: {one_line(error)}"
        )
    return SampledCounter(name, "amd", [domain], watts, PERIOD_S, resolution_w=1.0)


def _watts(info: Mapping[str, Any]) -> float:
    """Return the watts of the socket from the first of three fields that holds a number.

    Raises OSError if none does.
    """
    fields = ("current_socket_power", "socket_power", "average_socket_power")
    values = [info[f] for f in fields if isinstance(info.get(f), int | float)]
    if not values:
        raise OSError(f"no power among {dict(info)}")
    return float(values[0])


def _agree(
    joules: Callable[[], tuple[float]], watts: Callable[[], tuple[float]], clock: Any
) -> bool:
    """Return whether the energy count agrees with the board's power over `CHECK_S` seconds."""
    now, sleep = clock
    try:
        before, began, first = joules()[0], now(), watts()[0]
    except OSError:
        return True  # no power to compare with
    sleep(CHECK_S)
    counted = (joules()[0] - before) / (now() - began)
    reported = (first + watts()[0]) / 2
    return bool(abs(counted - reported) <= AGREE * max(counted, reported))


def _resolution(smi: Any, handle: Any) -> float:
    return float(smi.amdsmi_get_energy_count(handle)["counter_resolution"]) / 1e6
