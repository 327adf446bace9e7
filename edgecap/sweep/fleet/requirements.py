"""Requirements of a task, and whether a device meets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap import __version__
from edgecap.provider_options import base_name
from edgecap.sweep.estimates import graph_bytes
from edgecap.sweep.fleet.connection import DeviceStatus
from edgecap.sweep.plan import PlannedCell

OTHER_DEVICE = "is another device"
MOST_LISTED = 20  # devices in a message


class Task(NamedTuple):
    """Cell to measure, or a part of its text to score."""

    cell: PlannedCell
    part: int | None = None


class TaskRequirements(NamedTuple):
    """Requirements of a task; `device` is a name, or "" for any device."""

    provider: str
    device: str
    energy: bool
    model: str
    precision: str


def requirements_of(task: Task) -> TaskRequirements:
    """Return the requirements of a task; parts of a text may be scored on any device."""
    spec, whole = task.cell.spec, task.part is None
    return TaskRequirements(
        provider=base_name(spec.providers[0]),
        device=task.cell.device if whole else "",
        energy=whole and spec.energy == "require",
        model=spec.model,
        precision=spec.precisions[0],
    )


def meets(device: DeviceStatus, requirements: TaskRequirements) -> bool:
    """Return True if a device meets all requirements."""
    return not shortfall(device, requirements)


def shortfall(device: DeviceStatus, requirements: TaskRequirements) -> str:
    """Return the first requirement that a device does not meet, in words; "" if none."""
    info = device.info
    if requirements.device and info.name != requirements.device:
        return OTHER_DEVICE
    if info.edgecap != __version__:
        return f"runs edgecap {info.edgecap}"
    if requirements.provider not in info.providers:
        return f"has no {requirements.provider}"
    if requirements.energy and not info.counters:
        return "has no energy counter"
    if (graph_bytes(requirements.model, requirements.precision) or 0) > info.memory_bytes:
        return "has too little memory"
    return ""


def shortfalls(requirements: TaskRequirements, devices: Sequence[DeviceStatus]) -> str:
    """Describe why no device can run a task: what each lacks, or which devices are connected."""
    reasons = [
        f"{device.info.name} {why}"
        for device in devices
        if (why := shortfall(device, requirements) or "does not answer") != OTHER_DEVICE
    ]
    names = ", ".join(sorted(device.info.name for device in devices)[:MOST_LISTED]) or "none"
    return ", ".join(reasons[:MOST_LISTED]) or (
        f"{requirements.device} is not connected; connected: {names}"
        if requirements.device
        else "no device is connected"
    )
