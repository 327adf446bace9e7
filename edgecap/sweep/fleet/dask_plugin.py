"""The one measuring slot of a dask worker: what dask calls there, and who waits for the answer.

Dask calls `serve` and `take` by their names; whose they are is known to the `DevicePlugin` of the worker that runs them.
Dask cannot end what runs; the slot sees that a question was taken back, or that the scheduler is gone, and the device
then ends its child, since nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecap.pipeline.worker import end_children
from edgecap.record import Failure
from edgecap.sweep.fleet.device import Device
from edgecap.sweep.fleet.messages import SLOT, TaskFailed, encode

Verb = Callable[..., bytes]  # of these that dask calls


class DevicePlugin:
    """What a dask worker knows of the device that it is; `plugin_of` makes one that dask takes as a plugin."""

    name = SLOT

    def __init__(self, device: Device) -> None:
        self.device = device
        self._taken_back: set[str] = set()
        self._gone = False

    def setup(self, worker: Any) -> None:
        """Nothing is needed of the worker."""

    def teardown(self, worker: Any) -> None:
        """The scheduler is gone, and with it whoever asked."""
        self._gone = True
        end_children()

    def transition(self, key: str, start: str, finish: str, **more: Any) -> None:
        """A question that runs is released: its client took it back, or left."""
        if start == "executing" and finish in ("released", "cancelled", "forgotten"):
            self._taken_back.add(key)
            end_children()
        elif finish in ("memory", "error"):
            self._taken_back.discard(key)

    def wanted(self, key: str) -> bool:
        """Whether somebody waits for the answer."""
        return not self._gone and key not in self._taken_back


def plugin_of(device: Device) -> DevicePlugin:
    """The slot of a device."""
    from distributed import WorkerPlugin

    class Plugged(DevicePlugin, WorkerPlugin):  # type: ignore[misc]  # dask wants its own class, which is heavy to load
        pass

    return Plugged(device)


def serve(order: bytes) -> bytes:
    """The reply to an order; a process that is no device of edgecap says so."""
    slot, key = _slot_and_key()
    return slot.device.answer(order, lambda: slot.wanted(key)) if slot else encode(_STRANGER)


def take(about: bytes, offset: int, data: bytes) -> bytes:
    """The reply to a piece of a file."""
    slot, _ = _slot_and_key()
    return slot.device.take(about, offset, data) if slot else encode(_STRANGER)


def _slot_and_key() -> tuple[DevicePlugin | None, str]:
    from distributed import get_worker

    worker = get_worker()
    return worker.plugins.get(SLOT), str(worker.get_current_task())


_STRANGER = TaskFailed(
    failure=Failure(
        stage="device",
        error="NoDevice",
        message="a dask worker that `edgecap worker` did not start",
    ),
    elsewhere=True,
)
