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
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgecap.errors import EdgecapError, RecordError, UsageError
from edgecap.fleet import device as far
from edgecap.fleet.bundles import Bundles, NotMade
from edgecap.fleet.checking import NotAsked, record_of, shares_of
from edgecap.fleet.line import Cut, Line, Lost, Seen
from edgecap.fleet.messages import (
    PIECE_BYTES,
    Done,
    Failed,
    Garbled,
    Needs,
    Order,
    PartDone,
    Reply,
    packed,
    unpacked,
)
from edgecap.fleet.needs import Need, Task, can, lack_of, need_of
from edgecap.fleet.parts import Parts, Whole
from edgecap.ledger import Finished, Ledger
from edgecap.meters.sharing import Share
from edgecap.plan import EVERY, Planned
from edgecap.record import Failure, File, Profile
from edgecap.sweep import News, Watch, failed

MOST_DEVICES = 256
ROUNDS = 3  # that a device may ask for files, before it is taken for confused
PAUSE_S = 0.5
FLEET = "fleet"  # the stage of a failure that is the fleet's: nothing was found out about the cell


class Rules(NamedTuple):
    """How much a fleet may fail: devices that a cell may be tried on, seconds without a device or a scheduler."""

    attempts: int = 3
    wait_s: float = 300.0


class Talk(NamedTuple):
    """What came of a task on a device: a record, shares, a failure, or an error that says that it may go elsewhere."""

    task: Task
    seen: Seen
    seconds: float
    found: Profile | tuple[Share, ...] | Failure | EdgecapError


class OnFleet:
    """The devices behind a scheduler."""

    def __init__(self, line: Line, bundles: Bundles, rules: Rules) -> None:
        self._line, self._bundles, self._rules = line, bundles, rules

    def devices(self, cells: Sequence[Planned]) -> Sequence[Planned]:
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
            with contextlib.suppress(Lost):
                if names := sorted({seen.about.name for seen in self._line.devices()}):
                    return names
            if time.monotonic() - began > self._rules.wait_s:
                raise UsageError("no device has joined the fleet: start edgecap worker on one")
            time.sleep(PAUSE_S)

    def work(self, cells: Sequence[Planned], ledger: Ledger, watch: Watch) -> Generator[Finished, None, None]:
        """Each cell, as it is finished. Raises UsageError where the scheduler stays away."""
        return _Shift(self._line, self._bundles, self._rules, ledger, watch).run(cells)


class _Shift:
    """One run over some cells; everything that changes meanwhile is here."""

    def __init__(self, line: Line, bundles: Bundles, rules: Rules, ledger: Ledger, watch: Watch) -> None:
        self._line, self._bundles, self._rules, self._watch = line, bundles, rules, watch
        self._parts = Parts(ledger.scores)
        self._todo: deque[Task] = deque()
        self._busy: dict[str, tuple[Task, Seen]] = {}  # by the device's address
        self._troubles: dict[Task, list[tuple[str, str]]] = {}  # (device, what it was) of each try
        self._talks: queue.SimpleQueue[Talk] = queue.SimpleQueue()
        self._able: dict[Need, float] = {}  # what is needed -> when a device that has it was there last

    def run(self, cells: Sequence[Planned]) -> Generator[Finished, None, None]:
        self._todo.extend(task for cell in cells for task in self._tasks(cell))
        speakers = ThreadPoolExecutor(MOST_DEVICES, "edgecap-fleet")
        try:
            if any(seen.about.host == platform.node() for seen in self._reached()):
                yield from self._made_first()
            while self._todo or self._busy:
                devices = self._reached()
                self._drop_gone(devices)
                for task, seen in self._matched(devices):
                    self._begin(speakers, task, seen)
                yield from self._stranded(devices)
                yield from self._heard()
        finally:
            self._line.excuse(list(self._busy))
            for address in list(self._busy):
                self._line.drop(address)
            speakers.shutdown(wait=False, cancel_futures=True)

    def _tasks(self, cell: Planned) -> list[Task]:
        """The cell, or those parts of its text that are not scored yet; it follows them."""
        return [Task(cell, part) for part in self._parts.missing(cell)] or [Task(cell)]

    def _made_first(self) -> Iterator[Finished]:
        """All graphs at once, where a device is this machine: making them would disturb what it measures."""
        for task in list(self._todo):
            try:
                self._bundles.bundle(task.cell)
            except EdgecapError as error:
                self._todo.remove(task)
                yield Finished(
                    cell=task.cell, outcome=error.failure if isinstance(error, NotMade) else failed("refused", error)
                )

    # --- who is there -------------------------------------------------------------------------

    def _reached(self) -> list[Seen]:
        """The devices; where the scheduler is gone, it is called again until it answers."""
        began = time.monotonic()
        while True:
            try:
                return self._line.devices()
            except Lost as error:
                self._watch(News("waits", None, f"{error}: calling it again"))
                if time.monotonic() - began > self._rules.wait_s:
                    raise UsageError(f"{error}, and did not come back; what is finished is kept") from None
                time.sleep(PAUSE_S)
            with contextlib.suppress(Lost):
                self._line.again()
                self._able.clear()

    def _drop_gone(self, devices: Sequence[Seen]) -> None:
        """Waits no longer for devices that left or are silent; their talks end as lost."""
        heard = {seen.address for seen in devices if seen.heard}
        for address in self._busy:
            if address not in heard:
                self._line.drop(address)

    def _matched(self, devices: Sequence[Seen]) -> list[tuple[Task, Seen]]:
        """Free devices with the first task that each can run, those that it failed on last."""
        busy = {seen.about.name for _, seen in self._busy.values()}
        free = [
            seen for seen in devices if seen.heard and seen.about.name not in busy and seen.address not in self._busy
        ]
        found = []
        for seen in free:
            able = (task for task in self._todo if can(seen, need_of(task)))
            task = next((task for task in able if not self._better_elsewhere(task, seen, devices)), None)
            if task is not None:
                self._todo.remove(task)
                found.append((task, seen))
        return found

    def _better_elsewhere(self, task: Task, seen: Seen, devices: Sequence[Seen]) -> bool:
        """Whether the task had trouble here, and there is a device where it had none."""
        tried = {name for name, _ in self._troubles.get(task, ())}
        if seen.about.name not in tried:
            return False
        return any(other.heard and other.about.name not in tried and can(other, need_of(task)) for other in devices)

    def _stranded(self, devices: Sequence[Seen]) -> Iterator[Finished]:
        """Cells that no device could run for too long, each with who is there instead."""
        now = time.monotonic()
        needs = {need_of(task): task for task in self._todo}
        for need, task in needs.items():
            if need not in self._able or any(seen.heard and can(seen, need_of(task)) for seen in devices):
                self._able[need] = now
        late = {need for need in needs if now - self._able[need] > self._rules.wait_s}
        for task in [task for task in self._todo if late and need_of(task) in late]:
            if task in self._todo:  # not given up with another part of its text
                yield self._given_up(task, f"no device of the fleet can run it: {lack_of(need_of(task), devices)}")

    # --- talks --------------------------------------------------------------------------------

    def _begin(self, speakers: ThreadPoolExecutor, task: Task, seen: Seen) -> None:
        self._busy[seen.address] = (task, seen)
        words = "" if task.part is None else f"part {task.part + 1} of {task.cell.shards}"
        self._watch(News("begun", task.cell, words, seen.about.name))
        speakers.submit(self._talk, task, seen, self._parts.whole(task.cell) if task.part is None else Whole())

    def _talk(self, task: Task, seen: Seen, text: Whole) -> None:
        """All that is said to one device about one task; runs in a thread of its own."""
        began = time.monotonic()
        found: Profile | tuple[Share, ...] | Failure | EdgecapError
        try:
            found = self._answered(task, seen, text)
        except NotMade as error:
            found = error.failure
        except (Lost, Garbled, NotAsked, RecordError) as error:
            found = error
        except EdgecapError as error:
            found = failed("refused", error)
        except Exception as error:
            found = Garbled(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        self._talks.put(Talk(task, seen, time.monotonic() - began, found))

    def _answered(self, task: Task, seen: Seen, text: Whole) -> Profile | tuple[Share, ...] | Failure:
        order, places = self._bundles.order(task.cell, task.part, text.documents)
        self._bundles.hand_over(places)
        reply = self._measured(order, places, seen)
        corpus = self._bundles.corpus(task.cell)
        if isinstance(reply, Done) and task.part is None:
            return record_of(reply.record, task.cell, self._bundles.bundle(task.cell), corpus, text.devices)
        if isinstance(reply, PartDone) and task.part is not None:
            return shares_of(reply, corpus)
        if isinstance(reply, Failed):
            if reply.elsewhere:
                raise Lost(f"{reply.failure.error}: {reply.failure.message}")
            return reply.failure
        raise Garbled("an answer to another question came")

    def _measured(self, order: Order, places: dict[str, Path], seen: Seen) -> Reply:
        """The reply to an order, once the device has what it needs for it."""
        for _ in range(ROUNDS):
            reply: Reply = unpacked(self._line.ask(seen.address, far.serve, packed(order)), Reply)  # type: ignore[arg-type]
            if not isinstance(reply, Needs):
                return reply
            for file, had in zip(reply.files, reply.had, strict=False):
                self._send(file, had, places, seen)
        raise Garbled("the device asks for the same files again and again")

    def _send(self, file: File, had: int, places: dict[str, Path], seen: Seen) -> None:
        path = places.get(file.sha256)
        if path is None or not 0 <= had <= file.bytes:
            raise Garbled("the device asks for a file that is none of this model")
        with path.open("rb") as stream:
            stream.seek(had)
            at = had
            while at < file.bytes or file.bytes == 0:
                data = stream.read(PIECE_BYTES)
                reply: Reply = unpacked(self._line.ask(seen.address, far.take, packed(file), at, data), Reply)  # type: ignore[arg-type]
                if isinstance(reply, Failed):
                    raise Lost(f"{reply.failure.error}: {reply.failure.message}")
                at += len(data)
                if not data:
                    return

    # --- what came of them --------------------------------------------------------------------

    def _heard(self) -> Iterator[Finished]:
        """What devices answered since; waits a moment for the first."""
        with contextlib.suppress(queue.Empty):
            yield from self._judged(self._talks.get(timeout=PAUSE_S))
            while True:
                yield from self._judged(self._talks.get_nowait())

    def _judged(self, talk: Talk) -> Iterator[Finished]:
        self._busy.pop(talk.seen.address, None)
        task, name, found = talk.task, talk.seen.about.name, talk.found
        if isinstance(found, EdgecapError):
            yield from self._troubled(task, name, found)
        elif isinstance(found, tuple):
            self._parts.keep(task.cell, task.part or 0, name, found)
            self._watch(News("stage", task.cell, f"part {(task.part or 0) + 1} scored", name))
            if not self._parts.missing(task.cell):
                self._todo.appendleft(Task(task.cell))
        else:
            self._forget(task.cell)
            attempts = 1 + len(self._troubles.get(task, ()))
            yield Finished(cell=task.cell, outcome=found, device=name, seconds=talk.seconds, attempts=attempts)

    def _troubled(self, task: Task, name: str, error: EdgecapError) -> Iterator[Finished]:
        """Once more, unless that was often enough; the scheduler's own end does not count."""
        told = self._troubles.setdefault(task, [])
        if not isinstance(error, Cut):
            told.append((name, str(error)))
        if len(told) >= self._rules.attempts:
            words = "; ".join(f"{device}: {what}" for device, what in told)
            yield self._given_up(task, f"tried {len(told)} times ({words})", name)
        else:
            self._todo.appendleft(task)
            self._watch(News("again", task.cell, f"{error}: it is tried again", name))

    def _forget(self, cell: Planned) -> None:
        """Nothing more is done about a cell that is finished."""
        self._todo = deque(task for task in self._todo if task.cell is not cell)
        self._parts.forget(cell)

    def _given_up(self, task: Task, why: str, device: str = "") -> Finished:
        self._forget(task.cell)
        attempts = max(1, len(self._troubles.get(task, ())))
        failure = Failure(stage=FLEET, error="NotRun", message=why[:1000])
        return Finished(cell=task.cell, outcome=failure, device=device, attempts=attempts)
