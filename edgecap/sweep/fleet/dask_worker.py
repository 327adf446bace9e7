"""A device joins a scheduler as a dask worker with one slot, and joins again whenever it was lost."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from edgecap import __version__
from edgecap.errors import UsageError
from edgecap.machine.info import default_threads
from edgecap.pipeline.run_context import StepRunner
from edgecap.pipeline.worker import Diagnose, Diagnosed, expected, in_child
from edgecap.record import Failure
from edgecap.storage import locks
from edgecap.storage.files import disk_errors
from edgecap.sweep.fleet.dask_plugin import plugin_of
from edgecap.sweep.fleet.device import Device
from edgecap.sweep.fleet.messages import SLOT, DeviceInfo, check_name
from edgecap.sweep.fleet.network import open_worker
from edgecap.sweep.fleet.reachability import Unreachable, check_reachable

RETRY_S, LONGEST_RETRY_S = (
    2.0,
    30.0,
)  # between tries to join: at first, and when it has been in vain for long

# --- what the machine is ----------------------------------------------------------------------


def read_device_info(name: str, run: StepRunner = in_child) -> DeviceInfo:
    """What this machine can measure. Raises UsageError where ONNX Runtime cannot be used, or the name is none."""
    import psutil

    from edgecap.machine.info import read_machine

    check_name(name)
    found = expected(
        run(Diagnose(threads=default_threads()), lambda progress: None, 600.0), Diagnosed
    )
    if isinstance(found, Failure):
        raise UsageError(f"this machine cannot measure: {found.message}")
    providers = tuple(name for name, reason in found.providers.items() if not reason)
    return DeviceInfo(
        edgecap=__version__,
        name=name,
        host=platform.node()[:200],
        cpu=read_machine(providers).cpu[:200],
        memory_bytes=psutil.virtual_memory().total,
        providers=providers,
        counters=tuple(counter.name for counter in found.counters),
    )


def resources(about: DeviceInfo) -> dict[str, float]:
    """The same as dask counts it: one slot, and what a cell may ask for."""
    found = {SLOT: 1.0, f"device:{about.name}": 1.0, "memory": float(about.memory_bytes)}
    found |= {f"provider:{name}": 1.0 for name in about.providers}
    return found | ({"energy": 1.0} if about.counters else {})


@contextlib.contextmanager
def exclusive_cache(cache: Path) -> Iterator[None]:
    """Holds a cache for this process as a device. Raises UsageError where another worker has it."""
    with disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
    try:
        lock = locks.acquire(cache / "worker.lock")
    except OSError as error:
        raise UsageError(f"cannot lock {cache}: {error}; give a --cache on a local disk") from error
    if lock is None:
        raise UsageError(
            f"another worker measures on this machine with {cache}; for a second one that may disturb it, give --cache"
        )
    try:
        yield
    finally:
        lock.release()


# --- joining ----------------------------------------------------------------------------------


def check_admission(address: str, security: Any | None) -> None:
    """Raises UsageError where a scheduler is there that will never let us in; one that is not there may come."""
    try:
        check_reachable(address, security)
    except Unreachable as error:
        if error.lasting:
            raise UsageError(str(error)) from error


async def join(
    address: str,
    security: Any | None,
    device: Device,
    about: DeviceInfo,
    say: Callable[[str], None],
) -> None:
    """Serves a scheduler until cancelled, joining again whenever it was lost or is not there yet."""
    pause = RETRY_S
    with tempfile.TemporaryDirectory(prefix="edgecap-worker-") as scratch:
        while True:
            try:
                joined = await _serve_once(address, security, device, about, scratch, say)
            except Unreachable as error:
                say(f"{error}; trying again")
                joined = False
            pause = RETRY_S if joined else min(2 * pause, LONGEST_RETRY_S)
            await asyncio.sleep(pause)


async def _serve_once(
    address: str,
    security: Any | None,
    device: Device,
    about: DeviceInfo,
    scratch: str,
    say: Callable[[str], None],
) -> bool:
    """Whether it had joined, until it was lost. Raises Unreachable."""
    await asyncio.to_thread(check_reachable, address, security)
    slot = plugin_of(device)
    worker = open_worker(
        address,
        security,
        name=about.name,
        resources=resources(about),
        local_directory=scratch,
        startup_information={SLOT: lambda worker: msgspec.to_builtins(about)},
        metrics={SLOT: lambda worker: msgspec.to_builtins(device.pulse)},
        plugins=[slot],
    )
    try:
        await worker
        say(f"joined {address} as {about.name}")
        await worker.finished()
        say("the scheduler is gone; trying to join again")
        return True
    except (TimeoutError, OSError, ValueError, RuntimeError) as error:
        say(f"cannot join {address}: {_why(error, about.name)}; trying again")
        return False
    finally:
        slot.teardown(worker)
        with contextlib.suppress(Exception):
            await worker.close(timeout=2, executor_wait=False)


def _why(error: Exception, name: str) -> str:
    words = " ".join(f"{error} {error.__cause__ or ''}".split())
    if "name taken" in words:
        return f"a device named {name} is there already, or was a moment ago; another --name tells them apart"
    return words[:300]
