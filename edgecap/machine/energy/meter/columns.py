"""Find the columns of a meter's file by their names: time, power in watts, energy in joules.

    Power (W)   Leistung [W]   Active Power[kW]   power_W   apower   sensor.plug_power   kWh

A unit in the name decides; a name without a unit is watts if it says power. Of several columns, the
one named `watts` or `joules` is used, else the only one, else the total of several phases, else the
sum of the phases; anything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, tzinfo
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

Kind = Literal["watts", "joules"]


class MeterUnit(NamedTuple):
    """Describe what a column holds: its unit in watts or joules; None if the name does not tell it.

    `assumed` watts come from a name without a unit.
    """

    kind: Kind
    unit: float | None
    assumed: bool = False


class MeterColumn(NamedTuple):
    """A column of values, by its place and name."""

    place: int
    name: str
    quantity: MeterUnit


_PREFIXES = {
    "": 1.0, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "micro": 1e-6, "m": 1e-3, "milli": 1e-3,
    "k": 1e3, "kilo": 1e3,
}  # fmt: skip
_BASES: dict[str, tuple[Kind, float]] = {
    **dict.fromkeys(("w", "watt", "watts"), ("watts", 1.0)),
    **dict.fromkeys(("j", "joule", "joules", "ws"), ("joules", 1.0)),
    **dict.fromkeys(("wh", "whs", "watthour", "watthours", "wattstunden"), ("joules", 3600.0)),
}
_UNITS = {
    prefix + base: MeterUnit(kind, scale * size)
    for prefix, scale in _PREFIXES.items()
    for base, (kind, size) in _BASES.items()
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_HOURS = _words("h hr hrs hour hours stunden")
_POWER = _words(
    "power apower activepower leistung wirkleistung puissance potencia potenza vermogen wattage p"
)
_ENERGY = _words("energy aenergy energie arbeit")
_EITHER = _words("consumption verbrauch")
# Words of columns that are neither the power of the machine nor its energy so far.
_OTHER = _words(
    "apparent reactive schein blind scheinleistung blindleistung factor faktor leistungsfaktor "
    "va var vah varh min max minimum maximum peak limit rated nominal setpoint set target price "
    "cost eur usd co2 tariff rate export exported returned return einspeisung today yesterday "
    "month year std stddev status id count m2 m²"
)
_TIME = _words(
    "time timestamp datetime date epoch unix unixtime ts changed updated elapsed zeit zeitstempel "
    "zeitpunkt datum uhrzeit heure horodatage fecha hora tijd"
)
_NO_TIME = _words("zone up uptime run runtime on off duration offset")
_TOTALS = {"total", "sum", "gesamt", "summe"}
_PHASE = re.compile(r"\b(?:l|phase ?)([123abc])\b|\b([abc]) phase\b|^([abc]) act\b")


def words_of(name: str) -> list[str]:
    """Split the name of a column into words, case kept: at other characters and within PowerkW."""
    words = list[str]()
    for word in re.findall(r"[^\W_]+", name):
        if word.lower() in _UNITS or word.isupper():
            words.append(word)
            continue
        match = re.fullmatch(r"(.+?)([kKmMµu]?(?:W[hs]?|J))", word)
        words += re.findall(r"[A-Z]?[^A-Z]+|[A-Z]+(?![a-z])", match[1] if match else word)
        words += [match[2]] if match else []
    return words


def quantity_of(name: str) -> MeterUnit | None:
    """Return what a column of this name holds; None for neither power nor energy."""
    words = words_of(name)
    plain = [w.lower() for w in words]
    if _OTHER & set(plain) or re.search(r"%|[/€$] *[kM]?Wh|W */ *[a-gi-z]", name):
        return None
    for word, after in zip(words, [*plain[1:], ""], strict=False):
        unit = unit_of(word)
        if unit and unit.kind == "watts" and after in _HOURS:
            return MeterUnit("joules", unit.unit and unit.unit * 3600)
        if unit:
            return unit
    told = [w for w in plain if w in _POWER | _ENERGY] or [w for w in plain if w in _EITHER]
    if not told:
        return None
    if told[-1] not in _POWER:
        return MeterUnit("joules", None)
    return MeterUnit("watts", None if re.search(r"[([]", name) else 1.0, True)


def unit_of(word: str) -> MeterUnit | None:
    """Return the unit that a word is, or that ends it as in `powerW`; None if there is none.

    The unit of MW is None (milli and mega look alike where names are in capitals); MWh is mega.
    """
    known = _UNITS.get(word.lower())
    if known is None:
        match = re.fullmatch(r"(\w+?)(kwh|mwh|wh|kw|mw|w|j)", word, re.IGNORECASE)
        return unit_of(match[2]) if match and match[1].lower() in _POWER | _ENERGY else None
    if word[0] == "M" and word[1:2] in tuple("WwJj") and len(word) < 4:
        mega = {"MWh": 3.6e9, "MJ": 1e6}
        return known._replace(unit=mega.get(word))
    return known


def find_columns(header: Sequence[str]) -> list[MeterColumn]:
    """Return the columns that hold power or energy."""
    found = ((i, name, quantity_of(name)) for i, name in enumerate(header) if not is_time(name))
    return [MeterColumn(i, name.strip(), quantity) for i, name, quantity in found if quantity]


def is_time(name: str) -> bool:
    """Return whether a column of this name holds times, or a part of them."""
    words = {w.lower() for w in words_of(name)}
    return bool(words & _TIME or words - {"s", "ms", "us"} == {"t"}) and not words & _NO_TIME


def zone_of(names: Iterable[str]) -> tzinfo | None:
    """Return the time zone that a column's name tells, as `Time (UTC)`; None for local time."""
    for name in names:
        area = re.search(r"[A-Z][a-z]+/[A-Z][A-Za-z_]+", name)
        if {"utc", "gmt"} & {w.lower() for w in words_of(name)}:
            return UTC
        try:
            return ZoneInfo(area[0]) if area else None
        except (KeyError, ValueError, OSError):
            continue
    return None


def choose_columns(columns: Sequence[MeterColumn], kind: Kind) -> list[MeterColumn]:
    """Return the column of this kind that holds the machine's, or its phases; [] if there is none.

    Raises ValueError if several can be it, or the name does not tell the unit.
    """
    found = [c for c in columns if c.quantity.kind == kind]
    chosen = prefer_columns(found, kind)
    if not chosen:
        names = ", ".join(f"'{c.name}'" for c in found)
        if found:
            raise ValueError(f"columns {names} all hold {kind}: name the machine's '{kind}'")
    for column in chosen:
        if column.quantity.unit is None:
            raise ValueError(f"column '{column.name}' does not name its unit: {_WRITE[kind]}")
    return chosen


def prefer_columns(found: Sequence[MeterColumn], kind: Kind) -> list[MeterColumn]:
    """Return which of several columns of a kind is the machine's, or its phases; [] if unclear."""
    named = [c for c in found if c.name.strip().lower() == kind]
    if len(named) == 1:
        return named
    return list(found) if len(found) < 2 else _total_or_phases(found)


_WRITE = {"watts": "write mW, W or kW", "joules": "write Wh, kWh or J"}


def _total_or_phases(columns: Sequence[MeterColumn]) -> list[MeterColumn]:
    """Return the only total beside phases, else the phases if all are, else []."""
    texts = {c: " ".join(words_of(c.name)).lower() for c in columns}
    totals = [c for c in columns if _TOTALS & set(texts[c].split())]
    phases = {c: m.group(m.lastindex or 0) for c in columns if (m := _PHASE.search(texts[c]))}
    if len(totals) == 1 and len({*totals, *phases}) == len(columns):
        return totals
    apart = len(set(phases.values())) == len(columns) == len(phases)
    return list(columns) if apart else []
