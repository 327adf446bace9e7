"""Read the cells of a meter's file: numbers, gaps and times, as programs and people write them.

A cell that can mean two things is decided by the other cells of its column, or refused:

    1,234  1.234  1.234, or 1234 with a thousands separator
    11/05/2025    5 November, or 11 May
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone, tzinfo
from typing import NamedTuple

GAPS = {
    "", "-", "--", "—", "?", "na", "n/a", "n.a.", "#n/a", "nan", "null", "none", "unavailable",
    "unknown", "offline", "no data",
}  # fmt: skip


class MeterCell(NamedTuple):
    """A cell: the number of its line in the file, from 1, its text, and the name of its column."""

    line: int
    text: str
    column: str

    def __str__(self) -> str:
        """Say where the cell is and what it holds."""
        return f"line {self.line}, column '{self.column}': '{self.text.strip()}'"


def is_gap(text: str) -> bool:
    """Return whether a cell says that the meter had no value."""
    return text.strip().lower() in GAPS


# --- numbers ----------------------------------------------------------------------------------

_UNCLEAR = re.compile(r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}")
_HUNDREDS = re.compile(r"[+-]?[1-9][0-9]{2,}")
_DIGITS = re.compile(r"[+-]?[0-9., '’]+([eE][+-]?[0-9]+)?")
_GROUPS = re.compile(r"[+-]?[0-9]{1,3}([., '’])[0-9]{3}(\1[0-9]{3})*")
_PLAIN = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WITH_UNIT = re.compile(r"(.*?[0-9.,]) *([A-Za-zµμ]*)")


def split_unit(text: str) -> tuple[str, str]:
    """Split a cell such as `41.2 W` into its number and its unit."""
    plain = text.strip().replace("\u00a0", " ").replace("\u202f", " ").replace("−", "-")
    match = _WITH_UNIT.fullmatch(plain)
    return (match[1], match[2]) if match else (plain, "")


def _decimal_sign(number: str) -> str | None:
    """Return the decimal sign that a number shows; None if it shows none, or can mean two."""
    signs = [c for c in ",." if c in number] if _DIGITS.fullmatch(number) else []
    if len(signs) == 2:
        return max(signs, key=number.rfind)
    if not signs or _UNCLEAR.fullmatch(number):
        return None
    if number.count(signs[0]) == 1:
        return signs[0]
    return ",.".replace(signs[0], "") if _GROUPS.fullmatch(number) else None


def decimal_sign(
    column: Sequence[MeterCell], others: Iterable[MeterCell], dots: bool, most: float
) -> str:
    """Return the decimal sign of a column of numbers, by its own cells or those of other columns.

    Where neither shows it, a dot is one if `dots` are usual in such files, and either sign is one
    if the numbers would be above `most`, the largest that is plausible, with thousands.
    Raises ValueError if it has both signs, or one that can also separate thousands.
    """
    shown: dict[str, MeterCell] = {}
    for cell in column:
        sign = _decimal_sign(split_unit(cell.text)[0])
        if sign:
            shown.setdefault(sign, cell)
    if len(shown) == 2:
        first, second = sorted(shown.values())
        raise ValueError(f"{second} has another decimal sign than '{first.text}' before it")
    known = shown.keys() or {s for c in others if (s := _decimal_sign(c.text.strip()))}
    if len(known) == 1:
        return next(iter(known))
    return _sign_of_unclear(column, dots, most)


def _sign_of_unclear(column: Sequence[MeterCell], dots: bool, most: float) -> str:
    """Return the decimal sign of numbers that are whole or have three digits after a sign."""
    numbers = [split_unit(c.text)[0] for c in column]
    unclear = [n for n in numbers if _UNCLEAR.fullmatch(n)]
    if not unclear:
        return "."
    signs = {c for n in unclear for c in ",." if c in n}
    thousands = [abs(float(re.sub("[.,]", "", n))) for n in unclear]
    if len(signs) == 1 and len(unclear) == len(numbers) and min(thousands) > most:
        return signs.pop()
    if dots and signs == {"."} and not any(_HUNDREDS.fullmatch(n) for n in numbers):
        return "."
    cell, number = column[numbers.index(unclear[0])], unclear[0]
    raise ValueError(
        f"{cell} can be {number.replace(',', '.')} or {re.sub('[.,]', '', number)}: "
        "write no thousands separator, and more or fewer than three decimals"
    )


def parse_number(number: str, sign: str) -> float:
    """Parse a number with this decimal sign; thousands may be in groups of three.

    Raises ValueError if it is none.
    """
    whole, comma, digits = number.partition(sign)
    if _GROUPS.fullmatch(whole):
        whole = re.sub("[., '’]", "", whole)
    plain = f"{whole}.{digits}" if comma else whole
    clear = _PLAIN.fullmatch(plain) and plain.count(".") == bool(comma)
    value = float(plain) if clear else math.nan
    if not math.isfinite(value):
        raise ValueError("is not a number")
    return value


# --- times ------------------------------------------------------------------------------------

_DATE = (
    r"(?:[A-Za-z]{2,9}\.?,? +)?"  # weekday
    r"(?:(?P<y>\d{4})(?P<ys>[-/.]) ?(?P<m>\d{1,2})(?P=ys) ?(?P<d>\d{1,2})\.?"
    r"|(?P<d2>\d{1,2})\.(?P<m2>\d{1,2})\.(?P<y2>\d{4}|\d\d)"
    r"|(?P<a>\d{1,2})(?P<as>[/-])(?P<b>\d{1,2})(?P=as)(?P<y3>\d{4})"
    r"|(?P<d4>\d{1,2})[ -](?P<m4>[A-Za-z]{3,9})\.?[ -](?P<y4>\d{4})"
    r"|(?P<m5>[A-Za-z]{3,9})\.? (?P<d5>\d{1,2}),? (?P<y5>\d{4})"
    r"|(?P<y6>20\d\d)(?P<m6>\d\d)(?P<d6>\d\d))"
)
_CLOCK = (
    r"(?P<h>\d{1,2}):(?P<min>\d\d)(?::(?P<s>\d\d)(?:[.,](?P<f>\d+))?)?"
    r" ?(?P<half>[AaPp]\.?[Mm]\.?)?(?: Uhr)?"
)
_COMPACT_CLOCK = r"(?P<h7>\d\d)(?P<min7>\d\d)(?P<s7>\d\d)"
_ZONE = r" ?(?P<zone>[A-Za-z]{1,5})?(?P<offset>[+-]\d\d(?::?\d\d)?)?"
_MOMENT = re.compile(rf"{_DATE}(?:[T,_] ?| )?(?:{_CLOCK}|{_COMPACT_CLOCK}){_ZONE}", re.ASCII)
_DATE_ONLY, _CLOCK_ONLY = (
    re.compile(_DATE, re.ASCII),
    re.compile(f"(?:{_CLOCK}|{_COMPACT_CLOCK}){_ZONE}", re.ASCII),
)
_EPOCH = re.compile(r"[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?")
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
# Hours east of Greenwich of zones whose letters mean one thing only.
_ZONES = {"z": 0, "utc": 0, "gmt": 0, "cet": 1, "mez": 1, "cest": 2, "mesz": 2}
_HOW = "write ISO 8601, or seconds since 1970"
FIRST_S = 1e8  # 1973: a smaller number of seconds does not count from 1970


def is_moment(text: str) -> bool:
    """Return whether a cell has date and time of day, or counts from 1970."""
    plain = _spaced(text)
    if _EPOCH.fullmatch(plain) and len(plain) != 14:
        return _seconds(plain) >= FIRST_S
    return bool(_MOMENT.fullmatch(plain))


def is_date(text: str) -> bool:
    """Return whether a cell has a date alone."""
    return bool(_DATE_ONLY.fullmatch(_spaced(text)))


def is_clock(text: str) -> bool:
    """Return whether a cell has a time of day alone."""
    return bool(_CLOCK_ONLY.fullmatch(_spaced(text)))


def parse_times(column: Sequence[MeterCell], zone: tzinfo | None) -> list[float]:
    """Parse times to seconds since 1970; `zone` is that of times without one, None the local one.

    In the hour that a clock in autumn shows twice, times that fall belong to the second pass.
    Raises ValueError, with the line, for a time that cannot be read or can be two dates.
    """
    order, times = _date_order(column), list[float]()
    for cell in column:
        try:
            times.append(
                _moment(_spaced(cell.text), order, zone, times[-1] if times else -math.inf)
            )
        except ValueError as error:
            raise ValueError(f"{cell} {error}") from None
    return times


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _date_order(column: Iterable[MeterCell]) -> str:
    """Return the order of day and month with slashes, "dm" or "md"; "" if no cell shows it."""
    matches = (_MOMENT.fullmatch(_spaced(c.text)) for c in column)
    pairs = {(int(m["a"]), int(m["b"])) for m in matches if m and m["a"]}
    if any(a > 12 for a, _ in pairs):
        return "dm"
    return "md" if any(b > 12 for _, b in pairs) else ""


def _moment(text: str, order: str, zone: tzinfo | None, before: float) -> float:
    if _EPOCH.fullmatch(text) and len(text) != 14:
        return _seconds(text)
    match = _MOMENT.fullmatch(text)
    if not match:
        raise ValueError(f"is not a time: {_HOW}")
    year, month, day = _date(match, order)
    told = _zone(match) if match["zone"] or match["offset"] else zone
    try:
        moment = datetime(year, month, day, *_clock(match), tzinfo=told)
        seconds, again = moment.timestamp(), moment.replace(fold=1).timestamp()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"is not a time ({error}): {_HOW}") from None
    return again if seconds < before <= again else seconds


def _seconds(text: str) -> float:
    """Return seconds since 1970 from a number of seconds, milli-, micro- or nanoseconds."""
    number = float(text.replace(",", "."))
    units = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
    return number / next((unit for above, unit in units if number > above), 1.0)


def _date(match: re.Match[str], order: str) -> tuple[int, int, int]:
    """Return year, month and day of a match."""
    if match["a"]:
        first, second = int(match["a"]), int(match["b"])
        if not order and first != second:
            y = match["y3"]
            raise ValueError(
                f"can be two dates: write {y}-{second:02}-{first:02} or {y}-{first:02}-{second:02}"
            )
        day, month = (second, first) if order == "md" else (first, second)
        return int(match["y3"]), month, day
    for n in ("", "2", "4", "5", "6"):
        if match[f"y{n}"]:
            year = int(match[f"y{n}"])
            return year + 2000 * (year < 100), _month(match[f"m{n}"]), int(match[f"d{n}"])
    raise ValueError(f"is not a time: {_HOW}")


def _month(text: str) -> int:
    if text.isdigit():
        return int(text)
    month = _MONTHS.find(text[:3].lower())
    if month % 4 == 0:
        return month // 4 + 1
    raise ValueError(f"has no month that is known: {_HOW}")


def _clock(match: re.Match[str]) -> tuple[int, int, int, int]:
    """Return hour, minute, second and microsecond of a match."""
    if match["h7"]:
        return int(match["h7"]), int(match["min7"]), int(match["s7"]), 0
    hour, half = int(match["h"]), (match["half"] or " ")[0].lower()
    if half in "ap":
        hour = hour % 12 + 12 * (half == "p")
    fraction = int((match["f"] or "0")[:6].ljust(6, "0"))
    return hour, int(match["min"]), int(match["s"] or 0), fraction


def _zone(match: re.Match[str]) -> tzinfo:
    name, offset = (match["zone"] or "").lower(), match["offset"]
    if name and name not in _ZONES or offset and _ZONES.get(name):
        raise ValueError(f"has the zone '{match['zone']}': write an offset such as +01:00")
    shift = timedelta(hours=_ZONES.get(name, 0))
    if offset:
        minutes = int(offset[1:3]) * 60 + int(offset[3:].lstrip(":") or 0)
        shift = timedelta(minutes=-minutes if offset[0] == "-" else minutes)
    return timezone(shift)
