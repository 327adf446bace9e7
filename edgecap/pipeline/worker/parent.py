"""Starts a child for one step, sleeps until it speaks, and turns its end into a value.

The child has a session of its own, so that Ctrl-C reaches only the parent, which then ends the
child; a parent that is killed takes it along through the lifeline (see `child`).
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
from edgecap.pipeline.worker.steps import (
    Answer,
    OutputLine,
    Progress,
    Refusal,
    Step,
    StepCallback,
    ignore_progress,
    stage_of,
)
from edgecap.record import Failure

_DECODER: msgspec.json.Decoder[OutputLine] = msgspec.json.Decoder(OutputLine)
_GRACE_S = 2.0
_LIVE: set[subprocess.Popen[bytes]] = set()


def in_child(
    step: Step, watch: StepCallback = ignore_progress, timeout_s: float = 3600.0
) -> Answer:
    """Does a step in a fresh process.

    Returns its answer, or a Failure where it crashed, hung or answered nonsense. Raises UsageError
    or DiskFull where the child refused what was asked.
    """
    with tempfile.TemporaryFile() as errors, _child(errors) as process:
        assert process.stdin and process.stdout
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(step) + b"\n")
            process.stdin.flush()
        found = _wait(process.stdout, watch, timeout_s)
        if found is None:
            return _how_it_ended(process, step, timeout_s, errors)
    if isinstance(found, Refusal):
        raise DiskFull(found.message) if found.disk_full else UsageError(found.message)
    return found


@contextlib.contextmanager
def _child(errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "edgecap.pipeline.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("EDGECAP_DEBUG") else errors,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": _import_path()},
    )
    _LIVE.add(process)
    try:
        yield process
    finally:
        _LIVE.discard(process)
        _end(process)


def end_children() -> None:
    """Kills what this process has children do now, from any thread; their steps end as failures."""
    for process in tuple(_LIVE):
        if process.poll() is None:
            _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))


def _import_path() -> str:
    """The child imports the edgecap that its parent runs, installed or not."""
    from edgecap import __file__ as here

    own = os.path.dirname(os.path.dirname(os.path.abspath(here)))
    return os.pathsep.join(filter(None, [own, os.environ.get("PYTHONPATH")]))


def _wait(pipe: IO[bytes], watch: StepCallback, timeout_s: float) -> Refusal | Answer | None:
    """The child's last word, or None where it left, or said nothing for `timeout_s`. Sleeps between lines."""
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


def _how_it_ended(
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
    """A signal's name, and how a sentence tells it; those for real time have a number only."""
    name = next((s.name for s in signal.Signals if s == number), f"signal {number}")
    hint = "; often the system was out of memory" if name == "SIGKILL" else ""
    return name, f"{name} ({number}){hint}" if name.startswith("SIG") else name


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the child and whatever it started, and collects it."""
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
