"""What a cell needs, and whether a device has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap import __version__
from edgecap.provider_options import base
from edgecap.sweep.estimates import graph_bytes
from edgecap.sweep.fleet.line import Seen
from edgecap.sweep.plan import Planned

OTHER = "is another device"
MOST_TOLD = 20  # devices


class Task(NamedTuple):
    """A cell, or a part of its text."""

    cell: Planned
    part: int | None = None


class TaskRequirements(NamedTuple):
    """What a task asks of a device; `device` is its name, or "" for any."""

    provider: str
    device: str
    energy: bool
    model: str
    precision: str


def need_of(task: Task) -> TaskRequirements:
    """A part of a text may be scored anywhere; a cell is measured where it is pinned."""
    spec, whole = task.cell.spec, task.part is None
    return TaskRequirements(
        provider=base(spec.providers[0]),
        device=task.cell.device if whole else "",
        energy=whole and spec.energy == "require",
        model=spec.model,
        precision=spec.precisions[0],
    )


def can(seen: Seen, need: TaskRequirements) -> bool:
    """Whether a device has it all."""
    return not why_not(seen, need)


def why_not(seen: Seen, need: TaskRequirements) -> str:
    """What a device lacks; nothing where it can."""
    about = seen.about
    if need.device and about.name != need.device:
        return OTHER
    if about.edgecap != __version__:
        return f"runs edgecap {about.edgecap}"
    if need.provider not in about.providers:
        return f"has no {need.provider}"
    if need.energy and not about.counters:
        return "has no energy counter"
    if (graph_bytes(need.model, need.precision) or 0) > about.memory_bytes:
        return "has too little memory"
    return ""


def lack_of(need: TaskRequirements, devices: Sequence[Seen]) -> str:
    """Who is there, and what each lacks; of others than the one that is asked for, nothing."""
    told = [
        f"{seen.about.name} {why}"
        for seen in devices
        if (why := why_not(seen, need) or "does not answer") != OTHER
    ]
    there = ", ".join(sorted(seen.about.name for seen in devices)[:MOST_TOLD]) or "nobody"
    return ", ".join(told[:MOST_TOLD]) or (
        f"{need.device} is not there; who is: {there}" if need.device else "none is there"
    )
