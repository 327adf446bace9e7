"""Queue of the tasks of a sweep: the next task for a device, and the failed attempts of each task.

Tasks keep the order of the plan, in one queue per requirements, so that thousands of tasks that
wait for one device do not slow down the others.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from edgecap.sweep.fleet.connection import DeviceStatus
from edgecap.sweep.fleet.requirements import Task, TaskRequirements, meets, requirements_of
from edgecap.sweep.plan import PlannedCell


class TaskQueue:
    """Tasks that wait for a device."""

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self._queues: dict[TaskRequirements, deque[tuple[int, Task]]] = {}
        self._behind, self._before = itertools.count(1), itertools.count(-1, -1)
        self._failures: dict[Task, list[tuple[str, str]]] = {}
        for task in tasks:
            self._queues.setdefault(requirements_of(task), deque()).append(
                (next(self._behind), task)
            )

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[Task]:
        for queue in tuple(self._queues.values()):
            yield from (task for _, task in tuple(queue))

    @property
    def requirements(self) -> list[TaskRequirements]:
        """List the requirements of the waiting tasks, without repeats."""
        return [requirements for requirements, queue in self._queues.items() if queue]

    def of(self, requirements: TaskRequirements) -> list[Task]:
        """Return the tasks with these requirements."""
        return [task for _, task in self._queues.get(requirements, ())]

    def push_front(self, task: Task) -> None:
        """Put a task at the front."""
        self._queues.setdefault(requirements_of(task), deque()).appendleft(
            (next(self._before), task)
        )

    def remove(self, cell: PlannedCell) -> None:
        """Remove all tasks of a cell; this scans the queues."""
        for requirements, queue in self._queues.items():
            if any(task.cell is cell for _, task in queue):
                self._queues[requirements] = deque(
                    entry for entry in queue if entry[1].cell is not cell
                )

    def pop(self, device: DeviceStatus, devices: Sequence[DeviceStatus]) -> Task | None:
        """Take the first task that a device can run.

        Skip a task that failed on it while another device can run the task.
        """
        able = [requirements for requirements in self.requirements if meets(device, requirements)]
        for requirements in sorted(able, key=lambda requirements: self._queues[requirements][0][0]):
            queue = self._queues[requirements]
            for entry in queue:
                if not self._better_elsewhere(entry[1], requirements, device, devices):
                    queue.remove(entry)
                    return entry[1]
        return None

    def _better_elsewhere(
        self,
        task: Task,
        requirements: TaskRequirements,
        device: DeviceStatus,
        devices: Sequence[DeviceStatus],
    ) -> bool:
        tried = {name for name, _ in self._failures.get(task, ())}
        if device.info.name not in tried:
            return False
        return any(
            other.alive and other.info.name not in tried and meets(other, requirements)
            for other in devices
        )

    # --- failed attempts ----------------------------------------------------------------------

    def add_failure(self, task: Task, device: str, reason: str) -> None:
        """Record a failed attempt of a task."""
        self._failures.setdefault(task, []).append((device, reason))

    def failures(self, task: Task) -> list[tuple[str, str]]:
        """Return the failed attempts of a task: device and reason."""
        return self._failures.get(task, [])
