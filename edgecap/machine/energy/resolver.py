"""Which counters make up the total of a run, and why not the others; pure, nothing is opened here.

A counter's scope says what it is part of. A run's total is the first of these that is there:

    1  the parts: the board that does the work, and the processor with its memory that serves it
    2  a counter of the whole board (Jetson, Raspberry Pi, Apple)
    3  the working part alone; what it lacks is said
    4  a counter of the whole machine (battery, wall meter)

What holds the total, or overlaps it, is shown beside it and never added: psys, a battery, a wall meter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from edgecap.machine.energy.joined import JoinedCounter
from edgecap.protocols import EnergySource, Trace
from edgecap.record import Absent, LeftOut

_NVIDIA, _AMD, _PROCESSOR = ("nvidia", "processor"), ("amd", "processor"), ("processor",)
# The parts of a run by provider, the working one first; of several kinds, that which is there. Providers that
# are not here (coreml, qnn) run where only the whole board or machine is counted.
_PARTS: dict[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(("cpu", "xnnpack", "acl", "dnnl", "openvino"), (_PROCESSOR,)),
    **dict.fromkeys(("cuda", "tensorrt", "nvtensorrtrtx"), (_NVIDIA,)),
    **dict.fromkeys(("rocm", "migraphx"), (_AMD,)),
    **dict.fromkeys(("dml", "webgpu"), (_NVIDIA, _AMD)),
}
_WHOLE = ("board", "machine")
_BESIDE = (
    *_WHOLE,
    "platform",
)  # psys: what a vendor counts as the platform differs, so it is no total


class Resolution(NamedTuple):
    """The counter of a run's total, those shown beside it, and what was left out."""

    counter: EnergySource | Absent
    beside: tuple[EnergySource, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def resolve(provider: str, found: Sequence[EnergySource | LeftOut]) -> Resolution:
    """The total of a run on `provider` from what was found; nothing is added twice."""
    counters = [f for f in found if not isinstance(f, LeftOut)]
    refused = [f for f in found if isinstance(f, LeftOut)]
    parts = _parts(provider, counters)
    taken = _take(parts, counters, refused)
    beside = tuple(c for c in counters if c not in taken and c.scope in _BESIDE) if taken else ()
    unused = [c for c in counters if c not in taken and c not in beside]
    left_out = (*_refused(refused, taken, parts), *_unused(unused, taken, provider))
    return Resolution(_total(taken) or _nothing(provider, parts, refused), beside, left_out)


def providers_of_scope(scope: str) -> tuple[str, ...]:
    """The providers whose work a counter of this scope shows first."""
    return tuple(p for p, options in _PARTS.items() if any(o[0] == scope for o in options))


def _parts(provider: str, counters: Sequence[EnergySource]) -> tuple[str, ...]:
    options = _PARTS.get(provider, ((),))
    scopes = {c.scope for c in counters}
    return next((o for o in options if o and o[0] in scopes), options[0])


def _take(
    parts: tuple[str, ...], counters: Sequence[EnergySource], refused: Sequence[LeftOut]
) -> list[EnergySource]:
    """The counters that are added up; a run on boards of which one is refused has no working part."""
    by_scope = {s: [c for c in counters if c.scope == s] for s in (*parts, *_WHOLE)}
    broken = {r.scope for r in refused if r.missing} - {"processor"}
    working = [c for s in parts[:1] if s not in broken for c in by_scope[s]]
    together = working + [c for s in parts[1:] for c in by_scope[s]]
    complete = bool(working) and all(by_scope[s] for s in parts)
    options = (
        together if complete else [],
        by_scope["board"][:1],
        together if working else [],
        by_scope["machine"][:1],
    )
    return next((o for o in options if o), [])


def _total(taken: Sequence[EnergySource]) -> EnergySource | None:
    if len(taken) == 1:
        return taken[0]
    return JoinedCounter([c for c in taken if not isinstance(c, Trace)]) if taken else None


def _refused(
    refused: Sequence[LeftOut], taken: Sequence[EnergySource], parts: tuple[str, ...]
) -> list[LeftOut]:
    """What could not be read; `missing` stays where the total lacks it."""
    whole = not taken or taken[0].scope in _WHOLE
    wanted = set() if whole else set(parts)
    return [msgspec.structs.replace(r, missing=r.missing and r.scope in wanted) for r in refused]


def _unused(
    unused: Sequence[EnergySource], taken: Sequence[EnergySource], provider: str
) -> list[LeftOut]:
    within = (
        f"within {taken[0].name}"
        if taken and taken[0].scope in _WHOLE
        else f"no part of a run on {provider}"
    )
    return [LeftOut(name=c.name, reason=within, scope=c.scope) for c in unused]


def _nothing(provider: str, parts: tuple[str, ...], refused: Sequence[LeftOut]) -> Absent:
    """Why there is no total: the reasons of what could have made it."""
    could = [r for r in refused if r.scope in (*parts[:1], *_WHOLE)]
    reasons = [r.reason for r in could if r.missing] or [r.reason for r in could]
    reason = (
        "; ".join(dict.fromkeys(reasons))
        or f"no energy counter for provider '{provider}' on this machine"
    )
    return Absent(reason=reason)
