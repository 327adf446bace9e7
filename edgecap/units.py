"""Format numbers for people: significant digits and prefixes. Records and JSON use plain SI."""

from __future__ import annotations

import math

_PREFIXES = (
    (1e15, "P"),
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
    (1e-9, "n"),
    (1e-12, "p"),
)
_BEYOND = 1e18  # the least number that has no prefix


def significant(value: float, digits: int = 3) -> str:
    """Format with so many significant digits: 0.0123, 1.23, 123, 12,346.

    Only numbers from 1e15 and below 1e-9 have an exponent.
    """
    if value == 0:
        return "0"
    if not 1e-9 <= abs(value) < 1e15:
        return f"{value:.{digits - 1}e}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{places}f}".rstrip("0").rstrip(".")


def si(value: float, unit: str = "", digits: int = 3) -> str:
    """Format with an SI prefix: `si(0.0123, "s") == "12.3 ms"`; the unit may be empty.

    Beyond the prefixes there is an exponent: `si(1.234e40, "FLOP") == "1.23e+40 FLOP"`.
    """
    if value == 0:
        return f"0 {unit}".rstrip()
    if abs(value) >= _BEYOND:
        return f"{value:.{digits - 1}e} {unit}".rstrip()
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor * (1 - 0.5 * 10**-digits):
            return f"{significant(value / factor, digits)} {prefix}{unit}".rstrip()
    return f"{value:.{digits - 1}e} {unit}".rstrip()


def count(value: float) -> str:
    """Return a count with a prefix, as for models: `count(70.6e9) == "70.6 B"`."""
    return si(value).replace("G", "B")


def size(value: float) -> str:
    """Format bytes with decimal prefixes: `size(25_800_000) == "25.8 MB"`."""
    return si(value, "B")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 document, 2,000 documents."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
