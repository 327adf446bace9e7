"""What else went on while seconds were measured: other load, steal, sleep, a clock that was set, frequency, throttling.

A watch is started, looked at once a round, and asked at the end. Owns psutil's times and sysfs's frequencies; what a
system does not tell is None, or no frequencies.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from edgecap.machine.info import sysfs
from edgecap.record import Conditions


class _Now(NamedTuple):
    """CPU seconds of all processors so far: passed, used by anybody, by this process, taken by a hypervisor; clocks; throttling."""

    passed: float
    used: float
    own: float
    stolen: float
    monotonic: float
    asleep: float | None
    wall: float
    throttled: int | None


class NoiseMonitor:
    """From when it is made until `found` is called."""

    def __init__(self) -> None:
        self._began = _now()
        self._frequencies: list[float] = []

    def sample(self) -> None:
        """Reads what changes from round to round."""
        frequency = _frequency()
        if frequency:
            self._frequencies.append(frequency)

    def conditions(self) -> Conditions:
        """What went on meanwhile."""
        a, b = self._began, _now()
        passed = b.passed - a.passed  # stands still where a sandbox shows no times of processors
        slept = b.asleep - a.asleep if a.asleep is not None and b.asleep is not None else None
        return Conditions(
            steal_share=(b.stolen - a.stolen) / passed if passed > 0 else None,
            other_load=max(0.0, (b.used - a.used - (b.own - a.own)) / passed)
            if passed > 0
            else None,
            slept_s=slept,
            clock_step_s=(b.wall - a.wall) - (b.monotonic - a.monotonic) - (slept or 0.0),
            frequencies_hz=tuple(self._frequencies),
            throttle_events=b.throttled - a.throttled
            if a.throttled is not None and b.throttled is not None
            else None,
        )


def _now() -> _Now:
    import psutil

    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    stolen = getattr(times, "steal", 0.0)
    passed = sum(getattr(times, name) for name in times._fields if not name.startswith("guest"))
    monotonic = time.monotonic()
    return _Now(
        passed,
        passed - idle - stolen,
        time.process_time(),
        stolen,
        monotonic,
        _asleep(),
        time.time(),
        _throttled(),
    )


def _asleep() -> float | None:
    """Seconds that the machine was suspended since it was started; Linux only."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return (
        None
        if boot is None
        else time.clock_gettime(boot) - time.clock_gettime(time.CLOCK_MONOTONIC)
    )


def _frequency() -> float | None:
    """Mean frequency of the processors now, Hz."""
    found = _numbers("cpufreq/scaling_cur_freq")
    return 1e3 * statistics.fmean(found) if found else None


def _throttled() -> int | None:
    """How often processors were slowed down because of heat so far; Intel's counters."""
    counts = [
        *_numbers("thermal_throttle/core_throttle_count"),
        *_numbers("thermal_throttle/package_throttle_count"),
    ]
    return sum(counts) if counts else None


def _numbers(name: str) -> list[int]:
    """One number of each processor, of those that tell it."""
    found = []
    for path in Path(sysfs(), "devices/system/cpu").glob(f"cpu[0-9]*/{name}"):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(path.read_text()))
    return found
