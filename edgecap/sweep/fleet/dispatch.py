"""The cells of a sweep on a fleet: each goes to one free device that can run it, and comes back as a record.

                 todo ──▶ a device that can, and has its slot free ──▶ record ──▶ checked ──▶ finished
                  ▲                          │
                  └── once more, elsewhere ◀─┴── gone, silent, its own trouble, or a record that is none

After `attempts` of these a cell is reported with what each device said. The scheduler may be restarted: what
was running is asked again, and counts for nothing. A text that is scored in parts sends these first.
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

PAUSE_S = 0.5  # until devices are looked at again, where nothing is heard


class FleetLimits(NamedTuple):
    """How much a fleet may fail: devices that a cell may be tried on, seconds without a device, a scheduler, or room."""

    attempts: int = 3
    wait_s: float = 300.0
    disk_patience_s: float = DISK_PATIENCE_S


class FleetBackend:
    """The devices behind a scheduler."""

    def __init__(
        self, line: FleetConnection, bundles: Bundles, rules: FleetLimits, keep_exports: bool = True
    ) -> None:
        self._line, self._bundles, self._rules, self._keep_exports = (
            line,
            bundles,
            rules,
            keep_exports,
        )

    def devices(self, cells: Sequence[PlannedCell]) -> Sequence[PlannedCell]:
        """Cells for every device, unfolded over those that are there. Raises UsageError where there is none."""
        if not any(cell.device == EVERY for cell in cells):
            return cells
        names = self._names()
        return [
            msgspec.structs.replace(cell, device=name) if cell.device == EVERY else cell
            for cell in cells
            for name in (names if cell.device == EVERY else [cell.device])
        ]

    def _names(self) -> list[str]:
        began = time.monotonic()
        while True:
            with contextlib.suppress(ConnectionLost):
                if names := sorted(
                    {seen.about.name for seen in self._line.devices() if seen.heard}
                ):
                    return names
            if time.monotonic() - began > self._rules.wait_s:
                raise UsageError("no device has joined the fleet: start edgecap worker on one")
            time.sleep(PAUSE_S)

    def work(
        self, cells: Sequence[PlannedCell], ledger: SweepState, watch: SweepCallback
    ) -> Generator[Finished, None, None]:
        """Each cell, as it is finished. Raises UsageError where the scheduler stays away, DiskFull where the disk does."""
        self._bundles.begin(ledger.private)
        yield from _Dispatcher(self._line, self._bundles, self._rules, ledger, watch).run(cells)
        self._bundles.end(self._keep_exports)


class _Assignment(NamedTuple):
    """A device that does a task, and since when it gave no sign of going on."""

    task: Task
    seen: DeviceStatus
    since: float


class _Dispatcher:
    """One run over some cells; everything that changes meanwhile is here."""

    def __init__(
        self,
        line: FleetConnection,
        bundles: Bundles,
        rules: FleetLimits,
        ledger: SweepState,
        watch: SweepCallback,
    ) -> None:
        self._line, self._bundles, self._rules, self._watch = line, bundles, rules, watch
        self._parts = ScoredParts(ledger.scores)
        self._todo = TaskQueue()
        self._busy: dict[str, _Assignment] = {}  # by the device's address
        self._talks: queue.SimpleQueue[TaskResult] = queue.SimpleQueue()
        self._able: dict[
            TaskRequirements, float
        ] = {}  # what is needed -> when a device that has it was there last
        self._told: set[TaskRequirements] = set()  # that no device there has, and it was said
        self._looked: Sequence[DeviceStatus] = ()
        self._full_since: float | None = None

    def run(self, cells: Sequence[PlannedCell]) -> Generator[Finished, None, None]:
        self._todo = TaskQueue(task for cell in cells for task in self._tasks(cell))
        try:
            if any(seen.about.host == platform.node() for seen in self._reached()):
                yield from self._made_first()
            while self._todo or self._busy:
                devices = self._reached()
                if devices is not self._looked:
                    self._looked = devices
                    self._follow(devices)
                    yield from self._stranded(devices)
                self._hand_out(devices)
                yield from self._heard()
        finally:
            for address in list(self._busy):
                self._line.drop(address)
            if self._busy:
                end_children()  # a graph that is made for one of these

    def _tasks(self, cell: PlannedCell) -> list[Task]:
        """The cell, or those parts of its text that are not scored yet; it follows them."""
        return [Task(cell, part) for part in self._parts.missing(cell)] or [Task(cell)]

    def _made_first(self) -> Iterator[Finished]:
        """All graphs at once, where a device is this machine: making them would disturb what it measures."""
        self._watch(
            SweepEvent(
                "waits",
                None,
                "making all graphs first: a device is this machine, and would be disturbed",
            )
        )
        for cell in {id(task.cell): task.cell for task in self._todo}.values():
            try:
                self._bundles.bundle(cell)
            except DiskFull:
                continue  # it may have room when its turn comes
            except EdgecapError as error:
                self._todo.remove(cell)
                yield Finished(
                    cell=cell,
                    outcome=error.failure
                    if isinstance(error, BuildFailed)
                    else failure_of("refused", error),
                )

    # --- who is there -------------------------------------------------------------------------

    def _reached(self) -> Sequence[DeviceStatus]:
        """The devices; where the scheduler is gone, it is called again until it answers."""
        began = time.monotonic()
        while True:
            try:
                return self._line.devices()
            except ConnectionLost as error:
                self._watch(SweepEvent("waits", None, f"{error}: calling it again"))
                if time.monotonic() - began > self._rules.wait_s:
                    raise UsageError(
                        f"{error}, and did not come back; what is finished is kept"
                    ) from None
                time.sleep(PAUSE_S)
            with contextlib.suppress(ConnectionLost):
                self._line.again()
                self._able.clear()
                self._told.clear()

    def _follow(self, devices: Sequence[DeviceStatus]) -> None:
        """Waits no longer for devices that left, are silent or hang; tells how far the others are."""
        there, now = {seen.address: seen for seen in devices if seen.heard}, time.monotonic()
        for address, busy in list(self._busy.items()):
            seen = there.get(address)
            if seen is None or now - busy.since > busy.task.cell.spec.timeout_s + SILENT_S:
                self._line.drop(address)
            elif seen.pulse != busy.seen.pulse:
                self._busy[address] = _Assignment(busy.task, seen, now)
                if seen.pulse.stage:
                    self._watch(
                        SweepEvent("stage", busy.task.cell, str(seen.pulse), seen.about.name)
                    )

    def _hand_out(self, devices: Sequence[DeviceStatus]) -> None:
        """A task for each free device that can do one."""
        for seen in devices:
            if seen.heard and not seen.busy and seen.address not in self._busy:
                task = self._todo.taken(seen, devices)
                if task is not None:
                    self._begin(task, seen)

    def _stranded(self, devices: Sequence[DeviceStatus]) -> Iterator[Finished]:
        """Cells that no device could run for too long, each with who is there instead."""
        now = time.monotonic()
        for need in self._todo.needs:
            if any(seen.heard and meets(seen, need) for seen in devices):
                self._able[need] = now
                self._told.discard(need)
            elif need not in self._told:
                self._told.add(need)
                self._able.setdefault(need, now)
                cells = len({id(task.cell) for task in self._todo.of(need)})
                many = f"{cells} cells wait" if cells > 1 else "a cell waits"
                words = f"{shortfalls(need, devices)}: {many} for a device, {self._rules.wait_s:g} s at most"
                self._watch(SweepEvent("waits", None, words))
            elif now - self._able[need] > self._rules.wait_s:
                why = f"no device of the fleet can run it: {shortfalls(need, devices)}"
                for cell in {id(task.cell): task.cell for task in self._todo.of(need)}.values():
                    self._todo.remove(cell)
                    yield self._given_up(Task(cell), why)

    # --- talks --------------------------------------------------------------------------------

    def _begin(self, task: Task, seen: DeviceStatus) -> None:
        self._busy[seen.address] = _Assignment(task, seen, time.monotonic())
        words = "" if task.part is None else f"part {task.part + 1} of {task.cell.shards}"
        self._watch(SweepEvent("begun", task.cell, words, seen.about.name))
        try:
            text = self._parts.whole(task.cell) if task.part is None else ScoredText()
        except Unequal as error:
            self._talks.put(TaskResult(task, seen, 0.0, failure_of(FLEET, error)))
            return

        def speak() -> None:
            self._talks.put(run_task(self._line, self._bundles, task, seen, text))

        threading.Thread(target=speak, name=f"edgecap-{seen.about.name}", daemon=True).start()

    def _heard(self) -> Iterator[Finished]:
        """What devices answered since; waits a moment for the first."""
        with contextlib.suppress(queue.Empty):
            yield from self._judged(self._talks.get(timeout=PAUSE_S))
            while True:
                yield from self._judged(self._talks.get_nowait())

    def _judged(self, told: TaskResult) -> Iterator[Finished]:
        task, name, found = told.task, told.seen.about.name, told.found
        busy = self._busy.get(told.seen.address)
        if busy is not None and busy.task is task:
            del self._busy[told.seen.address]
        if isinstance(found, DiskFull):
            self._wait_for_room(task, found)
            self._todo.first(task)
        elif isinstance(found, EdgecapError):
            yield from self._troubled(task, name, found)
        elif isinstance(found, tuple):
            self._keep(told, found)
        else:
            self._forget(task.cell)
            attempts = 1 + len(self._todo.tries(task))
            yield Finished(
                cell=task.cell, outcome=found, device=name, seconds=told.seconds, attempts=attempts
            )

    def _keep(self, told: TaskResult, shares: tuple[DocumentShare, ...]) -> None:
        """Keeps a part of a text; the cell follows the last one."""
        (cell, part), name = told.task, told.seen.about.name
        try:
            self._parts.keep(cell, part or 0, name, shares)
        except DiskFull as error:
            self._wait_for_room(told.task, error)
            self._talks.put(told)
            return
        self._full_since = None
        self._watch(SweepEvent("stage", cell, f"part {(part or 0) + 1} scored", name))
        if not self._parts.missing(cell):
            self._todo.first(Task(cell))

    def _wait_for_room(self, task: Task, error: DiskFull) -> None:
        """A pause; raises the error where the disk was full for too long."""
        now = time.monotonic()
        self._full_since = now if self._full_since is None else self._full_since
        if now - self._full_since > self._rules.disk_patience_s:
            raise error
        self._watch(SweepEvent("waits", task.cell, f"{error}: waiting for room; nothing is lost"))
        time.sleep(min(DISK_PAUSE_S, self._rules.disk_patience_s / 4))

    def _troubled(self, task: Task, name: str, error: EdgecapError) -> Iterator[Finished]:
        """Once more, unless that was often enough; the scheduler's own end does not count."""
        if not isinstance(error, SchedulerLost):
            self._todo.note(task, name, str(error))
        tries = self._todo.tries(task)
        if len(tries) >= self._rules.attempts:
            words = "; ".join(f"{device}: {what}" for device, what in tries)
            self._forget(task.cell)
            yield self._given_up(task, f"tried {len(tries)} times ({words})", name)
        else:
            self._todo.first(task)
            self._watch(SweepEvent("again", task.cell, f"{error}: it is tried again", name))

    def _forget(self, cell: PlannedCell) -> None:
        """Nothing more is done about a cell that is finished."""
        self._full_since = None
        if cell.shards > 1:
            self._todo.remove(cell)
        self._parts.forget(cell)

    def _given_up(self, task: Task, why: str, device: str = "") -> Finished:
        attempts = max(1, len(self._todo.tries(task)))
        failure = Failure(stage=FLEET, error="NotRun", message=why[:1000])
        return Finished(cell=task.cell, outcome=failure, device=device, attempts=attempts)
