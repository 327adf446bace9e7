"""One conversation with a device about one task: the order, the files that it lacks, the checked answer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from edgecap.errors import DiskFull, EdgecapError, RecordError
from edgecap.meters.sharding import DocumentShare
from edgecap.record import Failure, File, Profile
from edgecap.sweep.fleet import dask_plugin as far
from edgecap.sweep.fleet.bundles import BuildFailed, Bundles
from edgecap.sweep.fleet.connection import ConnectionLost, DeviceStatus, FleetConnection
from edgecap.sweep.fleet.messages import (
    PIECE_BYTES,
    CellDone,
    FilesNeeded,
    InvalidMessage,
    Order,
    PartDone,
    Reply,
    TaskFailed,
    decode,
    encode,
)
from edgecap.sweep.fleet.requirements import Task
from edgecap.sweep.fleet.scored_parts import ScoredText
from edgecap.sweep.fleet.validation import (
    UnexpectedRecord,
    printable_failure,
    validated_record,
    validated_shares,
)
from edgecap.sweep.runner import failure_of

ROUNDS = 3  # that a device may ask for files, before it is taken for confused
REPEATS = 16  # pieces that may be sent twice, as where two clients send one file


class TaskResult(NamedTuple):
    """What came of a task on a device: a record, shares, a failure, or an error that says that it may go elsewhere."""

    task: Task
    seen: DeviceStatus
    seconds: float
    found: Profile | tuple[DocumentShare, ...] | Failure | EdgecapError


def run_task(
    line: FleetConnection, bundles: Bundles, task: Task, seen: DeviceStatus, text: ScoredText
) -> TaskResult:
    """All that is said to one device about one task, in a thread of its own; never raises. `text` was scored before."""
    began = time.monotonic()
    found: Profile | tuple[DocumentShare, ...] | Failure | EdgecapError
    try:
        found = _answered(line, bundles, task, seen, text)
    except BuildFailed as error:
        found = error.failure
    except (DiskFull, ConnectionLost, InvalidMessage, UnexpectedRecord, RecordError) as error:
        found = error
    except EdgecapError as error:
        found = failure_of("refused", error)
    except Exception as error:
        found = InvalidMessage(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return TaskResult(task, seen, time.monotonic() - began, found)


def _answered(
    line: FleetConnection, bundles: Bundles, task: Task, seen: DeviceStatus, text: ScoredText
) -> Profile | tuple[DocumentShare, ...] | Failure:
    order, places = bundles.order(task.cell, task.part, text.documents)
    bundles.hand_over(places)
    reply = _measured(line, order, places, seen)
    if isinstance(reply, TaskFailed):
        failure = printable_failure(reply.failure)
        if reply.elsewhere:
            raise ConnectionLost(f"{failure.error}: {failure.message}")
        return failure
    corpus = bundles.corpus(task.cell)
    if isinstance(reply, CellDone) and task.part is None:
        return validated_record(
            reply.record, task.cell, bundles.bundle(task.cell), corpus, text, seen.about.name
        )
    if isinstance(reply, PartDone) and task.part is not None:
        return validated_shares(reply, corpus)
    raise InvalidMessage("an answer to another question came")


def _measured(
    line: FleetConnection, order: Order, places: dict[str, Path], seen: DeviceStatus
) -> Reply:
    """The reply to an order, once the device has what it needs for it."""
    for _ in range(ROUNDS):
        reply = _ask(line, seen, far.serve, encode(order))
        if not isinstance(reply, FilesNeeded):
            return reply
        if not reply.had or not reply.had.keys() <= places.keys():
            raise InvalidMessage("the device asks for a file that is none of this model")
        for sha256, had in reply.had.items():
            _send(line, seen, sha256, places[sha256], had)
    raise InvalidMessage("the device asks for the same files again and again")


def _send(line: FleetConnection, seen: DeviceStatus, sha256: str, path: Path, at: int) -> None:
    """A file from byte `at` on, piece by piece, each where the device says that the last one ended."""
    size = path.stat().st_size
    about = encode(File(path="", bytes=size, sha256=sha256))
    with path.open("rb") as stream:
        for _ in range(size // PIECE_BYTES + REPEATS):
            if not 0 <= at <= size:
                raise InvalidMessage("the device asks for a part of a file that there is not")
            stream.seek(at)
            reply = _ask(line, seen, far.take, about, at, stream.read(PIECE_BYTES))
            if isinstance(reply, TaskFailed):
                raise ConnectionLost(
                    f"{reply.failure.error}: {printable_failure(reply.failure).message}"
                )
            if not isinstance(reply, FilesNeeded):
                raise InvalidMessage("an answer to another question came")
            if sha256 not in reply.had:
                return
            at = reply.had[sha256]
    raise InvalidMessage("the device asks for the same piece again and again")


def _ask(line: FleetConnection, seen: DeviceStatus, verb: far.Verb, *said: object) -> Reply:
    reply: Reply = decode(line.ask(seen.address, verb, *said), Reply)  # type: ignore[arg-type]
    return reply
