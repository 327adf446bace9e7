"""The client's line to a fleet: which devices are there, and one question at a time to each. Owns dask's Client.

A scheduler that went away is called again; questions that were open then are lost, and say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec

from edgecap import __version__
from edgecap.errors import EdgecapError, UsageError
from edgecap.sweep.fleet.messages import SLOT, DeviceInfo, DeviceProgress
from edgecap.sweep.fleet.reachability import Unreachable, check_reachable

POLL_S = 1.0  # between looks at who is there
CALL_S = 5.0  # that a call to the scheduler may take
PING_S = 3.0  # that a device may take to say that it is awake
SILENT_S = 30.0  # without a heartbeat, of which there is one in five seconds


class ConnectionLost(EdgecapError):
    """A question that nobody will answer: the device or the scheduler is gone."""


class SchedulerLost(ConnectionLost):
    """The scheduler is gone, which is no device's fault."""


class DeviceStatus(NamedTuple):
    """A device that is there: where, what it says of itself, whether it is heard, does something for others, how far."""

    address: str
    about: DeviceInfo
    heard: bool
    busy: bool = False
    pulse: DeviceProgress = DeviceProgress()


class _Heard(NamedTuple):
    """The scheduler's time of a device's last heartbeat, and ours when that changed: their clocks may be hours apart."""

    last: float
    since: float


class FleetConnection:
    """Opened with `with`; safe to ask from several threads."""

    def __init__(self, address: str, security: Any | None, silent_s: float = SILENT_S) -> None:
        self._address, self._security, self._silent_s = address, security, silent_s
        self._client: Any = None
        self._open: dict[str, Any] = {}  # address of a device -> the question that it has
        self._heard: dict[str, _Heard] = {}
        self._seen: list[DeviceStatus] = []
        self._looked = -POLL_S
        self._lock = threading.Lock()

    def __enter__(self) -> FleetConnection:
        self._call()
        return self

    def __exit__(self, *error: object) -> None:
        self._hang_up()

    # --- who is there -------------------------------------------------------------------------

    def devices(self) -> list[DeviceStatus]:
        """The devices, looked up once a second at most. Raises Lost where the scheduler cannot be reached."""
        now = time.monotonic()
        if now - self._looked >= POLL_S:
            self._seen = self._look()
            self._looked = time.monotonic()
        return self._seen

    def again(self) -> None:
        """Calls the scheduler anew; every open question is lost. Raises Lost where it does not answer."""
        self._hang_up()
        self._call()

    def _call(self) -> None:
        from distributed import Client

        try:
            check_reachable(self._address, self._security, CALL_S)
            self._client = Client(
                self._address,
                security=self._security,
                timeout=CALL_S,
                set_as_default=False,
                name="edgecap",
                heartbeat_interval="5s",
            )
            self._check_scheduler()
        except Unreachable as error:
            raise ConnectionLost(str(error)) from error
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            raise ConnectionLost(
                f"no scheduler answers at {self._address} ({' '.join(str(error).split())[:200]})"
            ) from error

    def _check_scheduler(self) -> None:
        """Raises Unreachable where the scheduler cannot read what is said to devices: it unpickles each question."""
        try:
            theirs = self._client.run_on_scheduler(_version)
        except Exception as error:
            self._hang_up()
            raise Unreachable(
                f"the scheduler at {self._address} cannot load this edgecap ({type(error).__name__}): start it with "
                "edgecap fleet start, or dask scheduler where the same edgecap is installed",
                lasting=True,
            ) from error
        if theirs != __version__:
            self._hang_up()
            raise Unreachable(
                f"the scheduler at {self._address} has edgecap {theirs}, not {__version__}: install the same",
                lasting=True,
            )

    def _hang_up(self) -> None:
        client, self._client, self._looked = self._client, None, -POLL_S
        if client is not None:
            for question in tuple(self._open.values()):
                _cancelled(question)
            with contextlib.suppress(Exception):
                client.close(timeout=2)

    def _look(self) -> list[DeviceStatus]:
        try:
            if self._client is None or self._client.status != "running":
                raise OSError("the line is down")
            return list(
                self._client.sync(
                    self._told, self._client.scheduler, callback_timeout=CALL_S + PING_S
                )
            )
        except Exception as error:  # a closed line has many names
            raise ConnectionLost(f"the scheduler at {self._address} is gone") from error

    async def _told(self, scheduler: Any) -> list[DeviceStatus]:
        told, working = await asyncio.wait_for(
            asyncio.gather(scheduler.identity(), scheduler.processing()), CALL_S
        )
        found = {
            address: about for address, more in told["workers"].items() if (about := _about(more))
        }
        heard = await asyncio.gather(
            *(self._is_heard(scheduler, address, told["workers"][address]) for address in found)
        )
        mine = {question.key for question in tuple(self._open.values())}
        return [
            DeviceStatus(
                address=address,
                about=about,
                heard=awake,
                busy=not mine.issuperset(working.get(address, ())),
                pulse=_pulse(told["workers"][address]),
            )
            for (address, about), awake in zip(found.items(), heard, strict=True)
        ]

    async def _is_heard(self, scheduler: Any, address: str, told: dict[str, Any]) -> bool:
        """Whether heartbeats come; one that was silent, or was not known, must answer before it is trusted."""
        now, last = time.monotonic(), float(told.get("last_seen", 0.0))
        had = self._heard.get(address)
        if had is not None and now - had.since < self._silent_s:
            self._heard[address] = had if last == had.last else _Heard(last, now)
            return True
        if had is not None and last == had.last:
            return False
        awake = await _answers(scheduler, address)
        self._heard[address] = _Heard(last, time.monotonic() if awake else -self._silent_s)
        return awake

    # --- questions ----------------------------------------------------------------------------

    def ask(self, address: str, verb: Callable[..., bytes], *said: object) -> object:
        """What a device answers. Raises Lost where it will not, or where the far side failed."""
        client = self._client
        if client is None:
            raise SchedulerLost("the line is down")
        key = f"edgecap-{uuid4().hex}"
        try:
            question = client.submit(
                verb,
                *said,
                key=key,
                workers=[address],
                allow_other_workers=False,
                resources={SLOT: 1},
                pure=False,
            )
        except Exception as error:
            raise SchedulerLost("the line is down") from error
        with self._lock:
            self._open[address] = question
        try:
            return question.result()
        except CancelledError as error:
            if (
                client is not self._client
                or getattr(error, "reason", "") == "scheduler-connection-lost"
            ):
                raise SchedulerLost("the scheduler went away") from None
            raise ConnectionLost("it left, or was silent for too long") from None
        except Exception as error:
            raise ConnectionLost(
                f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            ) from error
        finally:
            with self._lock:
                if self._open.get(address) is question:
                    del self._open[address]
            _cancelled(question)

    def drop(self, address: str) -> None:
        """Takes back what a device was asked; it ends its measurement when it hears that."""
        with self._lock:
            question = self._open.get(address)
        if question is not None:
            _cancelled(question)


def _about(told: dict[str, Any]) -> DeviceInfo | None:
    """What a worker says of itself; None where edgecap did not start it, it makes no sense, or it borrows a name.

    The scheduler has each name once; a worker whose own words give it another is not who it says.
    """
    try:
        about = msgspec.convert(told.get(SLOT), DeviceInfo)
    except msgspec.ValidationError:
        return None
    return about if about.name == told.get("name") else None


def _pulse(told: dict[str, Any]) -> DeviceProgress:
    try:
        return msgspec.convert(told.get("metrics", {}).get(SLOT), DeviceProgress)
    except (msgspec.ValidationError, AttributeError):
        return DeviceProgress()


async def _answers(scheduler: Any, address: str) -> bool:
    """Whether the scheduler reaches a device, and it is awake."""
    try:
        asked = scheduler.broadcast(msg={"op": "ping"}, workers=[address])
        return address in await asyncio.wait_for(asked, PING_S)
    except Exception:  # it left meanwhile, or is behind a firewall; dask has many words for it
        return False


def _cancelled(question: Any) -> None:
    with contextlib.suppress(Exception):
        question.cancel()


def _version() -> str:
    """What the scheduler runs to say which edgecap it has."""
    return __version__


def connect(address: str, security: Any | None) -> FleetConnection:
    """A line that was answered once. Raises UsageError where nobody answers."""
    line = FleetConnection(address, security)
    try:
        line.__enter__()
    except ConnectionLost as error:
        raise UsageError(
            f"{error}; edgecap fleet start begins one" if _nobody(error) else str(error)
        ) from error
    return line


def _nobody(error: ConnectionLost) -> bool:
    return not (isinstance(error.__cause__, Unreachable) and error.__cause__.lasting)
