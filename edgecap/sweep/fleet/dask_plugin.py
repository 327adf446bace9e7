"""Connect a device to its dask worker: the functions that dask calls, and their cancellation.

Dask calls `serve` and `take` by name; they find the device in the `DevicePlugin` of their worker.
Dask cannot stop a running task. The plugin notices that a request was cancelled or the scheduler is
gone, and ends the child process of the measurement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecap.pipeline.worker import end_children
from edgecap.record import Failure
from edgecap.sweep.fleet.device import Device
from edgecap.sweep.fleet.messages import SLOT, TaskFailed, encode

Verb = Callable[..., bytes]  # function that dask calls


class DevicePlugin:
    """State of a device in its dask worker; `plugin_of` makes the plugin that dask accepts."""

    name = SLOT

    def __init__(self, device: Device) -> None:
        self.device = device
        self._cancelled: set[str] = set()
        self._has_ended = False

    def setup(self, worker: Any) -> None:
        """Do nothing; dask requires this method."""

    def teardown(self, worker: Any) -> None:
        """End the running measurement: the scheduler is gone."""
        self._has_ended = True
        end_children()

    def transition(self, key: str, start: str, finish: str, **more: Any) -> None:
        """End the running measurement when its request is released, since the client left."""
        if start == "executing" and finish in ("released", "cancelled", "forgotten"):
            self._cancelled.add(key)
            end_children()
        elif finish in ("memory", "error"):
            self._cancelled.discard(key)

    def wanted(self, key: str) -> bool:
        """Return True while a client waits for the answer."""
        return not self._has_ended and key not in self._cancelled


def plugin_of(device: Device) -> DevicePlugin:
    """Return the dask plugin of a device."""
    from distributed import WorkerPlugin

    # Dask requires its own class, which is slow to import.
    class Plugged(DevicePlugin, WorkerPlugin):  # type: ignore[misc]
        pass

    return Plugged(device)


def serve(order: bytes) -> bytes:
    """Return the reply to an order, or a failure if this worker is not a device of edgecap."""
    plugin, key = _plugin_and_key()
    return plugin.device.answer(order, lambda: plugin.wanted(key)) if plugin else encode(_NO_DEVICE)


def take(about: bytes, offset: int, data: bytes) -> bytes:
    """Return the reply to a piece of a file."""
    plugin, _ = _plugin_and_key()
    return plugin.device.take(about, offset, data) if plugin else encode(_NO_DEVICE)


def _plugin_and_key() -> tuple[DevicePlugin | None, str]:
    from distributed import get_worker

    worker = get_worker()
    return worker.plugins.get(SLOT), str(worker.get_current_task())


_NO_DEVICE = TaskFailed(
    failure=Failure(
        stage="device",
        error="NoDevice",
        message="a dask worker that `edgecap worker` did not start",
    ),
    elsewhere=True,
)
