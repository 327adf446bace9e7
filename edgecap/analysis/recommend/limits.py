"""What a user will not go beyond: each limit with its option, its metric and its SI value, and how it is typed."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import msgspec

from edgecap.errors import UsageError


class Limit(msgspec.Struct, frozen=True):
    """At most `most` of a metric, in SI units; `option` is what asked for it."""

    option: str
    metric: str
    most: float


class Option(NamedTuple):
    """An option with an amount: its metric, the SI value of each unit that may be typed, and what to try."""

    name: str
    metric: str
    units: dict[str, float]
    example: str


_MILLISECONDS = {"": 1e-3, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "s": 1.0}
_JOULES = {"": 1.0, "J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6, "kJ": 1e3}
BYTES = {
    "": 1.0,
    "B": 1.0,
    **{f"{prefix}B": 1000.0**n for n, prefix in enumerate(("k", "M", "G", "T"), 1)},
    **{f"{prefix}iB": 1024.0**n for n, prefix in enumerate(("K", "M", "G", "T"), 1)},
}
_BITS = {"": 1.0}

OPTIONS = (
    Option("--max-latency-ms", "decode_s", _MILLISECONDS, "0.5"),
    Option("--max-ttft-ms", "prefill_s", _MILLISECONDS, "200"),
    Option("--max-memory", "peak_bytes", BYTES, "200MB, 1.5GB or 512MiB"),
    Option("--max-file", "file_bytes", BYTES, "200MB, 1.5GB or 512MiB"),
    Option("--max-energy-j", "decode_j", _JOULES, "0.02 or 20mJ"),
    Option("--max-bits-per-byte", "bits_per_byte", _BITS, "2.45"),
    Option("--max-kl", "divergence_bits", _BITS, "0.01"),
)
BY_OPTION = {option.name: option for option in OPTIONS}
_AMOUNT = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\D*?)\s*", re.ASCII)


def parse_limit(name: str, text: str) -> Limit:
    """The limit that an option and its text ask for. Raises UsageError in one line."""
    option = BY_OPTION[name]
    return Limit(name, option.metric, parse_amount(option, text))


def parse_amount(option: Option, text: str) -> float:
    """The amount, above 0, in SI units, that was typed for an option. Raises UsageError in one line."""
    amount = _AMOUNT.fullmatch(text)
    if amount is None:
        raise UsageError(f"{option.name} {_quoted(text)} is not a number; write {option.example}")
    value = float(amount[1]) * _unit(option, amount[2], text)
    if not (0 < value < math.inf):
        raise UsageError(
            f"{option.name} {_quoted(text)} must be above 0 and finite; write {option.example}"
        )
    return value


def _quoted(text: str) -> str:
    return "''" if not text.strip() else text if len(text) < 40 else f"{text[:37]}..."


def _unit(option: Option, typed: str, text: str) -> float:
    """The SI value of a unit; of bytes in either case, since nobody has half a byte."""
    typed = typed.replace("\u03bc", "\u00b5")  # Greek mu, for the micro sign
    known = option.units
    if option.units is BYTES:
        known, typed = {unit.lower(): value for unit, value in known.items()}, typed.lower()
    if typed not in known:
        units = ", ".join(unit for unit in option.units if unit)
        takes = f"its units are {units}" if units else "it has no unit"
        raise UsageError(f"{option.name} {_quoted(text)}: {takes}; write {option.example}")
    return known[typed]


def typed(limit: Limit, value: float) -> str:
    """What to type so that `value` is just within: three digits rounded up, five of bits."""
    option = BY_OPTION[limit.option]
    unit = _handy(option.units, value)
    scale = option.units[unit]
    places = (4 if option.units is _BITS else 2) - math.floor(math.log10(value / scale))
    steps = math.ceil(round(value / scale * 10**places, 6))
    while _written(steps, places, unit, option) < value:
        steps += 1
    return f"{option.name} {_decimal(steps, places)}{unit}"


def _written(steps: int, places: int, unit: str, option: Option) -> float:
    return parse_limit(option.name, f"{_decimal(steps, places)}{unit}").most


def _decimal(steps: int, places: int) -> str:
    if places <= 0:
        return str(steps * 10**-places)
    return f"{steps / 10**places:.{places}f}".rstrip("0").rstrip(".")


def _handy(units: dict[str, float], value: float) -> str:
    """No unit, except for bytes: there, and in joules below a thousandth, the largest that leaves a number above 1."""
    if units is _JOULES:
        return next((u for u in ("", "mJ", "uJ") if value >= 0.001 * units[u] or u == "uJ"), "")
    if units is not BYTES:
        return ""
    return next((u for u in ("TB", "GB", "MB", "kB") if value >= units[u]), "B")
