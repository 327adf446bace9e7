"""Dispatch the cells of a sweep to a fleet: each to one free device, which returns a record.

                queue ──▶ suitable free device ──▶ record ──▶ validated ──▶ finished
                  ▲                │
                  └── next attempt ┴── device lost, silent, failed, or sent an invalid record

After `attempts` failed attempts a cell is reported with the reason of each device. The scheduler
may be restarted: running cells are requested again, without counting an attempt. A text that is
scored in parts sends the parts first.
"""

from __future__ import annotations

import contextlib
import platform
import queue
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import msgspec

from edgecap.errors import DiskFull, EdgecapError, UsageError
from edgecap.meters.sharding import DocumentShare, Unequal
from edgecap.pipeline.worker import end_children
from edgecap.record import Failure
from edgecap.sweep.fleet.bundles import BuildFailed, Bundles
from edgecap.sweep.fleet.connection import (
    SILENT_S,
    ConnectionLost,
    DeviceStatus,
    FleetConnection,
    SchedulerLost,
)
from edgecap.sweep.fleet.conversation import TaskResult, run_task
from edgecap.sweep.fleet.requirements import Task, TaskRequirements, meets, shortfalls
from edgecap.sweep.fleet.scored_parts import ScoredParts, ScoredText
from edgecap.sweep.fleet.task_queue import TaskQueue
from edgecap.sweep.plan import EVERY, PlannedCell
from edgecap.sweep.runner import (
    DISK_PATIENCE_S,
    DISK_PAUSE_S,
    FLEET,
    SweepCallback,
    SweepEvent,
    failure_of,
)
from edgecap.sweep.state import Finished, SweepState

PAUSE_S = 0.5  # between checks of the devices


class FleetLimits(NamedTuple):
    """Limits: attempts per cell, seconds without device or scheduler, seconds of a full disk."""

    attempts: int = 3
    wait_s: float = 300.0
    disk_patience_s: float = DISK_PATIENCE_S


class FleetBackend:
    """Backend of a fleet: the devices of a scheduler."""

    def __init__(
        self,
        connection: FleetConnection,
        bundles: Bundles,
        limits: FleetLimits,
        keep_exports: bool = True,
    ) -> None:
        self._connection, self._bundles = connection, bundles
        self._limits, self._keep_exports = limits, keep_exports

    def devices(self, cells: Sequence[PlannedCell]) -> Sequence[PlannedCell]:
        """Replace "every" by each connected device. Raise UsageError if there is none."""
        if not any(cell.device == EVERY for cell in cells):
            return cells
        names = self._device_names()
        return [
            msgspec.structs.replace(cell, device=name) if cell.device == EVERY else cell
            for cell in cells
            for name in (names if cell.device == EVERY else [cell.device])
        ]

    def _device_names(self) -> list[str]:
        began = time.monotonic()
        while True:
            with contextlib.suppress(ConnectionLost):
                if names := sorted(
                    {device.info.name for device in self._connection.devices() if device.alive}
                ):
                    return names
            if time.monotonic() - began > self._limits.wait_s:
                raise UsageError("no device has joined the fleet: start edgecap worker on one")
            time.sleep(PAUSE_S)

    def work(
        self, cells: Sequence[PlannedCell], state: SweepState, watch: SweepCallback
    ) -> Generator[Finished, None, None]:
        """Yield each cell when it is finished.

        Raise UsageError if the scheduler stays lost, DiskFull if the disk stays full.
        """
        self._bundles.begin(state.private)
        yield from _Dispatcher(self._connection, self._bundles, self._limits, state, watch).run(
            cells
        )
        self._bundles.end(self._keep_exports)


class _Assignment(NamedTuple):
    """Task of a device, and the time of its last progress."""

    task: Task
    device: DeviceStatus
    since: float


class _Dispatcher:
    """State of one run: queue, running tasks, results."""

    def __init__(
        self,
        connection: FleetConnection,
        bundles: Bundles,
        limits: FleetLimits,
        state: SweepState,
        watch: SweepCallback,
    ) -> None:
        self._connection, self._bundles = connection, bundles
        self._limits, self._watch = limits, watch
        self._parts = ScoredParts(state.scores)
        self._queue = TaskQueue()
        self._busy: dict[str, _Assignment] = {}  # key: address of the device
        self._results: queue.SimpleQueue[TaskResult] = queue.SimpleQueue()
        # Time when a device met the requirements, and requirements reported as unmet.
        self._able_at: dict[TaskRequirements, float] = {}
        self._reported: set[TaskRequirements] = set()
        self._last_devices: Sequence[DeviceStatus] = ()
        self._full_since: float | None = None

    def run(self, cells: Sequence[PlannedCell]) -> Generator[Finished, None, None]:
        self._queue = TaskQueue(task for cell in cells for task in self._tasks(cell))
        try:
            if any(device.info.host == platform.node() for device in self._devices()):
                yield from self._build_all()
            while self._queue or self._busy:
                devices = self._devices()
                if devices is not self._last_devices:
                    self._last_devices = devices
                    self._check_running(devices)
                    yield from self._drop_stranded(devices)
                self._assign_tasks(devices)
                yield from self._finished_tasks()
        finally:
            for address in list(self._busy):
                self._connection.drop(address)
            if self._busy:
                end_children()  # which may build a graph for one of these

    def _tasks(self, cell: PlannedCell) -> list[Task]:
        """Return the missing parts of a cell's text, or the cell if there are none."""
        return [Task(cell, part) for part in self._parts.missing(cell)] or [Task(cell)]

    def _build_all(self) -> Iterator[Finished]:
        """Build all graphs first, because a device is this machine and would be disturbed."""
        self._watch(
            SweepEvent(
                "waits",
                None,
                "building all graphs first, because a device is this machine",
            )
        )
        for cell in {id(task.cell): task.cell for task in self._queue}.values():
            try:
                self._bundles.bundle(cell)
            except DiskFull:
                continue  # space may be free when its turn comes
            except EdgecapError as error:
                self._queue.remove(cell)
                yield Finished(
                    cell=cell,
                    outcome=error.failure
                    if isinstance(error, BuildFailed)
                    else failure_of("refused", error),
                )

    # --- devices ------------------------------------------------------------------------------

    def _devices(self) -> Sequence[DeviceStatus]:
        """Return the devices; reconnect while the scheduler is lost."""
        began = time.monotonic()
        while True:
            try:
                return self._connection.devices()
            except ConnectionLost as error:
                self._watch(SweepEvent("waits", None, f"{error}: reconnecting"))
                if time.monotonic() - began > self._limits.wait_s:
                    raise UsageError(
                        f"{error}, and did not come back; finished cells are kept"
                    ) from None
                time.sleep(PAUSE_S)
            with contextlib.suppress(ConnectionLost):
                self._connection.reconnect()
                self._able_at.clear()
                self._reported.clear()

    def _check_running(self, devices: Sequence[DeviceStatus]) -> None:
        """Cancel tasks of devices that left, are silent or hang; report the progress of others."""
        alive = {device.address: device for device in devices if device.alive}
        now = time.monotonic()
        for address, busy in list(self._busy.items()):
            device = alive.get(address)
            if device is None or now - busy.since > busy.task.cell.spec.timeout_s + SILENT_S:
                self._connection.drop(address)
            elif device.progress != busy.device.progress:
                self._busy[address] = _Assignment(busy.task, device, now)
                if device.progress.stage:
                    self._watch(
                        SweepEvent("stage", busy.task.cell, str(device.progress), device.info.name)
                    )

    def _assign_tasks(self, devices: Sequence[DeviceStatus]) -> None:
        """Give a task to each free device that can run one."""
        for device in devices:
            if device.alive and not device.busy and device.address not in self._busy:
                task = self._queue.pop(device, devices)
                if task is not None:
                    self._begin(task, device)

    def _drop_stranded(self, devices: Sequence[DeviceStatus]) -> Iterator[Finished]:
        """Yield cells that no connected device could run for too long, with the reason."""
        now = time.monotonic()
        for requirements in self._queue.requirements:
            if any(device.alive and meets(device, requirements) for device in devices):
                self._able_at[requirements] = now
                self._reported.discard(requirements)
            elif requirements not in self._reported:
                self._reported.add(requirements)
                self._able_at.setdefault(requirements, now)
                cells = len({id(task.cell) for task in self._queue.of(requirements)})
                many = f"{cells} cells wait" if cells > 1 else "a cell waits"
                reason = shortfalls(requirements, devices)
                limit = f"{self._limits.wait_s:g} s at most"
                self._watch(SweepEvent("waits", None, f"{reason}: {many} for a device, {limit}"))
            elif now - self._able_at[requirements] > self._limits.wait_s:
                why = f"no device of the fleet can run it: {shortfalls(requirements, devices)}"
                for cell in {
                    id(task.cell): task.cell for task in self._queue.of(requirements)
                }.values():
                    self._queue.remove(cell)
                    yield self._not_run(Task(cell), why)

    # --- results ------------------------------------------------------------------------------

    def _begin(self, task: Task, device: DeviceStatus) -> None:
        self._busy[device.address] = _Assignment(task, device, time.monotonic())
        words = "" if task.part is None else f"part {task.part + 1} of {task.cell.shards}"
        self._watch(SweepEvent("begun", task.cell, words, device.info.name))
        try:
            text = self._parts.whole(task.cell) if task.part is None else ScoredText()
        except Unequal as error:
            self._results.put(TaskResult(task, device, 0.0, failure_of(FLEET, error)))
            return

        def execute() -> None:
            self._results.put(run_task(self._connection, self._bundles, task, device, text))

        threading.Thread(target=execute, name=f"edgecap-{device.info.name}", daemon=True).start()

    def _finished_tasks(self) -> Iterator[Finished]:
        """Yield cells that finished since; wait a moment for the first result."""
        with contextlib.suppress(queue.Empty):
            yield from self._judge(self._results.get(timeout=PAUSE_S))
            while True:
                yield from self._judge(self._results.get_nowait())

    def _judge(self, result: TaskResult) -> Iterator[Finished]:
        task, name, outcome = result.task, result.device.info.name, result.outcome
        busy = self._busy.get(result.device.address)
        if busy is not None and busy.task is task:
            del self._busy[result.device.address]
        if isinstance(outcome, DiskFull):
            self._wait_for_space(task, outcome)
            self._queue.push_front(task)
        elif isinstance(outcome, EdgecapError):
            yield from self._retry(task, name, outcome)
        elif isinstance(outcome, tuple):
            self._keep_part(result, outcome)
        else:
            self._forget(task.cell)
            attempts = 1 + len(self._queue.failures(task))
            yield Finished(
                cell=task.cell,
                outcome=outcome,
                device=name,
                seconds=result.seconds,
                attempts=attempts,
            )

    def _keep_part(self, result: TaskResult, shares: tuple[DocumentShare, ...]) -> None:
        """Store a part of a text; queue the cell after the last part."""
        (cell, part), name = result.task, result.device.info.name
        try:
            self._parts.keep(cell, part or 0, name, shares)
        except DiskFull as error:
            self._wait_for_space(result.task, error)
            self._results.put(result)
            return
        self._full_since = None
        self._watch(SweepEvent("stage", cell, f"part {(part or 0) + 1} scored", name))
        if not self._parts.missing(cell):
            self._queue.push_front(Task(cell))

    def _wait_for_space(self, task: Task, error: DiskFull) -> None:
        """Pause; raise the error if the disk was full for too long."""
        now = time.monotonic()
        self._full_since = now if self._full_since is None else self._full_since
        if now - self._full_since > self._limits.disk_patience_s:
            raise error
        self._watch(SweepEvent("waits", task.cell, f"{error}; waiting for disk space"))
        time.sleep(min(DISK_PAUSE_S, self._limits.disk_patience_s / 4))

    def _retry(self, task: Task, name: str, error: EdgecapError) -> Iterator[Finished]:
        """Queue a failed task again, up to the limit; a lost scheduler does not count."""
        if not isinstance(error, SchedulerLost):
            self._queue.add_failure(task, name, str(error))
        failures = self._queue.failures(task)
        if len(failures) >= self._limits.attempts:
            words = "; ".join(f"{device}: {what}" for device, what in failures)
            self._forget(task.cell)
            yield self._not_run(task, f"tried {len(failures)} times ({words})", name)
        else:
            self._queue.push_front(task)
            self._watch(SweepEvent("again", task.cell, f"{error}; trying again", name))

    def _forget(self, cell: PlannedCell) -> None:
        """Drop all tasks and parts of a finished cell."""
        self._full_since = None
        if cell.shards > 1:
            self._queue.remove(cell)
        self._parts.forget(cell)

    def _not_run(self, task: Task, why: str, device: str = "") -> Finished:
        attempts = max(1, len(self._queue.failures(task)))
        failure = Failure(stage=FLEET, error="NotRun", message=why[:1000])
        return Finished(cell=task.cell, outcome=failure, device=device, attempts=attempts)
