"""Record system noise during a benchmark.

Covers other load, steal, suspend, clock steps, frequencies, throttling, and waits for the CPU quota
of a container. Owns psutil's CPU times and sysfs's frequencies. A quantity that the system does not
report is None, or empty.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from edgecap.machine.board_noise import BoardMonitor
from edgecap.machine.container import QuotaWaits, quota_waits
from edgecap.machine.roots import sysfs
from edgecap.record import Conditions


class _Snapshot(NamedTuple):
    """CPU seconds of all processors so far, clocks in seconds, and throttling events.

    `passed` is the total, `used` by any process, `own` by this one, `stolen` by a hypervisor.
    """

    passed: float
    used: float
    own: float
    stolen: float
    monotonic: float
    asleep: float | None
    wall: float
    throttled: int | None
    waits: QuotaWaits | None


class NoiseMonitor:
    """Records noise from its creation until `conditions` is called; `sample` once per round.

    `board` watches the board that runs the model, if it is NVIDIA's.
    """

    def __init__(self, board: BoardMonitor | None = None) -> None:
        self._board, self._began = board, _snapshot()
        self._frequencies: list[float] = []

    def sample(self) -> None:
        """Record the frequency of this round, and the state of the board."""
        if self._board:
            self._board.sample()
        frequency = _frequency()
        if frequency:
            self._frequencies.append(frequency)

    def conditions(self) -> Conditions:
        """Return the noise since this monitor was created."""
        a, b = self._began, _snapshot()
        passed = b.passed - a.passed  # 0 in a sandbox that hides CPU times
        waits = _difference(a.waits, b.waits)
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
            quota_waits=waits and waits.periods,
            quota_wait_s=waits and waits.seconds,
            board=self._board.conditions() if self._board else None,
        )


def _difference(a: QuotaWaits | None, b: QuotaWaits | None) -> QuotaWaits | None:
    return QuotaWaits(b.periods - a.periods, b.seconds - a.seconds) if a and b else None


def _snapshot() -> _Snapshot:
    passed, used, stolen = _processor_times()
    monotonic = time.monotonic()
    return _Snapshot(
        passed,
        used,
        time.process_time(),
        stolen,
        monotonic,
        _asleep(),
        time.time(),
        _throttled(),
        quota_waits(),
    )


def _processor_times() -> tuple[float, float, float]:
    """Return the CPU seconds that passed, were used and were stolen; zeros if they are hidden."""
    import psutil

    try:
        times = psutil.cpu_times()
    except Exception:  # no /proc
        return 0.0, 0.0, 0.0
    idle = times.idle + getattr(times, "iowait", 0.0)
    stolen = getattr(times, "steal", 0.0)
    passed = sum(getattr(times, name) for name in times._fields if not name.startswith("guest"))
    return passed, passed - idle - stolen, stolen


def _asleep() -> float | None:
    """Return the seconds that the machine was suspended since boot; None but on Linux."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return (
        None
        if boot is None
        else time.clock_gettime(boot) - time.clock_gettime(time.CLOCK_MONOTONIC)
    )


def _frequency() -> float | None:
    """Return the mean frequency of the processors now, in Hz."""
    kilohertz = _numbers("cpufreq/scaling_cur_freq")
    return 1e3 * statistics.fmean(kilohertz) if kilohertz else None


def _throttled() -> int | None:
    """Return how often heat has slowed processors down so far, by Intel's counters."""
    counts = [
        *_numbers("thermal_throttle/core_throttle_count"),
        *_numbers("thermal_throttle/package_throttle_count"),
    ]
    return sum(counts) if counts else None


def _numbers(name: str) -> list[int]:
    """Return one number for each processor that reports it."""
    numbers = []
    for path in Path(sysfs(), "devices/system/cpu").glob(f"cpu[0-9]*/{name}"):
        with contextlib.suppress(OSError, ValueError):
            numbers.append(int(path.read_text()))
    return numbers
