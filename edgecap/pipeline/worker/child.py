"""Run one step: read it from standard input, answer on standard output, leave.

The handlers do the work; this module owns the pipes and turns every error into a value.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import threading
import time
from typing import BinaryIO

import msgspec

from edgecap.errors import DiskFull, Unreadable, UsageError
from edgecap.pipeline.worker.answers import (
    Answer,
    OutputLine,
    Progress,
    Refusal,
)
from edgecap.pipeline.worker.handlers import handler_of
from edgecap.pipeline.worker.sessions import Report, failure_of
from edgecap.pipeline.worker.steps import (
    Inspect,
    Step,
    stage_of,
)
from edgecap.record import Failure


class _Output:
    """The pipe to the parent. Progress is thinned to two lines a second, so that it can sleep."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe, self._sent, self._stage = pipe, 0.0, ""

    def send(self, line: OutputLine) -> None:
        self._pipe.write(msgspec.json.encode(line) + b"\n")
        self._pipe.flush()

    def report(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage or now - self._sent > 0.5:
            self._stage, self._sent = stage, now
            self.send(Progress(stage=stage, done=done, total=total))


def main() -> None:
    """Read one step from standard input, answer on standard output, and leave."""
    output = _Output(_private_stdout())
    step = msgspec.json.decode(sys.stdin.buffer.readline(), type=Step)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    output.send(answer(step, output.report))
    os._exit(0)  # runtimes may wait for their threads, or crash, on the way out


def _private_stdout() -> BinaryIO:
    """Return the pipe to the parent; send what libraries print on stdout to stderr instead."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def _leave_with_parent() -> None:
    """Leave when standard input ends: the parent holds it open as long as it lives."""
    sys.stdin.buffer.read()
    os._exit(1)


def answer(step: Step, report: Report) -> Answer | Refusal:
    """Run a step and return its answer; errors become a Refusal or a Failure."""
    stage = stage_of(step)
    try:
        return handler_of(step)(step, report)
    except Unreadable as error:
        if isinstance(step, Inspect):
            return Refusal(message=str(error), disk_full=False)
        return _unreadable_now(failure_of(stage, error))
    except UsageError as error:
        return Refusal(message=str(error), disk_full=isinstance(error, DiskFull))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or getattr(step, "out", tempfile.gettempdir())
            return Refusal(message=f"no room left on the disk of {where}", disk_full=True)
        return failure_of(stage, error)
    except Exception as error:
        return failure_of(stage, error)


def _unreadable_now(failure: Failure) -> Failure:
    """Fail one cell: the graph could be read when it was inspected, so the request is not wrong."""
    return msgspec.structs.replace(
        failure, message=f"read before, not now, as where memory runs out: {failure.message}"
    )
