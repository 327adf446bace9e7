"""What a cell needs, and whether a device has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap import __version__
from edgecap.provider_options import base_name
from edgecap.sweep.estimates import graph_bytes
from edgecap.sweep.fleet.connection import DeviceStatus
from edgecap.sweep.plan import PlannedCell

OTHER_DEVICE = "is another device"
MOST_LISTED = 20  # devices


class Task(NamedTuple):
    """A cell, or a part of its text."""

    cell: PlannedCell
    part: int | None = None


class TaskRequirements(NamedTuple):
    """What a task asks of a device; `device` is its name, or "" for any."""

    provider: str
    device: str
    energy: bool
    model: str
    precision: str


def requirements_of(task: Task) -> TaskRequirements:
    """A part of a text may be scored anywhere; a cell is measured where it is pinned."""
    spec, whole = task.cell.spec, task.part is None
    return TaskRequirements(
        provider=base_name(spec.providers[0]),
        device=task.cell.device if whole else "",
        energy=whole and spec.energy == "require",
        model=spec.model,
        precision=spec.precisions[0],
    )


def meets(seen: DeviceStatus, need: TaskRequirements) -> bool:
    """Whether a device has it all."""
    return not shortfall(seen, need)


def shortfall(seen: DeviceStatus, need: TaskRequirements) -> str:
    """What a device lacks; nothing where it can."""
    about = seen.about
    if need.device and about.name != need.device:
        return OTHER_DEVICE
    if about.edgecap != __version__:
        return f"runs edgecap {about.edgecap}"
    if need.provider not in about.providers:
        return f"has no {need.provider}"
    if need.energy and not about.counters:
        return "has no energy counter"
    if (graph_bytes(need.model, need.precision) or 0) > about.memory_bytes:
        return "has too little memory"
    return ""


def shortfalls(need: TaskRequirements, devices: Sequence[DeviceStatus]) -> str:
    """Who is there, and what each lacks; of others than the one that is asked for, nothing."""
    told = [
        f"{seen.about.name} {why}"
        for seen in devices
        if (why := shortfall(seen, need) or "does not answer") != OTHER_DEVICE
    ]
    there = ", ".join(sorted(seen.about.name for seen in devices)[:MOST_LISTED]) or "nobody"
    return ", ".join(told[:MOST_LISTED]) or (
        f"{need.device} is not there; who is: {there}" if need.device else "none is there"
    )
