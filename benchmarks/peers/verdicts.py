"""Ratios of edgecap's numbers to those of its peers, and their targets.

Ratios of times are paired by round. Bits, bytes and resident memory have no rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgecap.stats import bootstrap_medians, interval, median
from peers.turns import Times

FP32 = "edgecap fp32"
EXACT = ("edgecap fp32 plain", "edgecap fp32", "builder fp32", "llama.cpp F32")
# Standard deviations of ln p. Another order of sums made 4e-5, wrong rotations for llama.cpp 5.5.
NEAR = 1e-3


# Peak memory of `LEAN` at most: a share of the file, and what interpreter and runtime need.
LEAN, SHARE_OF_FILE, REST_BYTES = ("edgecap int8", "edgecap int4"), 1.2, 150e6


class Target(NamedTuple):
    """The largest ratio of `ours` to `peer` in tasks of a kind; None: only shown."""

    kind: str
    ours: str
    peer: str
    limit: float | None


class Row(NamedTuple):
    """A ratio, and its 95 % interval over rounds. Below 1 edgecap is faster, smaller or closer."""

    task: str
    ours: str
    peer: str
    ratio: float
    low: float
    high: float
    limit: float | None
    verdict: str


TARGETS = (
    Target("decode", "edgecap fp32", "builder fp32", 1.10),
    Target("decode", "edgecap fp32", "llama.cpp F32", None),
    Target("decode", "edgecap int8", "llama.cpp Q8_0", 1.0),
    Target("decode", "edgecap int4", "llama.cpp Q4_0", 1.0),
    Target("decode", "edgecap int4", "llama.cpp Q4_K_M", 1.0),
    Target("decode", "edgecap int4", "builder default", None),
    Target("decode", "edgecap int4", "builder k_quant_mixed", None),
    Target("decode", "edgecap fp32", "edgecap fp32 plain", None),
    Target("prefill", "edgecap fp32", "llama.cpp F32", 1.0),
    Target("prefill", "edgecap int8", "llama.cpp Q8_0", 0.6),
    Target("prefill", "edgecap int4", "llama.cpp Q4_0", 1.0),
    Target("prefill", "edgecap int4", "llama.cpp Q4_K_M", None),
    Target("prefill", "edgecap fp32", "builder fp32", None),
    Target("prefill", "edgecap int4", "builder default", None),
    Target("prefill", "edgecap fp32", "edgecap fp32 plain", None),
)
FIXED = (
    Target("kl", "edgecap int8", "llama.cpp Q8_0", 1.2),
    Target("bytes", "edgecap int8", "llama.cpp Q8_0", 1.05),
    Target("kl", "edgecap int4", "llama.cpp Q4_K_M", 1.0),
    Target("bytes", "edgecap int4", "llama.cpp Q4_K_M", 1.0),
    Target("kl", "edgecap int4s", "llama.cpp Q4_0", None),
    Target("bytes", "edgecap int4s", "llama.cpp Q4_0", None),
)


def rows(times: Times, kept: Mapping[str, str]) -> list[Row]:
    """Return the ratios of seconds of all targets whose sides took part in one run.

    `kept` has the run of each contestant that was not in the last one.
    """
    return [
        _row(task, target, both[target.ours], both[target.peer])
        for target in TARGETS
        for task, both in times.items()
        if task.startswith(target.kind) and {target.ours, target.peer} <= both.keys()
        if kept.get(target.ours) == kept.get(target.peer)
    ]


def fixed_rows(numbers: dict[str, dict[str, Any]]) -> list[Row]:
    """Return the ratios of bits, bytes and memory of all targets; `numbers` by contestant."""
    compared = []
    for target in FIXED:
        mine, theirs = (numbers.get(n, {}).get(target.kind) for n in (target.ours, target.peer))
        if mine is not None and theirs:
            compared.append(_one(target, mine / theirs))
    for name in LEAN:
        peak = numbers.get(name, {}).get("peak_bytes")
        if peak is not None:
            allowed = SHARE_OF_FILE * numbers[name]["bytes"] + REST_BYTES
            compared.append(
                _one(Target("memory", name, "1.2 x file + 150 MB", 1.0), peak / allowed)
            )
    return compared


def _one(target: Target, ratio: float) -> Row:
    verdict = _verdict(ratio, ratio, ratio, target.limit)
    kind, ours, peer, limit = target
    return Row(kind, ours, peer, ratio, ratio, ratio, limit, verdict)


def _row(task: str, target: Target, mine: Sequence[float], theirs: Sequence[float]) -> Row:
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    ratio = interval(median(ratios), bootstrap_medians(ratios))
    value = ratio.value
    low, high = (value if bound is None else bound for bound in (ratio.low, ratio.high))
    verdict = _verdict(value, low, high, target.limit)
    return Row(task, target.ours, target.peer, value, low, high, target.limit, verdict)


def _verdict(value: float, low: float, high: float, limit: float | None) -> str:
    if limit is None:
        return ""
    verdict = "met" if value <= limit else "not met"
    return f"{verdict}, uncertain" if low <= limit < high else verdict


class Agreement(NamedTuple):
    """Distance of ln p of the next token from edgecap's fp32, in standard deviations."""

    name: str
    largest: float
    typical: float
    same_token: bool
    verdict: str


def agreements(ln_p: dict[str, list[float]]) -> list[Agreement]:
    """Compare all contestants with edgecap's fp32; those in fp32 must agree."""
    reference = np.array(ln_p[FP32])
    return [_agreement(name, np.array(values), reference) for name, values in ln_p.items()]


def _agreement(name: str, values: np.ndarray, reference: np.ndarray) -> Agreement:
    apart = np.abs(values - reference) / reference.std()
    same = bool(values.argmax() == reference.argmax())
    agrees = "agrees" if same and apart.max() < NEAR else "DISAGREES"
    typical = float(np.sqrt((apart**2).mean()))
    return Agreement(name, float(apart.max()), typical, same, agrees if name in EXACT else "")
