"""Exchange with a device about one task: send the order and missing files, validate the answer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from edgecap.errors import DiskFull, EdgecapError, RecordError
from edgecap.meters.sharding import DocumentShare
from edgecap.names import one_line
from edgecap.record import Failure, File, Profile
from edgecap.sweep.fleet import dask_plugin as device_side
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

ROUNDS = 3  # times that a device may request files
REPEATS = 16  # extra pieces per file, for instance where two clients send it


class TaskResult(NamedTuple):
    """Result of a task on a device: a record, shares, a failure, or an error of this attempt."""

    task: Task
    device: DeviceStatus
    seconds: float
    outcome: Profile | tuple[DocumentShare, ...] | Failure | EdgecapError


def run_task(
    connection: FleetConnection,
    bundles: Bundles,
    task: Task,
    device: DeviceStatus,
    text: ScoredText,
) -> TaskResult:
    """Run one task on one device; never raise. `text` holds the parts that are scored already."""
    began = time.monotonic()
    outcome: Profile | tuple[DocumentShare, ...] | Failure | EdgecapError
    try:
        outcome = _request(connection, bundles, task, device, text)
    except BuildFailed as error:
        outcome = error.failure
    except (DiskFull, ConnectionLost, InvalidMessage, UnexpectedRecord, RecordError) as error:
        outcome = error
    except EdgecapError as error:
        outcome = failure_of("refused", error)
    except Exception as error:
        outcome = InvalidMessage(f"{type(error).__name__}: {one_line(error, 200)}")
    return TaskResult(task, device, time.monotonic() - began, outcome)


def _request(
    connection: FleetConnection,
    bundles: Bundles,
    task: Task,
    device: DeviceStatus,
    text: ScoredText,
) -> Profile | tuple[DocumentShare, ...] | Failure:
    order, places = bundles.order(task.cell, task.part, text.documents)
    bundles.hand_over(places)
    reply = _execute(connection, order, places, device)
    if isinstance(reply, TaskFailed):
        failure = printable_failure(reply.failure)
        if reply.elsewhere:
            raise ConnectionLost(f"{failure.error}: {failure.message}")
        return failure
    corpus = bundles.corpus(task.cell)
    if isinstance(reply, CellDone) and task.part is None:
        return validated_record(
            reply.record, task.cell, bundles.bundle(task.cell), corpus, text, device.info.name
        )
    if isinstance(reply, PartDone) and task.part is not None:
        return validated_shares(reply, corpus)
    raise InvalidMessage("the reply belongs to another request")


def _execute(
    connection: FleetConnection, order: Order, places: dict[str, Path], device: DeviceStatus
) -> Reply:
    """Send an order and the files that the device lacks, and return its reply."""
    for _ in range(ROUNDS):
        reply = _ask(connection, device, device_side.serve, encode(order))
        if not isinstance(reply, FilesNeeded):
            return reply
        if not reply.had or not reply.had.keys() <= places.keys():
            raise InvalidMessage("the device requests a file that is not part of this model")
        for sha256, received in reply.had.items():
            _send(connection, device, sha256, places[sha256], received)
    raise InvalidMessage("the device requests the same files repeatedly")


def _send(
    connection: FleetConnection, device: DeviceStatus, sha256: str, path: Path, at: int
) -> None:
    """Send a file from byte `at` on; each piece starts where the device asks for it."""
    size = path.stat().st_size
    info = encode(File(path="", bytes=size, sha256=sha256))
    with path.open("rb") as stream:
        for _ in range(size // PIECE_BYTES + REPEATS):
            if not 0 <= at <= size:
                raise InvalidMessage("the device requests bytes beyond the end of a file")
            stream.seek(at)
            reply = _ask(connection, device, device_side.take, info, at, stream.read(PIECE_BYTES))
            if isinstance(reply, TaskFailed):
                raise ConnectionLost(
                    f"{reply.failure.error}: {printable_failure(reply.failure).message}"
                )
            if not isinstance(reply, FilesNeeded):
                raise InvalidMessage("the reply belongs to another request")
            if sha256 not in reply.had:
                return
            at = reply.had[sha256]
    raise InvalidMessage("the device requests the same piece repeatedly")


def _ask(
    connection: FleetConnection,
    device: DeviceStatus,
    function: device_side.Verb,
    *arguments: object,
) -> Reply:
    answer = connection.ask(device.address, function, *arguments)
    reply: Reply = decode(answer, Reply)  # type: ignore[arg-type]
    return reply
