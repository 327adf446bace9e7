"""Limits that a user sets: option, metric and SI value of each, and its text on a command line."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from edgecap.errors import UsageError
from edgecap.parsing import BITS, BYTES, JOULES, MILLISECONDS, parse_amount


class Limit(msgspec.Struct, frozen=True):
    """An upper limit of a metric, `most` in SI units; `option` is the option that set it."""

    option: str
    metric: str
    most: float


class Option(NamedTuple):
    """An option that sets a limit: its metric, the SI value of each unit, and an example."""

    name: str
    metric: str
    units: dict[str, float]
    example: str


OPTIONS = (
    Option("--max-latency-ms", "decode_s", MILLISECONDS, "0.5"),
    Option("--max-ttft-ms", "prefill_s", MILLISECONDS, "200"),
    Option("--max-memory", "peak_bytes", BYTES, "200MB, 1.5GB or 512MiB"),
    Option("--max-file", "file_bytes", BYTES, "200MB, 1.5GB or 512MiB"),
    Option("--max-energy-j", "decode_j", JOULES, "0.02 or 20mJ"),
    Option("--max-bits-per-byte", "bits_per_byte", BITS, "2.45"),
    Option("--max-kl", "divergence_bits", BITS, "0.01"),
)
BY_OPTION = {option.name: option for option in OPTIONS}


def parse_limit(name: str, text: str) -> Limit:
    """Return the limit that an option and its text set. Raise UsageError with one line."""
    option = BY_OPTION[name]
    try:
        return Limit(name, option.metric, parse_amount(text, option.units, option.example))
    except UsageError as error:
        raise UsageError(f"{name} {error}") from error


def option_text(limit: Limit, value: float) -> str:
    """Return the option with the amount that just admits `value`.

    The amount has three digits, five for bits, and is rounded up.
    """
    option = BY_OPTION[limit.option]
    unit = _readable_unit(option.units, value)
    scale = option.units[unit]
    places = (4 if option.units is BITS else 2) - math.floor(math.log10(value / scale))
    steps = math.ceil(round(value / scale * 10**places, 6))
    while _parsed(steps, places, unit, option) < value:
        steps += 1
    return f"{option.name} {_decimal(steps, places)}{unit}"


def _parsed(steps: int, places: int, unit: str, option: Option) -> float:
    return parse_limit(option.name, f"{_decimal(steps, places)}{unit}").most


def _decimal(steps: int, places: int) -> str:
    if places <= 0:
        return str(steps * 10**-places)
    return f"{steps / 10**places:.{places}f}".rstrip("0").rstrip(".")


def _readable_unit(units: dict[str, float], value: float) -> str:
    """Return the unit for an amount.

    Bytes take the largest unit that leaves at least 1; joules take none down to 0.001 J, then mJ or
    uJ; all others take none.
    """
    if units is JOULES:
        return next((u for u in ("", "mJ", "uJ") if value >= 0.001 * units[u] or u == "uJ"), "")
    if units is not BYTES:
        return ""
    return next((u for u in ("TB", "GB", "MB", "kB") if value >= units[u]), "B")
