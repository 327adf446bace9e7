"""Words on the machine of a record that tables and pages share."""

from __future__ import annotations

from edgecap.record import Machine
from edgecap.units import size


def container_limits(machine: Machine) -> str:
    """Return the limits of the container, such as `CPU quota 1.5 processors`; "" without any."""
    quota, memory = machine.cpu_quota, machine.memory_limit_bytes
    words = [
        *([] if quota is None else [f"CPU quota {quota:.3g} processors"]),
        *([] if memory is None else [f"memory limit {size(memory)}"]),
    ]
    return ", ".join(words)
