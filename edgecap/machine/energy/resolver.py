"""Choose the counters that make up the total of a run; opens nothing.

A counter's scope says what its domains are part of. A run's total is the first one available:

    1  the parts: the board that does the work, and the processor that serves it, with memory
    2  a counter of the whole board (Jetson, Raspberry Pi, Apple)
    3  the working part alone; the missing parts are reported
    4  a counter of the whole machine (battery, wall meter)

A counter that contains or overlaps the total is shown beside it and never added: psys, a battery, a
wall meter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from edgecap.machine.energy.joined import JoinedCounter
from edgecap.protocols import EnergySource, Trace
from edgecap.record import Absent, LeftOut

_NVIDIA, _AMD, _PROCESSOR = ("nvidia", "processor"), ("amd", "processor"), ("processor",)
# The parts of a run by provider, the working one first; of alternatives, the one that exists.
# Other providers (coreml, qnn) run where only the whole board or machine is counted.
_PARTS: dict[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(("cpu", "xnnpack", "acl", "dnnl", "openvino"), (_PROCESSOR,)),
    **dict.fromkeys(("cuda", "tensorrt", "nvtensorrtrtx"), (_NVIDIA,)),
    **dict.fromkeys(("rocm", "migraphx"), (_AMD,)),
    **dict.fromkeys(("dml", "webgpu"), (_NVIDIA, _AMD)),
}
_WHOLE = ("board", "machine")
# psys ("platform") is no total, since vendors count different parts of the platform.
_BESIDE = (*_WHOLE, "platform")


class Resolution(NamedTuple):
    """The counter of a run's total, those shown beside it, and those left out."""

    counter: EnergySource | Absent
    beside: tuple[EnergySource, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def resolve(provider: str, sources: Sequence[EnergySource | LeftOut]) -> Resolution:
    """Choose the total of a run on `provider` from all sources, without counting twice."""
    counters = [s for s in sources if not isinstance(s, LeftOut)]
    refused = [s for s in sources if isinstance(s, LeftOut)]
    parts = _parts(provider, counters)
    chosen = _choose(parts, counters, refused)
    beside = tuple(c for c in counters if c not in chosen and c.scope in _BESIDE) if chosen else ()
    unused = [c for c in counters if c not in chosen and c not in beside]
    left_out = (*_refused(refused, chosen, parts), *_unused(unused, chosen, provider))
    return Resolution(_total(chosen) or _no_total(provider, parts, refused), beside, left_out)


def providers_of_scope(scope: str) -> tuple[str, ...]:
    """Return the providers whose work a counter of this scope measures."""
    return tuple(p for p, options in _PARTS.items() if any(o[0] == scope for o in options))


def _parts(provider: str, counters: Sequence[EnergySource]) -> tuple[str, ...]:
    options = _PARTS.get(provider, ((),))
    scopes = {c.scope for c in counters}
    return next((o for o in options if o and o[0] in scopes), options[0])


def _choose(
    parts: tuple[str, ...], counters: Sequence[EnergySource], refused: Sequence[LeftOut]
) -> list[EnergySource]:
    """Return the counters to add up.

    If one of the boards that a run uses is refused, the run has no working part.
    """
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


def _total(chosen: Sequence[EnergySource]) -> EnergySource | None:
    if len(chosen) == 1:
        return chosen[0]
    return JoinedCounter([c for c in chosen if not isinstance(c, Trace)]) if chosen else None


def _refused(
    refused: Sequence[LeftOut], chosen: Sequence[EnergySource], parts: tuple[str, ...]
) -> list[LeftOut]:
    """Return the refused counters; `missing` stays set only for those that the total lacks."""
    whole = not chosen or chosen[0].scope in _WHOLE
    lacking = set() if whole else set(parts)
    return [msgspec.structs.replace(r, missing=r.missing and r.scope in lacking) for r in refused]


def _unused(
    unused: Sequence[EnergySource], chosen: Sequence[EnergySource], provider: str
) -> list[LeftOut]:
    within = (
        f"within {chosen[0].name}"
        if chosen and chosen[0].scope in _WHOLE
        else f"no part of a run on {provider}"
    )
    return [LeftOut(name=c.name, reason=within, scope=c.scope) for c in unused]


def _no_total(provider: str, parts: tuple[str, ...], refused: Sequence[LeftOut]) -> Absent:
    """Return why there is no total: the reasons of the counters that could be one."""
    candidates = [r for r in refused if r.scope in (*parts[:1], *_WHOLE)]
    reasons = [r.reason for r in candidates if r.missing] or [r.reason for r in candidates]
    reason = (
        "; ".join(dict.fromkeys(reasons))
        or f"no energy counter for provider '{provider}' on this machine"
    )
    return Absent(reason=reason)
