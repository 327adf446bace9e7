"""Run a step in a child process: start it, sleep until it writes, turn its end into a value.

The child is in a session of its own, so that Ctrl-C reaches only the parent, which then ends it. If
the parent is killed, the child leaves when its standard input ends (see `child`).
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO

import msgspec

from edgecap.errors import DiskFull, UsageError
from edgecap.pipeline.worker.answers import (
    Answer,
    OutputLine,
    Progress,
    Refusal,
    StepCallback,
    ignore_progress,
)
from edgecap.pipeline.worker.steps import (
    MeasureSensitivity,
    Quantize,
    Step,
    stage_of,
)
from edgecap.record import Failure

_DECODER: msgspec.json.Decoder[OutputLine] = msgspec.json.Decoder(OutputLine)
_GRACE_S = 2.0
# Of steps that quantize: they run numpy in threads of their own, where threads of BLAS would only
# wait for each other, and allocate matrices, whose pages the C library would give back at once.
_FOR_NUMPY = {
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
}
_LIVE: set[subprocess.Popen[bytes]] = set()


def in_child(
    step: Step, watch: StepCallback = ignore_progress, timeout_s: float = 3600.0
) -> Answer:
    """Run a step in a fresh process.

    Returns its answer, or a Failure if it crashed, hung for `timeout_s`, or answered nonsense.
    Raises UsageError or DiskFull if the child refuses the step.
    """
    with tempfile.TemporaryFile() as errors, _child(step, errors) as process:
        assert process.stdin and process.stdout
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(step) + b"\n")
            process.stdin.flush()
        answer = _wait(process.stdout, watch, timeout_s)
        if answer is None:
            return _failure_of(process, step, timeout_s, errors)
    if isinstance(answer, Refusal):
        raise DiskFull(answer.message) if answer.disk_full else UsageError(answer.message)
    return answer


@contextlib.contextmanager
def _child(step: Step, errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "edgecap.pipeline.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("EDGECAP_DEBUG") else errors,
        start_new_session=True,
        env={
            **os.environ,
            "PYTHONPATH": _import_path(),
            **(_FOR_NUMPY if isinstance(step, Quantize | MeasureSensitivity) else {}),
        },
    )
    _LIVE.add(process)
    try:
        yield process
    finally:
        _LIVE.discard(process)
        _end(process)


def end_children() -> None:
    """Kill the children of this process, from any thread; their steps end as failures."""
    for process in tuple(_LIVE):
        if process.poll() is None:
            _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))


def _import_path() -> str:
    """Return PYTHONPATH for the child, so that it imports the edgecap of its parent."""
    from edgecap import __file__ as here

    own = os.path.dirname(os.path.dirname(os.path.abspath(here)))
    return os.pathsep.join(filter(None, [own, os.environ.get("PYTHONPATH")]))


def _wait(pipe: IO[bytes], watch: StepCallback, timeout_s: float) -> Refusal | Answer | None:
    """Return the answer of a child, or None if it left or wrote nothing for `timeout_s`.

    Sleeps between lines.
    """
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(pipe, lines), daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if not line:
            return None
        try:
            message: OutputLine = _DECODER.decode(line)
        except msgspec.DecodeError as error:
            return Failure(
                stage="worker", error="BadAnswer", message=f"the child answered nonsense: {error}"
            )
        if not isinstance(message, Progress):
            return message
        watch(message)


def _read_lines(pipe: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    with contextlib.suppress(ValueError, OSError):
        for line in pipe:
            lines.put(line)
    lines.put(b"")


def _failure_of(
    process: subprocess.Popen[bytes], step: Step, timeout_s: float, errors: IO[bytes]
) -> Failure:
    stage = stage_of(step)
    try:
        code = process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        return Failure(
            stage=stage, error="Timeout", message=f"no sign of life for {timeout_s:g} s (--timeout)"
        )
    if code < 0:
        return Failure(
            stage=stage,
            error=_named(-code)[0],
            message=f"the process was ended by {_named(-code)[1]}",
        )
    errors.seek(0)
    said = [line for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return Failure(
        stage=stage,
        error="Exit",
        message=f"the process left with status {code}: {said[-1] if said else 'silent'}",
    )


def _named(number: int) -> tuple[str, str]:
    """Return the name of a signal, and a phrase for messages. Real-time signals have no name."""
    name = next((s.name for s in signal.Signals if s == number), f"signal {number}")
    hint = "; often the system was out of memory" if name == "SIGKILL" else ""
    return name, f"{name} ({number}){hint}" if name.startswith("SIG") else name


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the child and the processes that it started, and reap it."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
