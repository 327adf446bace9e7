"""Read the file of a wall meter: joules and watts by time, from a table of either or both.

    time,watts                 comma, semicolon, tab or bar; decimal point or comma
    2026-11-24T15:00:00Z,41.2  watts are integrated by trapezoid; energy so far is used as it is
    2026-11-24T15:00:01Z,41.9

Rows of a Home Assistant history are changes: a value holds until the next. Energy that stands still
between rows has a step too coarse for windows: watts beside it are used instead. Where both stand,
they must agree over the record within a step.
"""

from __future__ import annotations

import itertools
import math
import re
import stat
import statistics
from collections.abc import Sequence
from operator import sub
from pathlib import Path
from typing import NamedTuple

from edgecap.machine.energy.meter.cells import (
    MeterCell,
    decimal_sign,
    is_gap,
    parse_number,
    split_unit,
)
from edgecap.machine.energy.meter.columns import (
    MeterColumn,
    choose_columns,
    find_columns,
    is_time,
    unit_of,
)
from edgecap.machine.energy.meter.table import MeterTable, decode_meter, read_table, times_of

GAP_PERIODS = 3.0  # rows further apart than this many periods are a gap
AGREE = 0.1  # part by which watts and energy may differ
# Watts that a machine can draw: bounds of a median whose unit the header does not tell.
# Kilowatts without a unit lie below them. Numbers above them have no thousands separator.
PLAUSIBLE_W = (2.0, 5000.0)
OFFSET_W = 1.0  # negative watts down to this are a sensor's offset, as in a sampled counter


class MeterRows(NamedTuple):
    """Rows of a meter: seconds since 1970 on its own clock, joules so far, and watts.

    `gaps` are stretches (begin, end) without values, `column` names what was read. Joules that are
    `counted` are the meter's own; if they stand still between rows they move in steps of `step_j`,
    every `step_s` seconds, else `step_j` is their last digit. Watts that are `held` are steps too.
    """

    times: tuple[float, ...]
    joules: tuple[float, ...]
    watts: tuple[float, ...]
    gaps: tuple[tuple[float, float], ...] = ()
    column: str = ""
    counted: bool = False
    held: bool = False
    step_j: float = 0.0
    step_s: float = 0.0


class _Series(NamedTuple):
    """Times that rise with their values, and the gaps between them."""

    times: list[float]
    values: list[float]
    gaps: tuple[tuple[float, float], ...]


def read_meter_file(path: Path) -> MeterRows:
    """Read a meter's file.

    Raises OSError if it cannot be read, and ValueError, with line and column, if it is no meter's.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a regular file: give the file that the meter's program writes")
    return parse_meter_rows(decode_meter(path.read_bytes()))


def parse_meter_rows(text: str) -> MeterRows:
    """Parse the rows of a meter's file; ignore an incomplete last line.

    Raises ValueError, with line and column, if the text is not such a file.
    """
    table = read_table(text)
    times, columns = times_of(table), find_columns(table.header)
    watts, energy = choose_columns(columns, "watts"), _energy_columns(columns)
    power = _integrated(table, times, watts) if watts else None
    counted = _counted(table, times, energy, alone=not watts) if energy else None
    return _better(power, counted)


def _energy_columns(columns: Sequence[MeterColumn]) -> list[MeterColumn]:
    """Return the columns of energy; [] if they are not clear, and watts stand beside them."""
    try:
        return choose_columns(columns, "joules")
    except ValueError:
        if any(c.quantity.kind == "watts" for c in columns):
            return []
        raise


def _better(power: MeterRows | None, counted: MeterRows | None) -> MeterRows:
    """Return the meter's own energy unless its step is coarse and watts stand beside it."""
    if power is None or counted is None:
        rows = power or counted
        assert rows is not None
        return rows
    if not power.gaps and not counted.gaps and _ends(power) == _ends(counted):
        _check_agreement(power, counted)
    return power if counted.step_s else counted


def _ends(rows: MeterRows) -> tuple[float, ...]:
    return rows.times[:1] + rows.times[-1:]


def _check_agreement(power: MeterRows, counted: MeterRows) -> None:
    """Raise ValueError if the joules of both over the record differ by more than a step.

    Allowed beside it are a tenth, and two rows, whose watts may have changed between samples.
    """
    if len(power.times) < 2:
        return
    by_watts, by_count = (r.joules[-1] - r.joules[0] for r in (power, counted))
    rows = 2 * max(power.watts) * statistics.median(map(sub, power.times[1:], power.times))
    if abs(by_watts - by_count) > counted.step_j + rows + AGREE * max(by_watts, by_count):
        raise ValueError(
            f"columns '{power.column}' and '{counted.column}' disagree: {by_watts:.0f} J and "
            f"{by_count:.0f} J over {power.times[-1] - power.times[0]:.0f} s; keep the right one"
        )


# --- values -----------------------------------------------------------------------------------


def _values(table: MeterTable, columns: Sequence[MeterColumn]) -> list[float | None]:
    """Return the sum of columns for each row; None where one of them has a gap."""
    each = [_column_values(table, c) for c in columns]
    return [
        None if None in row else sum(v for v in row if v is not None)
        for row in zip(*each, strict=True)
    ]


def _column_values(table: MeterTable, column: MeterColumn) -> list[float | None]:
    cells = table.cells(column.place)
    others = (
        cell
        for i, name in enumerate(table.header)
        if i != column.place and not is_time(name)
        for cell in table.cells(i)
    )
    known = [c for c in cells if not is_gap(c.text)]
    sign = decimal_sign(known, others, table.delimiter != ";", _most(known, column))
    return [None if is_gap(c.text) else _value(c, column, sign) for c in cells]


def _most(cells: Sequence[MeterCell], column: MeterColumn) -> float:
    """Return the largest plausible number of a column; infinity for energy, and units in cells."""
    quantity = column.quantity
    if quantity.kind != "watts" or not quantity.unit or any(split_unit(c.text)[1] for c in cells):
        return math.inf
    return PLAUSIBLE_W[1] / quantity.unit


def _value(cell: MeterCell, column: MeterColumn, sign: str) -> float:
    """Return a cell in watts or joules; a unit in the cell goes before that of the name."""
    number, suffix = split_unit(cell.text)
    told = unit_of(suffix) if suffix else column.quantity
    if told is None or told.unit is None or told.kind != column.quantity.kind:
        raise ValueError(f"{cell} is not a number of {column.quantity.kind}")
    try:
        value = parse_number(number, sign) * told.unit
    except ValueError as error:
        raise ValueError(f"{cell} {error}") from None
    if value < -OFFSET_W and told.kind == "watts":
        raise ValueError(f"{cell} is negative: meter the machine alone, without solar power")
    return max(value, 0.0) if told.kind == "watts" else value


def _series(table: MeterTable, times: Sequence[float], columns: Sequence[MeterColumn]) -> _Series:
    """Return the values by time; two rows of one time become their mean.

    Raises ValueError if more rows have one time, or no row has a number.
    """
    values = _values(table, columns)
    if values and not any(v is not None for v in values):
        raise ValueError(f"the meter's values are not all numbers: '{_name(columns)}' has none")
    rows = list[tuple[float, float | None]]()
    for time, same in itertools.groupby(range(len(times)), times.__getitem__):
        places = list(same)
        found = [v for i in places if (v := values[i]) is not None]
        if len(places) > 2 and len(set(found)) > 1:
            raise ValueError(
                f"line {table.lines[places[2]]}: a third row of the same time; write seconds, or "
                "fractions of them"
            )
        rows.append((time, statistics.fmean(found) if found else None))
    known = [(t, v) for t, v in rows if v is not None]
    return _Series([t for t, _ in known], [v for _, v in known], _gaps(rows, table.holds))


def _gaps(
    rows: Sequence[tuple[float, float | None]], holds: bool
) -> tuple[tuple[float, float], ...]:
    """Return the stretches without a value that are longer than a few periods.

    If values hold until the next row, only rows without a value begin one.
    """
    steps = list(itertools.pairwise([r for r in rows if holds or r[1] is not None]))
    spans = [(first[0], last[0]) for first, last in steps]
    longest = GAP_PERIODS * statistics.median(b - a for a, b in spans) if spans else 0.0
    unknown = [not holds or first[1] is None for first, _ in steps]
    return tuple(s for s, u in zip(spans, unknown, strict=True) if u and s[1] - s[0] > longest)


def _name(columns: Sequence[MeterColumn]) -> str:
    return " + ".join(c.name for c in columns)


def _integrated(
    table: MeterTable, times: Sequence[float], columns: Sequence[MeterColumn]
) -> MeterRows:
    """Integrate watts: by trapezoid, or as steps if a value holds until the next."""
    at, watts, gaps = _series(table, times, columns)
    name = _name(columns)
    if watts and any(c.quantity.assumed and _lacks_units(table, c) for c in columns):
        _check_plausible(name, statistics.median(watts))
    means = watts if table.holds else [(a + b) / 2 for a, b in itertools.pairwise(watts)]
    parts = [w * (b - a) for w, (a, b) in zip(means, itertools.pairwise(at), strict=False)]
    joules = tuple(itertools.accumulate(parts, initial=0.0)) if at else ()
    return MeterRows(tuple(at), joules, tuple(watts), gaps, name, held=table.holds)


def _lacks_units(table: MeterTable, column: MeterColumn) -> bool:
    cells = table.cells(column.place)
    return any(not is_gap(c.text) and not split_unit(c.text)[1] for c in cells)


def _check_plausible(name: str, watts: float) -> None:
    low, high = PLAUSIBLE_W
    if not low <= watts <= high:
        raise ValueError(
            f"column '{name}' has a median of {watts:g} and names no unit: "
            f"name the unit in the header: '{name} (W)' or '{name} (kW)'"
        )


def _counted(
    table: MeterTable, times: Sequence[float], columns: Sequence[MeterColumn], alone: bool
) -> MeterRows | None:
    """Return the energy that the meter counts, with its step; None if it falls and is not alone.

    The watts of a row are those of the interval before it.
    """
    at, joules, gaps = _series(table, times, columns)
    rises = [b - a for a, b in itertools.pairwise(joules)]
    name = _name(columns)
    if any(r < 0 for r in rises):
        if not alone:
            return None
        fallen = at[next(i for i, r in enumerate(rises, 1) if r < 0)]
        raise ValueError(
            f"line {table.lines[times.index(fallen)]}, column '{name}': the meter's energy falls: "
            "it was reset during the record, or is that of each row; write energy so far, or watts"
        )
    power = [r / (b - a) for r, (a, b) in zip(rises, itertools.pairwise(at), strict=True)]
    step_j, step_s = _step(table, columns, at, rises)
    watts = tuple(power[:1] + power)
    return MeterRows(tuple(at), tuple(joules), watts, gaps, name, True, False, step_j, step_s)


def _step(
    table: MeterTable, columns: Sequence[MeterColumn], at: Sequence[float], rises: Sequence[float]
) -> tuple[float, float]:
    """Return the joules by which energy moves, and the seconds between such steps.

    Energy that moves from row to row has the step of its last digit; the seconds are 0 then.
    """
    moved = [r for r in rises if r > 0]
    if len(moved) == len(rises) and not table.holds:
        return _last_digit(table, columns), 0.0
    smallest = min(moved, default=_last_digit(table, columns))
    return smallest, (at[-1] - at[0]) / max(len(moved), 1)


def _last_digit(table: MeterTable, columns: Sequence[MeterColumn]) -> float:
    """Return the joules of the last digit that a cell of the columns shows."""
    steps = [0.0]
    for column in columns:
        numbers = [split_unit(c.text)[0] for c in table.cells(column.place)]
        digits = [re.split("[.,]", n)[-1].rstrip("0") for n in numbers if re.search("[.,]", n)]
        steps.append((column.quantity.unit or 1.0) / 10 ** max(map(len, digits), default=0))
    return max(steps)
