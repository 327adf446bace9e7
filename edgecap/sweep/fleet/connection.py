"""Connection of the client to a fleet: its devices, and one request at a time to each of them.

After a lost scheduler, the client reconnects; requests that were open then raise SchedulerLost.
This module owns dask's Client.
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
from edgecap.names import one_line
from edgecap.sweep.fleet.messages import SLOT, DeviceInfo, DeviceProgress
from edgecap.sweep.fleet.reachability import Unreachable, check_reachable

POLL_S = 1.0  # between queries of the devices
CALL_S = 5.0  # timeout of a call to the scheduler
PING_S = 3.0  # timeout of a ping to a device
SILENT_S = 30.0  # without a heartbeat, after which a device counts as lost; one is due every 5 s


class ConnectionLost(EdgecapError):
    """Request that will not be answered: the device or the scheduler is gone."""


class SchedulerLost(ConnectionLost):
    """Connection to the scheduler is lost; no device is at fault."""


class DeviceStatus(NamedTuple):
    """State of a device: address, description, is it alive, is it busy for others, its progress."""

    address: str
    info: DeviceInfo
    alive: bool
    busy: bool = False
    progress: DeviceProgress = DeviceProgress()


class _Heartbeat(NamedTuple):
    """Last heartbeat by the scheduler's clock, and when it changed by ours; clocks differ."""

    last: float
    since: float


class FleetConnection:
    """Connection to a scheduler; a context manager, thread-safe."""

    def __init__(self, address: str, security: Any | None, silent_s: float = SILENT_S) -> None:
        self._address, self._security, self._silent_s = address, security, silent_s
        self._client: Any = None
        self._open: dict[str, Any] = {}  # address of a device -> the request that it has
        self._heartbeats: dict[str, _Heartbeat] = {}
        self._devices: list[DeviceStatus] = []
        self._polled_at = -POLL_S
        self._lock = threading.Lock()

    def __enter__(self) -> FleetConnection:
        self._connect()
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    # --- devices ------------------------------------------------------------------------------

    def devices(self) -> list[DeviceStatus]:
        """Return the devices, at most one second old. Raise ConnectionLost without a scheduler."""
        now = time.monotonic()
        if now - self._polled_at >= POLL_S:
            self._devices = self._poll()
            self._polled_at = time.monotonic()
        return self._devices

    def reconnect(self) -> None:
        """Connect anew; open requests are lost. Raise ConnectionLost if the scheduler is silent."""
        self._close()
        self._connect()

    def _connect(self) -> None:
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
                f"no scheduler answers at {self._address} ({one_line(error, 200)})"
            ) from error

    def _check_scheduler(self) -> None:
        """Raise Unreachable if the scheduler has another edgecap: it unpickles each request."""
        try:
            theirs = self._client.run_on_scheduler(_scheduler_version)
        except Exception as error:
            self._close()
            raise Unreachable(
                f"the scheduler at {self._address} cannot load this edgecap "
                f"({type(error).__name__}): start it with edgecap fleet start, or with "
                "dask scheduler where the same edgecap is installed",
                lasting=True,
            ) from error
        if theirs != __version__:
            self._close()
            raise Unreachable(
                f"the scheduler at {self._address} has edgecap {theirs}, not {__version__}: "
                "install the same version",
                lasting=True,
            )

    def _close(self) -> None:
        client, self._client, self._polled_at = self._client, None, -POLL_S
        if client is not None:
            for request in tuple(self._open.values()):
                _cancel(request)
            with contextlib.suppress(Exception):
                client.close(timeout=2)

    def _poll(self) -> list[DeviceStatus]:
        try:
            if self._client is None or self._client.status != "running":
                raise OSError("the connection is closed")
            return list(
                self._client.sync(
                    self._read_status, self._client.scheduler, callback_timeout=CALL_S + PING_S
                )
            )
        except Exception as error:  # dask raises many types for a closed connection
            raise ConnectionLost(f"the scheduler at {self._address} is gone") from error

    async def _read_status(self, scheduler: Any) -> list[DeviceStatus]:
        """Read the devices from the scheduler, and check which of them are alive."""
        identity, processing = await asyncio.wait_for(
            asyncio.gather(scheduler.identity(), scheduler.processing()), CALL_S
        )
        workers = identity["workers"]
        infos = {a: info for a, entry in workers.items() if (info := _device_info(entry))}
        alive = await asyncio.gather(*(self._is_alive(scheduler, a, workers[a]) for a in infos))
        own = {request.key for request in tuple(self._open.values())}
        return [
            DeviceStatus(
                address=address,
                info=info,
                alive=is_alive,
                busy=not own.issuperset(processing.get(address, ())),
                progress=_progress(workers[address]),
            )
            for (address, info), is_alive in zip(infos.items(), alive, strict=True)
        ]

    async def _is_alive(self, scheduler: Any, address: str, entry: dict[str, Any]) -> bool:
        """Return True while heartbeats arrive; a new or silent device must first answer a ping."""
        now, last = time.monotonic(), float(entry.get("last_seen", 0.0))
        previous = self._heartbeats.get(address)
        if previous is not None and now - previous.since < self._silent_s:
            self._heartbeats[address] = previous if last == previous.last else _Heartbeat(last, now)
            return True
        if previous is not None and last == previous.last:
            return False
        alive = await _responds(scheduler, address)
        self._heartbeats[address] = _Heartbeat(last, time.monotonic() if alive else -self._silent_s)
        return alive

    # --- requests -----------------------------------------------------------------------------

    def ask(self, address: str, function: Callable[..., bytes], *arguments: object) -> object:
        """Call a function on a device and return its answer. Raise ConnectionLost if it fails."""
        client = self._client
        if client is None:
            raise SchedulerLost("the connection is closed")
        key = f"edgecap-{uuid4().hex}"
        try:
            request = client.submit(
                function,
                *arguments,
                key=key,
                workers=[address],
                allow_other_workers=False,
                resources={SLOT: 1},
                pure=False,
            )
        except Exception as error:
            raise SchedulerLost("the connection is closed") from error
        with self._lock:
            self._open[address] = request
        try:
            return request.result()
        except CancelledError as error:
            if (
                client is not self._client
                or getattr(error, "reason", "") == "scheduler-connection-lost"
            ):
                raise SchedulerLost("the scheduler went away") from None
            raise ConnectionLost("the device left, or was silent for too long") from None
        except Exception as error:
            raise ConnectionLost(f"{type(error).__name__}: {one_line(error, 200)}") from error
        finally:
            with self._lock:
                if self._open.get(address) is request:
                    del self._open[address]
            _cancel(request)

    def drop(self, address: str) -> None:
        """Cancel the request of a device, which then ends its measurement."""
        with self._lock:
            request = self._open.get(address)
        if request is not None:
            _cancel(request)


def _device_info(entry: dict[str, Any]) -> DeviceInfo | None:
    """Return the description of a worker; None unless it is valid and from edgecap worker.

    The scheduler admits each name once; a worker that describes itself by another name is refused.
    """
    try:
        info = msgspec.convert(entry.get(SLOT), DeviceInfo)
    except msgspec.ValidationError:
        return None
    return info if info.name == entry.get("name") else None


def _progress(entry: dict[str, Any]) -> DeviceProgress:
    try:
        return msgspec.convert(entry.get("metrics", {}).get(SLOT), DeviceProgress)
    except (msgspec.ValidationError, AttributeError):
        return DeviceProgress()


async def _responds(scheduler: Any, address: str) -> bool:
    """Return True if a device answers a ping of the scheduler."""
    try:
        ping = scheduler.broadcast(msg={"op": "ping"}, workers=[address])
        return address in await asyncio.wait_for(ping, PING_S)
    except Exception:  # it left, or is behind a firewall; dask raises many types
        return False


def _cancel(request: Any) -> None:
    with contextlib.suppress(Exception):
        request.cancel()


def _scheduler_version() -> str:
    """Return the version of edgecap; runs on the scheduler."""
    return __version__


def connect(address: str, security: Any | None) -> FleetConnection:
    """Return an open connection. Raise UsageError if no scheduler answers."""
    connection = FleetConnection(address, security)
    try:
        connection.__enter__()
    except ConnectionLost as error:
        raise UsageError(
            f"{error}; start one with edgecap fleet start" if _may_come(error) else str(error)
        ) from error
    return connection


def _may_come(error: ConnectionLost) -> bool:
    return not (isinstance(error.__cause__, Unreachable) and error.__cause__.lasting)
