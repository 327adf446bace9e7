"""Join a scheduler as a dask worker with one slot, and join again after a lost connection."""

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
from edgecap.machine.info import default_threads, usable_memory
from edgecap.names import one_line
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

RETRY_S, LONGEST_RETRY_S = 2.0, 30.0  # pause between attempts to join; doubles up to the limit

# --- this machine -----------------------------------------------------------------------------


def read_device_info(name: str, run: StepRunner = in_child) -> DeviceInfo:
    """Return what this machine can measure. Raise UsageError if ONNX Runtime or the name fails."""
    from edgecap.machine.info import read_machine

    check_name(name)
    diagnosis = expected(
        run(Diagnose(threads=default_threads()), lambda progress: None, 600.0), Diagnosed
    )
    if isinstance(diagnosis, Failure):
        raise UsageError(f"this machine cannot measure: {diagnosis.message}")
    providers = tuple(name for name, reason in diagnosis.providers.items() if not reason)
    return DeviceInfo(
        edgecap=__version__,
        name=name,
        host=platform.node()[:200],
        cpu=read_machine(providers).processor[:200],
        memory_bytes=usable_memory(),
        providers=providers,
        counters=tuple(counter.name for counter in diagnosis.counters),
    )


def resources(info: DeviceInfo) -> dict[str, float]:
    """Return the same as dask resources: one slot, and what a cell may require."""
    amounts = {SLOT: 1.0, f"device:{info.name}": 1.0, "memory": float(info.memory_bytes)}
    amounts |= {f"provider:{name}": 1.0 for name in info.providers}
    return amounts | ({"energy": 1.0} if info.counters else {})


@contextlib.contextmanager
def exclusive_cache(cache: Path) -> Iterator[None]:
    """Lock a cache for this worker. Raise UsageError if another worker uses it."""
    with disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
    try:
        lock = locks.acquire(cache / "worker.lock")
    except OSError as error:
        raise UsageError(f"cannot lock {cache}: {error}; give a --cache on a local disk") from error
    if lock is None:
        raise UsageError(
            f"another worker measures on this machine with {cache}; "
            "give --cache for a second one, which may disturb it"
        )
    try:
        yield
    finally:
        lock.release()


# --- joining ----------------------------------------------------------------------------------


def check_admission(address: str, security: Any | None) -> None:
    """Raise UsageError if a scheduler refuses this device for good, not if it is absent."""
    try:
        check_reachable(address, security)
    except Unreachable as error:
        if error.lasting:
            raise UsageError(str(error)) from error


async def join(
    address: str,
    security: Any | None,
    device: Device,
    info: DeviceInfo,
    say: Callable[[str], None],
) -> None:
    """Work for a scheduler until cancelled; join again when it is lost or not there yet."""
    pause = RETRY_S
    with tempfile.TemporaryDirectory(prefix="edgecap-worker-") as scratch:
        while True:
            try:
                has_joined = await _serve_once(address, security, device, info, scratch, say)
            except Unreachable as error:
                say(f"{error}; trying again")
                has_joined = False
            pause = RETRY_S if has_joined else min(2 * pause, LONGEST_RETRY_S)
            await asyncio.sleep(pause)


async def _serve_once(
    address: str,
    security: Any | None,
    device: Device,
    info: DeviceInfo,
    scratch: str,
    say: Callable[[str], None],
) -> bool:
    """Join once and work until the scheduler is lost; return False if joining failed."""
    await asyncio.to_thread(check_reachable, address, security)
    plugin = plugin_of(device)
    worker = open_worker(
        address,
        security,
        name=info.name,
        resources=resources(info),
        local_directory=scratch,
        startup_information={SLOT: lambda worker: msgspec.to_builtins(info)},
        metrics={SLOT: lambda worker: msgspec.to_builtins(device.progress)},
        plugins=[plugin],
    )
    try:
        await worker
        say(f"joined {address} as {info.name}")
        await worker.finished()
        say("the scheduler is gone; trying to join again")
        return True
    except (TimeoutError, OSError, ValueError, RuntimeError) as error:
        say(f"cannot join {address}: {_reason(error, info.name)}; trying again")
        return False
    finally:
        plugin.teardown(worker)
        with contextlib.suppress(Exception):
            await worker.close(timeout=2, executor_wait=False)


def _reason(error: Exception, name: str) -> str:
    words = one_line(f"{error} {error.__cause__ or ''}")
    if "name taken" in words:
        return f"a device named {name} is connected, or was a moment ago; give another --name"
    return words[:300]
