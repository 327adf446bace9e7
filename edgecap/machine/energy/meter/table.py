"""Find the header and the rows of a meter's file: text, lines, columns, and times.

Read are UTF-8, UTF-16 with its mark and Latin-1, any line ends, comma, semicolon, tab or bar
between columns, comments, and lines before the header, which may itself stand in a comment. A
history of Home Assistant (`entity_id,state,last_changed`) becomes a table of the one entity that
holds power or energy.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from edgecap.machine.energy.meter.cells import (
    MeterCell,
    is_clock,
    is_date,
    is_gap,
    is_moment,
    parse_times,
)
from edgecap.machine.energy.meter.columns import (
    Kind,
    find_columns,
    is_time,
    prefer_columns,
    quantity_of,
    unit_of,
    zone_of,
)

_COMMENTS = ("#", "//", "%")
_SEARCHED_LINES = 100  # lines before the header
_BOTH_NAMED = 3  # names of time and value found in a line


class MeterTable(NamedTuple):
    """Names of columns, and rows with their numbers of lines, split at the delimiter.

    It `holds` if a row is a change.
    """

    header: list[str]
    lines: list[int]
    rows: list[list[str]]
    delimiter: str
    holds: bool = False

    def cells(self, place: int) -> list[MeterCell]:
        """Return the cells of a column."""
        name = self.header[place]
        return [
            MeterCell(n, row[place], name) for n, row in zip(self.lines, self.rows, strict=True)
        ]


def decode_meter(data: bytes) -> str:
    """Decode a file that may end within a character: UTF-8, UTF-16 with its mark, or Latin-1."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", "ignore")
    elif b"\0" in data:
        raise ValueError("it is not a text file")
    else:
        complete = data[: max(data.rfind(b"\n"), data.rfind(b"\r")) + 1]
        try:
            text = complete.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = complete.decode("latin-1")
    if re.search(r"[\0-\x08\x0e-\x1f]", text):
        raise ValueError("it is not a text file")
    return text


def read_table(text: str) -> MeterTable:
    """Find header and rows; skip comments, empty lines, and what stands before the header.

    An incomplete last line is ignored. Raises ValueError if there is no header.
    """
    plain = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    lines = plain[: plain.rfind("\n") + 1].split("\n")
    filled = [(n, line) for n, line in enumerate(lines, 1) if line.strip(" ,;\t")]
    numbered = [(n, line) for n, line in filled if not line.lstrip().startswith(_COMMENTS)]
    if not numbered:
        raise ValueError("the meter's file has no complete line")
    try:
        place, delimiter = _find_header(numbered[:_SEARCHED_LINES])
    except ValueError:
        numbered = [_commented_header(filled, numbered[0]), *numbered]
        if _names_found(numbered[0][1]) < _BOTH_NAMED:
            raise
        place, delimiter = _find_header(numbered[:1])
    header = [h.strip() for h in _split(*numbered[place], delimiter)]
    rows = [(n, _split(n, line, delimiter)) for n, line in numbered[place + 1 :]]
    if rows and _are_units(rows[0][1]):
        header = [f"{h} {u}".strip() for h, u in itertools.zip_longest(header, rows.pop(0)[1])]
    rows = [(n, row) for n, row in rows if [c.strip() for c in row] != header]
    fitted = [_fitted(n, row, header) for n, row in rows]
    table = MeterTable(header, [n for n, _ in rows], fitted, delimiter)
    entity, state = _history_columns(header)
    return table if entity is None else _of_one_entity(table, entity, state)


def _find_header(lines: Sequence[tuple[int, str]]) -> tuple[int, str]:
    """Return the place of the first line that names time and value, and its delimiter.

    Raises ValueError if there is none.
    """
    for place, (number, line) in enumerate(lines):
        for delimiter in "\t;|,":
            names = _split(number, line, delimiter)
            values = find_columns(names) or _history_columns(names)[0] is not None
            if values and any(map(is_time, names)):
                return place, delimiter
    number, line = max(lines, key=lambda numbered: _names_found(numbered[1]))
    raise ValueError(_lacking(number, [n.strip() for n in re.split("[\t;|,]", line)]))


def _commented_header(filled: Sequence[tuple[int, str]], first: tuple[int, str]) -> tuple[int, str]:
    """Return the last comment before the first line that is none, without its mark; or ""."""
    before = filled[: filled.index(first)]
    return (before[-1][0], before[-1][1].strip().lstrip("#/% ")) if before else (0, "")


def _names_found(line: str) -> int:
    names = re.split("[\t;|,]", line)
    return 2 * any(map(is_time, names)) + any(map(quantity_of, names))


def _lacking(number: int, names: Sequence[str]) -> str:
    """Return what a line lacks to be a header."""
    if all(is_gap(n) or is_moment(n) or not re.search("[A-Za-z]", n) for n in names):
        return f"line {number} has no names of columns: write 'time,watts' above the values"
    if len(names) == 1 and _names_found(names[0]) == _BOTH_NAMED:
        return f"line {number} names '{names[0]}': separate columns by comma, semicolon or tab"
    if not any(map(is_time, names)):
        return f"no column of times among {', '.join(names)}; name it 'time'"
    return f"no column of watts or joules among {', '.join(names)}; name it 'watts' or 'joules'"


def _split(number: int, line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(f"line {number} of the meter's file: {error}") from None


def _are_units(row: Sequence[str]) -> bool:
    """Return whether a row has no values but units, as below some headers: `[dd.MM.yyyy],[W]`."""
    filled = [c for c in row if c.strip()]
    bare = [c.strip(" []()") for c in filled]
    units = any(unit_of(c) for c in bare)
    return units and not any(re.search("[0-9]", c) for c in filled)


def _fitted(number: int, row: list[str], header: Sequence[str]) -> list[str]:
    """Return a row of the header's length; raise ValueError if cells are missing or left over."""
    width = len(header)
    left = [c for c in row[width:] if c.strip()]
    if len(row) < width and any(h for h in header[len(row) :]) or left:
        raise ValueError(
            f"line {number} of the meter's file has {len(row)} columns, its header {width}"
            + (": quote numbers with a decimal comma, or separate columns by ';'" if left else "")
        )
    return (row + [""] * width)[:width]


def _history_columns(header: Sequence[str]) -> tuple[int | None, int]:
    """Return the columns of entity and state of a Home Assistant history, None if it is none."""
    plain = [h.strip().lower() for h in header]
    if "entity_id" in plain and "state" in plain and any(map(is_time, plain)):
        return plain.index("entity_id"), plain.index("state")
    return None, 0


def _of_one_entity(table: MeterTable, entity: int, state: int) -> MeterTable:
    """Return the rows of the entity that holds power, else energy, its name above the states."""
    names = list(dict.fromkeys(row[entity] for row in table.rows))
    chosen = _machines_entity(names)
    kept = [i for i, row in enumerate(table.rows) if row[entity].strip() == chosen]
    header = [chosen if i == state else h for i, h in enumerate(table.header)]
    header[entity] = "entity"
    lines, rows = [table.lines[i] for i in kept], [table.rows[i] for i in kept]
    return MeterTable(header, lines, rows, table.delimiter, True)


def _machines_entity(names: Sequence[str]) -> str:
    """Return the entity of power, else energy; raise ValueError if there is none, or several."""
    columns = find_columns(names)
    kind: Kind = "watts" if any(c.quantity.kind == "watts" for c in columns) else "joules"
    found = [c for c in columns if c.quantity.kind == kind]
    chosen = prefer_columns(found, kind)
    if not found:
        raise ValueError(f"no entity of power or energy among {', '.join(names)}")
    if len(chosen) != 1:
        listed = ", ".join(f"'{c.name}'" for c in found)
        raise ValueError(
            f"rows of {len(found)} entities hold {kind}: {listed}; keep the rows of one"
        )
    return chosen[0].name


# --- times ------------------------------------------------------------------------------------


def times_of(table: MeterTable) -> list[float]:
    """Return the times of all rows, in seconds since 1970."""
    chosen = _time_columns(table)
    names = [table.header[i] for i in chosen]
    cells = [
        MeterCell(line, " ".join(row[i].strip() for i in chosen), " + ".join(names))
        for line, row in zip(table.lines, table.rows, strict=True)
    ]
    times = parse_times(cells, zone_of(names))
    for cell, before, now in zip(cells[1:], times, times[1:], strict=False):
        if now < before:
            raise ValueError(f"{cell}: the meter's times do not rise from row to row")
    return times


def _time_columns(table: MeterTable) -> list[int]:
    """Return the column that holds date and time, or those that hold one of them each."""
    found = [i for i, name in enumerate(table.header) if is_time(name)]
    first = {i: table.rows[0][i] for i in found} if table.rows else {}
    whole = [i for i, text in first.items() if is_moment(text)]
    dates = [i for i, text in first.items() if is_date(text)]
    clocks = [i for i, text in first.items() if is_clock(text)]
    if whole or not dates and not clocks:
        return whole[:1] or found[:1]
    if dates and clocks:
        return [dates[0], clocks[0]]
    lacks = "time of day" if dates else "date"
    raise ValueError(f"{table.cells((dates or clocks)[0])[0]} has no {lacks}; write both")
