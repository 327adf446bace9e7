"""Parse text that people type: names, whole numbers, ranges, KEY=VALUE pairs, amounts with units.

Options of the command line, plans and the recommendation share these functions. Each raises
UsageError with one line that repeats the text and shows an example; the caller adds the option.
`provider_options` parses execution providers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from edgecap.errors import UsageError, did_you_mean

# SI value of each unit. The empty unit is that of a plain number.
BITS = {"": 1.0}
MILLISECONDS = {"": 1e-3, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "s": 1.0}
JOULES = {"": 1.0, "J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "µJ": 1e-6, "kJ": 1e3}
AGES = {"m": 60.0, "h": 3600.0, "d": 86_400.0}
BYTES = {
    "": 1.0,
    "B": 1.0,
    **{f"{prefix}B": 1000.0**n for n, prefix in enumerate(("k", "M", "G", "T"), 1)},
    **{f"{prefix}iB": 1024.0**n for n, prefix in enumerate(("K", "M", "G", "T"), 1)},
}
LONGEST_LIST = 100_000  # numbers of a range
MOST_PROCESSORS = 4096
_AMOUNT = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\D*?)\s*", re.ASCII)


# --- lists ------------------------------------------------------------------------------------


def parse_list(text: str) -> tuple[str, ...]:
    """Split at commas and drop empty parts: `"./a, ./b,"` -> `("./a", "./b")`."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_name(text: str) -> str:
    """Read one name: `" FP32"` -> `"fp32"`."""
    return text.strip().lower()


def parse_names(text: str) -> tuple[str, ...]:
    """Split names at commas, in lower case: `"FP32, int8"` -> `("fp32", "int8")`."""
    return tuple(map(parse_name, parse_list(text)))


def parse_integers(text: str) -> tuple[int, ...]:
    """Read whole numbers in the order given: `"512,128"` -> `(512, 128)`. Raise UsageError."""
    try:
        return tuple(int(part) for part in parse_list(text))
    except ValueError:
        raise UsageError(f"{shortened(text)}: write whole numbers, as 128,512") from None


def parse_series(text: str) -> tuple[int, ...]:
    """Read a list or a range as rising whole numbers. Raise UsageError.

    `"512,128"` -> `(128, 512)`, `"128:1024:x2"` -> `(128, 256, 512, 1024)`,
    `"128:384:+128"` -> `(128, 256, 384)`; the step of `"2:9"` is x2.
    """
    try:
        first, *rest = text.split(":")
        if not rest:
            return tuple(sorted({int(part) for part in text.split(",")}))
        step = rest[1] if rest[1:] else "x2"
        numbers = _range(int(first), int(rest[0]), step[0], int(step[1:]))
    except (ValueError, IndexError):
        numbers = ()
    if not numbers:
        raise UsageError(
            f"{shortened(text)}: write numbers as 1,4,16 or FIRST:LAST:xFACTOR or FIRST:LAST:+STEP"
        )
    return numbers


def _range(first: int, last: int, sign: str, step: int) -> tuple[int, ...]:
    """Count from `first` to at most `last`, times or plus `step`; return () for a wrong range."""
    smallest = {"x": 2, "+": 1}.get(sign, math.inf)
    if step < smallest or not 1 <= first <= last or (last - first) / step > LONGEST_LIST:
        return ()
    numbers = [first]
    while (number := numbers[-1] * step if sign == "x" else numbers[-1] + step) <= last:
        numbers.append(number)
    return tuple(numbers)


def parse_processors(text: str) -> tuple[int, ...]:
    """Read processor numbers and spans of them: `"0,2-3"` -> `(0, 2, 3)`. Raise UsageError."""
    numbers: set[int] = set()
    for part in parse_list(text):
        first, dash, last = part.partition("-")
        if (
            not first.isdecimal()
            or (dash and not last.isdecimal())
            or int(last or first) - int(first) not in range(MOST_PROCESSORS)
        ):
            raise UsageError(f"{shortened(text)}: write whole numbers from 0, as 0,2 or 0-3")
        numbers.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(numbers))


def parse_pairs(text: str, keys: Sequence[str]) -> dict[str, str]:
    """Read `KEY=VALUE[,KEY=VALUE]` with these keys. Raise UsageError."""
    pairs = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or key not in keys:
            forms = " or ".join(f"{known}=NAME" for known in keys)
            raise UsageError(f"{shortened(part)} is not {forms}{did_you_mean(key, keys)}")
        pairs[key] = value.strip()
    return pairs


# --- amounts ----------------------------------------------------------------------------------


def parse_amount(text: str, units: Mapping[str, float], example: str) -> float:
    """Read a positive amount with a unit, in SI units: `"200MB"` -> `200e6`. Raise UsageError.

    `units` is one of the tables above; the case of bytes does not count.
    """
    amount = _AMOUNT.fullmatch(text)
    if amount is None:
        raise UsageError(f"{shortened(text)} is not a number; write {example}")
    value = float(amount[1]) * _unit(units, amount[2], text, example)
    if not (0 < value < math.inf):
        raise UsageError(f"{shortened(text)} must be above 0 and finite; write {example}")
    return value


def _unit(units: Mapping[str, float], unit: str, text: str, example: str) -> float:
    """Return the SI value of a unit. Raise UsageError if it is unknown."""
    unit = unit.replace("\u03bc", "\u00b5")  # Greek mu, for the micro sign
    known = units
    if units is BYTES:
        known, unit = {name.lower(): value for name, value in units.items()}, unit.lower()
    if unit not in known:
        names = ", ".join(name for name in units if name)
        takes = f"its units are {names}" if names else "it has no unit"
        raise UsageError(f"{shortened(text)}: {takes}; write {example}")
    return known[unit]


def shortened(text: str) -> str:
    """Return a text as an error message repeats it: at most 40 characters, '' for an empty one."""
    return "''" if not text.strip() else text if len(text) < 40 else f"{text[:37]}..."
