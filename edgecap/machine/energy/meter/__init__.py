"""Read the file of a wall meter, and join it to windows by time.

rows      joules and watts by time
table     header and rows of a text file, and its times
columns   names of columns, and their units
cells     numbers, gaps, dates and times

The meter has its own clock. Its offset is given, or derived from steps of load that are run for
this purpose: the offset at which the known load correlates best with the watts. A file that is
still being written is read again until it covers the requested time.
"""

from __future__ import annotations

import bisect
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edgecap.machine.energy.meter.rows import MeterRows, parse_meter_rows, read_meter_file
from edgecap.protocols import Trace
from edgecap.record import Energy, Window

__all__ = ["MeterRows", "WallMeter", "parse_meter_rows", "read_meter_file"]

PATIENCE_S = 30.0  # time for which a file that is being written may lag
SEARCH_S, CORRELATED = 120.0, 0.7
MIN_STEPS = 5  # steps of the meter's energy in a window
IDLE_S = 30.0  # the longest window of an idle machine, which holds the fewest steps


def joules_between(rows: MeterRows, began: float, ended: float) -> float:
    """Return the joules between two moments of the meter's clock.

    Raises OSError if the rows do not cover them, if watts have a gap between them or energy at one
    of them, or if energy moves in steps too coarse for them.
    """
    if not rows.times or not rows.times[0] <= began <= ended <= rows.times[-1]:
        covered = f"{rows.times[0]:.1f} to {rows.times[-1]:.1f}" if rows.times else "nothing"
        raise OSError(
            f"the meter's file covers {covered}, not {began:.1f} to {ended:.1f} "
            "(seconds since 1970)"
        )
    _check_gaps(rows, began, ended)
    joules = _joules_until(rows, ended) - _joules_until(rows, began)
    if rows.step_s and joules < MIN_STEPS * rows.step_j:
        raise OSError(f"{_steps(rows)}: {ended - began:.0f} s hold less than {MIN_STEPS} of them")
    return joules


def _check_gaps(rows: MeterRows, began: float, ended: float) -> None:
    for first, last in rows.gaps:
        inside = [m for m in (began, ended) if first < m < last]
        if inside or not rows.counted and began < last and first < ended:
            raise OSError(
                f"the meter's file has no value of '{rows.column}' for {last - first:.1f} s "
                f"from {first:.1f} (seconds since 1970)"
            )


def _steps(rows: MeterRows) -> str:
    return f"'{rows.column}' of the meter moves in steps of {rows.step_j:g} J"


def too_coarse(rows: MeterRows) -> str | None:
    """Return why windows cannot be read from these rows: steps or periods that take too long."""
    if rows.step_s * MIN_STEPS > IDLE_S:
        return f"{_steps(rows)}, each of {rows.step_s:.0f} s or more; write watts, or more digits"
    if period_of(rows) > IDLE_S and not rows.held:
        return f"its rows come every {period_of(rows):.0f} s: write one each second"
    return None


def _joules_until(rows: MeterRows, moment: float) -> float:
    """Return the joules up to a moment; power is linear between rows, energy its trapezoid."""
    i = min(max(bisect.bisect_right(rows.times, moment) - 1, 0), len(rows.times) - 2)
    span, part = rows.times[i + 1] - rows.times[i], moment - rows.times[i]
    total = rows.joules[i + 1] - rows.joules[i]
    first, last = rows.watts[i], rows.watts[i + 1]
    if math.isclose(total, (first + last) / 2 * span):
        return rows.joules[i] + first * part + (last - first) / 2 * part * part / span
    return rows.joules[i] + total * part / span


def find_offset(
    rows: MeterRows, steps: Sequence[tuple[float, float]], search_s: float = SEARCH_S
) -> tuple[float, float]:
    """Return the offset in seconds at which load `steps` best fit the watts, and the correlation.

    The offset is the meter's clock minus ours. `steps` are begin and end of load on our clock. The
    on-off pattern is compared with the watts at every offset within `search_s`, in steps of a tenth
    of the meter's period.
    """
    import numpy as np

    grid = statistics.median(np.diff(rows.times)) / 10
    lead = 2 * (steps[0][1] - steps[0][0])
    ours = np.arange(steps[0][0] - lead, steps[-1][1] + lead, grid)
    on = sum(((ours >= a) & (ours < b)).astype(np.float64) for a, b in steps)
    offsets = np.arange(-search_s, search_s + grid, grid)
    fits = [_correlation(np.interp(ours + o, rows.times, rows.watts), on) for o in offsets]
    best = float(max(fits))
    ties = [float(o) for o, f in zip(offsets, fits, strict=True) if f >= best - 1e-9]
    return statistics.median(ties), best


def _correlation(a: object, b: object) -> float:
    import numpy as np

    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / size if size else 0.0


def period_of(rows: MeterRows) -> float:
    """Return the median seconds between rows; there must be two."""
    return statistics.median(b - a for a, b in zip(rows.times, rows.times[1:], strict=False))


class WallMeter:
    """A meter's file as a trace; implements `protocols.Trace`.

    `offset_s` is the meter's clock minus ours, None if unknown.
    """

    name = "meter"
    domains: tuple[str, ...] = ("wall",)
    scope = "machine"
    provenance = "sampled"

    def __init__(
        self,
        path: Path,
        offset_s: float | None = 0.0,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path, self._now, self._sleep = path, now, sleep
        self.offset_s, self.aligned = offset_s or 0.0, offset_s is not None
        self._last = rows = self._rows()
        coarse = too_coarse(rows)
        if coarse:
            raise OSError(f"{path}: {coarse}")
        self.period_s, self.resolution_j = max(period_of(rows), rows.step_s), rows.step_j

    def _rows(self) -> MeterRows:
        try:
            rows = read_meter_file(self._path)
        except ValueError as error:
            raise OSError(f"{self._path}: {error}") from error
        if len(rows.times) < 2:
            raise OSError(
                f"{self._path} has fewer than two rows yet: start the meter before the measurement"
            )
        return rows

    def mark(self) -> float:
        """Return the seconds since 1970."""
        return self._now()

    def between(self, began: float, ended: float) -> tuple[float, ...]:
        """Return the joules between two marks; wait for a file that is still being written."""
        rows = self._read_until(ended + self.offset_s)
        return (joules_between(rows, began + self.offset_s, ended + self.offset_s),)

    def _read_until(self, moment: float) -> MeterRows:
        """Return the rows up to a moment; read the file again only if it is later than they are."""
        until = self._now() + PATIENCE_S
        if self._last.times[-1] < moment:
            self._last = self._rows()
        while self._last.times[-1] < moment and self._now() < until:
            self._sleep(min(1.0, self.period_s))
            self._last = self._rows()
        return self._last

    def align(self, steps: Sequence[tuple[float, float]]) -> None:
        """Derive the offset from known steps of load.

        Raises OSError if they do not show in the watts.
        """
        self._last = self._rows()  # its clock may be ahead: rows of before can look late enough
        rows = self._read_until(steps[-1][1])
        self.offset_s, fit = find_offset(rows, steps)
        if fit < CORRELATED:
            raise OSError(
                f"the steps of load do not show in {self._path} (correlation {fit:.2f}): "
                "check that the meter measures this machine"
            )
        self.aligned = True

    def close(self) -> None:
        """Do nothing."""


def add_trace_to_windows(energy: Energy, trace: Trace) -> Energy:
    """Add a trace's joules beside each window of a measured energy.

    Raises OSError if the trace does not cover a window.
    """

    def with_trace(window: Window) -> Window:
        if window.began_s is None:
            raise OSError("the record does not say when its windows began")
        joules = trace.between(window.began_s, window.began_s + window.seconds)
        return msgspec.structs.replace(
            window, beside=window.beside | dict(zip(trace.domains, joules, strict=True))
        )

    phases = {
        name: tuple(with_trace(w) for w in getattr(energy, name))
        for name in ("prefill", "decode", "nll")
    }
    return msgspec.structs.replace(energy, **phases)
