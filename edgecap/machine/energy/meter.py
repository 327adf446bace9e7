"""Read a wall meter: a CSV file with timestamps and watts or joules, joined to windows by time.

    time,watts                  time: ISO 8601, or seconds, milliseconds or microseconds since 1970
    2026-11-24T15:00:00Z,41.2   watts are integrated by trapezoid; cumulative energy is used as it
    2026-11-24T15:00:01Z,41.9   is; between rows, values are interpolated linearly

The meter has its own clock. Its offset is given, or derived from steps of load that are run for
this purpose: the offset at which the known load correlates best with the watts. A file that is
still being written is read again until it covers the requested time.
"""

from __future__ import annotations

import bisect
import csv
import math
import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgecap.protocols import Trace
from edgecap.record import Energy, Window

PATIENCE_S = 30.0  # time for which a file that is being written may lag
SEARCH_S, CORRELATED = 120.0, 0.7

_TIME = (
    "time",
    "timestamp",
    "datetime",
    "date_time",
    "date",
    "epoch",
    "unix",
    "time_s",
    "time_ms",
    "ts",
)
# Column names in lower case, letters only -> the unit in watts or in joules.
_WATTS = {
    **dict.fromkeys(
        ("watts", "watt", "w", "power", "powerw", "activepower", "activepowerw", "apower", "p"), 1.0
    ),
    **dict.fromkeys(("mw", "powermw", "milliwatts"), 1e-3),
    **dict.fromkeys(("kw", "powerkw", "kilowatts"), 1e3),
}
_JOULES = {
    **dict.fromkeys(("joules", "joule", "j", "energyj"), 1.0),
    **dict.fromkeys(("wh", "energywh", "watthours"), 3.6e3),
    **dict.fromkeys(("kwh", "energykwh", "kilowatthours"), 3.6e6),
}


class MeterRows(NamedTuple):
    """Rows of a meter: seconds since 1970 on its own clock, joules so far, and watts."""

    times: tuple[float, ...]
    joules: tuple[float, ...]
    watts: tuple[float, ...]


def parse_meter_rows(text: str) -> MeterRows:
    """Parse the rows of a CSV file; ignore an incomplete last line.

    Raises ValueError, with line and column, if the text is not such a file.
    """
    complete = text[: text.rfind("\n") + 1]
    rows = list(csv.reader(complete.splitlines(), delimiter=_delimiter(complete)))
    if not rows:
        raise ValueError("the meter's file has no complete line")
    time_column, column, unit, cumulative = _find_columns(rows[0])
    body = _check_rows(rows[1:], max(time_column, column))
    points = [(_seconds(row[time_column]), float(row[column]) * unit) for row in body]
    times, values = [t for t, _ in points], [v for _, v in points]
    if any(b <= a for a, b in zip(times, times[1:], strict=False)):
        raise ValueError("the meter's times do not rise from row to row")
    if not all(map(math.isfinite, values)):
        raise ValueError("the meter's values are not all numbers")
    return _from_energy(times, values) if cumulative else _from_power(times, values)


def _delimiter(text: str) -> str:
    first = text.partition("\n")[0]
    return max(",;\t", key=first.count)


def _check_rows(rows: Iterable[list[str]], last: int) -> Iterable[list[str]]:
    for number, row in enumerate(rows, 2):
        if row and len(row) <= last:
            raise ValueError(f"line {number} of the meter's file has {len(row)} columns")
        if row:
            yield row


def _find_columns(header: Sequence[str]) -> tuple[int, int, float, bool]:
    """Return the indices of time and value, the value's unit, and whether it is energy."""
    plain = [re.sub(r"[^a-z]", "", h.lower()) for h in header]
    times = [i for i, h in enumerate(plain) if h in {t.replace("_", "") for t in _TIME}]
    if not times:
        raise ValueError(f"no column of times among {', '.join(header)}; name it 'time'")
    for units, cumulative in ((_JOULES, True), (_WATTS, False)):
        for index, name in enumerate(plain):
            if name in units:
                return times[0], index, units[name], cumulative
    raise ValueError(
        f"no column of watts or joules among {', '.join(header)}; name it 'watts' or 'joules'"
    )


def _seconds(text: str) -> float:
    """Parse seconds since 1970 from ISO 8601 (local time without a zone) or a number."""
    try:
        number = float(text)
    except ValueError:
        return _from_iso(text.strip())
    return number / (1e6 if number > 1e14 else 1e3 if number > 1e11 else 1.0)


def _from_iso(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ValueError(f"'{text}' is not a time: write ISO 8601, or seconds since 1970") from None


def _from_power(times: Sequence[float], watts: Sequence[float]) -> MeterRows:
    total, joules = 0.0, [0.0] if times else []
    for i in range(1, len(times)):
        total += (watts[i] + watts[i - 1]) / 2 * (times[i] - times[i - 1])
        joules.append(total)
    return MeterRows(tuple(times), tuple(joules), tuple(watts))


def _from_energy(times: Sequence[float], joules: Sequence[float]) -> MeterRows:
    """Derive the watts of each row from the interval before it."""
    if any(b < a for a, b in zip(joules, joules[1:], strict=False)):
        raise ValueError("the meter's energy falls: it was reset during the record")
    steps = [(joules[i] - joules[i - 1]) / (times[i] - times[i - 1]) for i in range(1, len(times))]
    return MeterRows(tuple(times), tuple(joules), tuple(steps[:1] + steps))


def joules_between(rows: MeterRows, began: float, ended: float) -> float:
    """Return the joules between two moments of the meter's clock.

    Raises OSError if the rows do not cover them.
    """
    if not rows.times or not rows.times[0] <= began <= ended <= rows.times[-1]:
        covered = f"{rows.times[0]:.1f} to {rows.times[-1]:.1f}" if rows.times else "nothing"
        raise OSError(
            f"the meter's file covers {covered}, not {began:.1f} to {ended:.1f} "
            "(seconds since 1970)"
        )
    return _joules_until(rows, ended) - _joules_until(rows, began)


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


class WallMeter:
    """A meter's file as a trace; implements `protocols.Trace`.

    `offset_s` is the meter's clock minus ours, None if unknown.
    """

    name = "meter"
    domains: tuple[str, ...] = ("wall",)
    scope = "machine"
    provenance = "sampled"
    resolution_j = 0.0

    def __init__(
        self,
        path: Path,
        offset_s: float | None = 0.0,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path, self._now, self._sleep = path, now, sleep
        self.offset_s, self.aligned = offset_s or 0.0, offset_s is not None
        rows = self._rows()
        if len(rows.times) < 2:
            raise OSError(
                f"{path} has fewer than two rows yet: start the meter before the measurement"
            )
        self.period_s: float = statistics.median(
            b - a for a, b in zip(rows.times, rows.times[1:], strict=False)
        )

    def _rows(self) -> MeterRows:
        try:
            return parse_meter_rows(self._path.read_text("utf-8-sig"))
        except ValueError as error:
            raise OSError(f"{self._path}: {error}") from error

    def mark(self) -> float:
        """Return the seconds since 1970."""
        return self._now()

    def between(self, began: float, ended: float) -> tuple[float, ...]:
        """Return the joules between two marks; wait for a file that is still being written."""
        rows = self._read_until(ended + self.offset_s)
        return (joules_between(rows, began + self.offset_s, ended + self.offset_s),)

    def _read_until(self, moment: float) -> MeterRows:
        until = self._now() + PATIENCE_S
        rows = self._rows()
        while rows.times[-1] < moment and self._now() < until:
            self._sleep(min(1.0, self.period_s))
            rows = self._rows()
        return rows

    def align(self, steps: Sequence[tuple[float, float]]) -> None:
        """Derive the offset from known steps of load.

        Raises OSError if they do not show in the watts.
        """
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
