"""What of a sweep is still to be done on a fleet: which task a device may have, and what it went through before.

Tasks lie in the order of the plan, apart by what they need of a device, so that thousands that wait for one device cost
the others nothing.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from edgecap.sweep.fleet.connection import DeviceStatus
from edgecap.sweep.fleet.requirements import Task, TaskRequirements, meets, requirements_of
from edgecap.sweep.plan import PlannedCell


class TaskQueue:
    """Tasks that nobody does now."""

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self._lines: dict[TaskRequirements, deque[tuple[int, Task]]] = {}
        self._behind, self._before = itertools.count(1), itertools.count(-1, -1)
        self._tried: dict[Task, list[tuple[str, str]]] = {}
        for task in tasks:
            self._lines.setdefault(requirements_of(task), deque()).append(
                (next(self._behind), task)
            )

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Task]:
        for line in tuple(self._lines.values()):
            yield from (task for _, task in tuple(line))

    @property
    def needs(self) -> list[TaskRequirements]:
        """What the tasks need, each once."""
        return [need for need, line in self._lines.items() if line]

    def of(self, need: TaskRequirements) -> list[Task]:
        """The tasks that need just this."""
        return [task for _, task in self._lines.get(need, ())]

    def first(self, task: Task) -> None:
        """Puts a task before all others."""
        self._lines.setdefault(requirements_of(task), deque()).appendleft(
            (next(self._before), task)
        )

    def remove(self, cell: PlannedCell) -> None:
        """Takes away what belongs to a cell; it costs a walk, and is needed where a cell has parts."""
        for need, line in self._lines.items():
            if any(task.cell is cell for _, task in line):
                self._lines[need] = deque(entry for entry in line if entry[1].cell is not cell)

    def taken(self, seen: DeviceStatus, devices: Sequence[DeviceStatus]) -> Task | None:
        """The first task that a device can do, taken out; those that went wrong on it go elsewhere, while there is one."""
        able = [need for need in self.needs if meets(seen, need)]
        for need in sorted(able, key=lambda need: self._lines[need][0][0]):
            line = self._lines[need]
            for entry in line:
                if not self._better_elsewhere(entry[1], need, seen, devices):
                    line.remove(entry)
                    return entry[1]
        return None

    def _better_elsewhere(
        self,
        task: Task,
        need: TaskRequirements,
        seen: DeviceStatus,
        devices: Sequence[DeviceStatus],
    ) -> bool:
        tried = {name for name, _ in self._tried.get(task, ())}
        if seen.about.name not in tried:
            return False
        return any(
            other.heard and other.about.name not in tried and meets(other, need)
            for other in devices
        )

    # --- what went wrong ----------------------------------------------------------------------

    def note(self, task: Task, device: str, what: str) -> None:
        """Remembers that a try went wrong."""
        self._tried.setdefault(task, []).append((device, what))

    def tries(self, task: Task) -> list[tuple[str, str]]:
        """The tries of a task that went wrong: the device, and what it was."""
        return self._tried.get(task, [])
