"""Ratios of edgecap's graphs to their peers, paired by round, and what was asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgecap.stats import draws_of_median, interval, median
from peers.turns import Times

REFERENCE = "edgecap fp32 plain"
EXACT = ("edgecap fp32 plain", "edgecap fp32", "builder fp32", "llama.cpp F32")
NEAR = 1e-3  # standard deviations of ln p: another order of sums made 4e-5, heads left unturned for llama.cpp 5.5


class Asked(NamedTuple):
    """The faster of `ours` against `peer` in tasks of a kind, and the ratio asked; None where it is only shown."""

    kind: str
    ours: tuple[str, ...]
    peer: str
    limit: float | None


class Row(NamedTuple):
    """A ratio of seconds with its 95 % interval over rounds; below 1 edgecap is faster."""

    task: str
    ours: str
    peer: str
    ratio: float
    low: float
    high: float
    limit: float | None
    verdict: str


_INT8 = ("edgecap int8", "edgecap int8w")
ASKED = (
    Asked("decode", ("edgecap fp32",), "builder fp32", 1.10),
    Asked("decode", ("edgecap fp32",), "llama.cpp F32", None),
    Asked("decode", _INT8, "llama.cpp Q8_0", 1.15),
    Asked("decode", ("edgecap int4",), "llama.cpp Q4_0", 1.15),
    Asked("decode", ("edgecap int4",), "builder int4", None),
    Asked("decode", ("edgecap fp32",), "edgecap fp32 plain", None),
    Asked("prefill", ("edgecap fp32",), "llama.cpp F32", 1.0),
    Asked("prefill", _INT8, "llama.cpp Q8_0", 1.0),
    Asked("prefill", ("edgecap int4",), "llama.cpp Q4_0", 1.0),
    Asked("prefill", ("edgecap fp32",), "builder fp32", None),
    Asked("prefill", ("edgecap int4",), "builder int4", None),
    Asked("prefill", ("edgecap fp32",), "edgecap fp32 plain", None),
)


def rows(times: Times) -> list[Row]:
    """All that was asked and took part."""
    found = []
    for asked in ASKED:
        for task in (t for t in times if t.startswith(asked.kind) and asked.peer in times[t]):
            ours = min(asked.ours, key=lambda name, task=task: median(times[task][name]))
            found.append(_row(task, ours, asked, times[task][ours], times[task][asked.peer]))
    return found


def _row(task: str, ours: str, asked: Asked, mine: Sequence[float], theirs: Sequence[float]) -> Row:
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    value, low, high = interval(median(ratios), draws_of_median(ratios))
    low, high = value if low is None else low, value if high is None else high
    return Row(
        task,
        ours,
        asked.peer,
        value,
        low,
        high,
        asked.limit,
        _verdict(value, low, high, asked.limit),
    )


def _verdict(value: float, low: float, high: float, limit: float | None) -> str:
    if limit is None:
        return ""
    said = "met" if value <= limit else "not met"
    return f"{said}, not surely" if low <= limit < high else said


class Agreement(NamedTuple):
    """How far ln p of the next token is from the plain graph's, in its standard deviations, and the verdict."""

    name: str
    largest: float
    typical: float
    same_token: bool
    verdict: str


def agreements(found: dict[str, list[float]]) -> list[Agreement]:
    """All against the plain fp32 graph; those in fp32 must agree."""
    reference = np.array(found[REFERENCE])
    return [_agreement(name, np.array(values), reference) for name, values in found.items()]


def _agreement(name: str, values: np.ndarray, reference: np.ndarray) -> Agreement:
    apart = np.abs(values - reference) / reference.std()
    same = bool(values.argmax() == reference.argmax())
    agrees = "agrees" if same and apart.max() < NEAR else "DISAGREES"
    typical = float(np.sqrt((apart**2).mean()))
    return Agreement(name, float(apart.max()), typical, same, agrees if name in EXACT else "")
