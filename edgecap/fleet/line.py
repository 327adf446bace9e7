"""The client's line to a fleet: which devices are there, and one question at a time to each. Owns dask's Client.

A scheduler that went away is called again; questions that were open then are lost, and say so.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec

from edgecap.errors import EdgecapError, UsageError
from edgecap.fleet import device as far
from edgecap.fleet.messages import SLOT, About

LOOK_S = 1.0  # between looks at who is there
CALL_S = 5.0  # that a call to the scheduler may take
SILENT_S = 30.0  # without a heartbeat, of which there is one in five seconds


class Lost(EdgecapError):
    """A question that nobody will answer: the device or the scheduler is gone."""


class Cut(Lost):
    """The scheduler is gone, which is no device's fault."""


class Seen(NamedTuple):
    """A device that is there: where, what it says of itself, and whether it is heard."""

    address: str
    about: About
    heard: bool


class Line:
    """Opened with `with`; safe to ask from several threads."""

    def __init__(self, address: str, security: Any | None, silent_s: float = SILENT_S) -> None:
        self._address, self._security, self._silent_s = address, security, silent_s
        self._client: Any = None
        self._open: dict[str, Any] = {}  # address of a device -> the question that it has
        self._seen: list[Seen] = []
        self._looked = -LOOK_S
        self._lock = threading.Lock()

    def __enter__(self) -> Line:
        self._call()
        return self

    def __exit__(self, *error: object) -> None:
        self._hang_up()

    # --- who is there -------------------------------------------------------------------------

    def devices(self) -> list[Seen]:
        """The devices, looked up once a second at most. Raises Lost where the scheduler cannot be reached."""
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._seen = [seen for seen in map(self._as_seen, self._workers()) if seen]
            self._looked = time.monotonic()
        return self._seen

    def again(self) -> None:
        """Calls the scheduler anew; every open question is lost. Raises Lost where it does not answer."""
        self._hang_up()
        self._call()

    def _call(self) -> None:
        from distributed import Client

        try:
            self._client = Client(
                self._address,
                security=self._security,
                timeout=CALL_S,
                set_as_default=False,
                name="edgecap",
                heartbeat_interval="5s",
            )
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            raise Lost(f"no scheduler answers at {self._address} ({' '.join(str(error).split())[:200]})") from error

    def _hang_up(self) -> None:
        client, self._client, self._looked = self._client, None, -LOOK_S
        if client is not None:
            for question in tuple(self._open.values()):
                _cancelled(question)
            with contextlib.suppress(Exception):
                client.close(timeout=2)

    def _workers(self) -> list[tuple[str, dict[str, Any]]]:
        try:
            if self._client is None or self._client.status != "running":
                raise OSError("the line is down")
            told = self._client.sync(self._client.scheduler.identity, n_workers=-1, callback_timeout=CALL_S)
        except Exception as error:  # a closed line has many names
            raise Lost(f"the scheduler at {self._address} is gone") from error
        return list(told["workers"].items())

    def _as_seen(self, worker: tuple[str, dict[str, Any]]) -> Seen | None:
        """A worker as a device; None where edgecap did not start it, or what it says of itself makes no sense."""
        address, told = worker
        try:
            about = msgspec.convert(told.get(SLOT), About)
        except msgspec.ValidationError:
            return None
        return Seen(address, about, time.time() - float(told.get("last_seen", 0.0)) < self._silent_s)

    # --- questions ----------------------------------------------------------------------------

    def ask(self, address: str, verb: Callable[..., bytes], *said: object) -> object:
        """What a device answers. Raises Lost where it will not, and what dask raises where the far side failed."""
        client = self._client
        if client is None:
            raise Cut("the line is down")
        try:
            question = client.submit(
                verb,
                *said,
                key=f"edgecap-{uuid4().hex}",
                workers=[address],
                allow_other_workers=False,
                resources={SLOT: 1},
                pure=False,
            )
        except Exception as error:
            raise Cut("the line is down") from error
        with self._lock:
            self._open[address] = question
        try:
            return question.result()
        except CancelledError as error:
            if client is not self._client or getattr(error, "reason", "") == "scheduler-connection-lost":
                raise Cut("the scheduler went away") from None
            raise Lost("it left, or was silent for too long") from None
        except Exception as error:
            raise Lost(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
        finally:
            with self._lock:
                self._open.pop(address, None)
            _cancelled(question)

    def drop(self, address: str) -> None:
        """Waits no longer for what a device was asked."""
        with self._lock:
            question = self._open.get(address)
        if question is not None:
            _cancelled(question)

    def excuse(self, addresses: list[str]) -> None:
        """Tells devices that nobody waits for their answers any more, if they can be told at once."""
        with contextlib.suppress(Exception):
            if addresses and self._client is not None:
                self._client.sync(self._client._run, far.give_up, workers=addresses, wait=True, callback_timeout=2)


def _cancelled(question: Any) -> None:
    with contextlib.suppress(Exception):
        question.cancel()


def first_call(address: str, security: Any | None) -> Line:
    """A line that was answered once. Raises UsageError where nobody answers."""
    line = Line(address, security)
    try:
        line.__enter__()
    except Lost as error:
        raise UsageError(f"{error}; start one with edgecap fleet start") from error
    return line
