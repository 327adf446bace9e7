"""Ratios of edgecap's times to those of its peers, paired by round, and their targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgecap.stats import bootstrap_medians, interval, median
from peers.turns import Times

REFERENCE = "edgecap fp32 plain"
EXACT = ("edgecap fp32 plain", "edgecap fp32", "builder fp32", "llama.cpp F32")
# Standard deviations of ln p. Another order of sums made 4e-5, wrong rotations for llama.cpp 5.5.
NEAR = 1e-3


class Target(NamedTuple):
    """The largest ratio of the faster of `ours` to `peer` in tasks of a kind; None: only shown."""

    kind: str
    ours: tuple[str, ...]
    peer: str
    limit: float | None


class Row(NamedTuple):
    """A ratio of seconds with its 95 % interval over rounds. Below 1 edgecap is faster."""

    task: str
    ours: str
    peer: str
    ratio: float
    low: float
    high: float
    limit: float | None
    verdict: str


_INT8 = ("edgecap int8", "edgecap int8w")
TARGETS = (
    Target("decode", ("edgecap fp32",), "builder fp32", 1.10),
    Target("decode", ("edgecap fp32",), "llama.cpp F32", None),
    Target("decode", _INT8, "llama.cpp Q8_0", 1.15),
    Target("decode", ("edgecap int4",), "llama.cpp Q4_0", 1.15),
    Target("decode", ("edgecap int4",), "builder int4", None),
    Target("decode", ("edgecap fp32",), "edgecap fp32 plain", None),
    Target("prefill", ("edgecap fp32",), "llama.cpp F32", 1.0),
    Target("prefill", _INT8, "llama.cpp Q8_0", 1.0),
    Target("prefill", ("edgecap int4",), "llama.cpp Q4_0", 1.0),
    Target("prefill", ("edgecap fp32",), "builder fp32", None),
    Target("prefill", ("edgecap int4",), "builder int4", None),
    Target("prefill", ("edgecap fp32",), "edgecap fp32 plain", None),
)


def rows(times: Times) -> list[Row]:
    """Return the ratios of all targets whose peers took part."""
    compared = []
    for target in TARGETS:
        for task in (t for t in times if t.startswith(target.kind) and target.peer in times[t]):
            ours = min(target.ours, key=lambda name, task=task: median(times[task][name]))
            compared.append(_row(task, ours, target, times[task][ours], times[task][target.peer]))
    return compared


def _row(
    task: str, ours: str, target: Target, mine: Sequence[float], theirs: Sequence[float]
) -> Row:
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    ratio = interval(median(ratios), bootstrap_medians(ratios))
    value = ratio.value
    low, high = (value if bound is None else bound for bound in (ratio.low, ratio.high))
    verdict = _verdict(value, low, high, target.limit)
    return Row(task, ours, target.peer, value, low, high, target.limit, verdict)


def _verdict(value: float, low: float, high: float, limit: float | None) -> str:
    if limit is None:
        return ""
    verdict = "met" if value <= limit else "not met"
    return f"{verdict}, uncertain" if low <= limit < high else verdict


class Agreement(NamedTuple):
    """Distance of ln p of the next token from the plain graph, in standard deviations."""

    name: str
    largest: float
    typical: float
    same_token: bool
    verdict: str


def agreements(ln_p: dict[str, list[float]]) -> list[Agreement]:
    """Compare all contestants with the plain fp32 graph; those in fp32 must agree."""
    reference = np.array(ln_p[REFERENCE])
    return [_agreement(name, np.array(values), reference) for name, values in ln_p.items()]


def _agreement(name: str, values: np.ndarray, reference: np.ndarray) -> Agreement:
    apart = np.abs(values - reference) / reference.std()
    same = bool(values.argmax() == reference.argmax())
    agrees = "agrees" if same and apart.max() < NEAR else "DISAGREES"
    typical = float(np.sqrt((apart**2).mean()))
    return Agreement(name, float(apart.max()), typical, same, agrees if name in EXACT else "")
