"""A device of a fleet: a dask worker with one measuring slot, which answers orders one at a time.

Dask calls `serve` and `take` by their names; what they do is the business of the `Device` that this process
is. A device that loses its scheduler gives up what it measures, since nobody waits for it, and joins again.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from edgecap import __version__, locks, source, store
from edgecap.blobs import Blobs
from edgecap.errors import DiskFull, EdgecapError, Interrupted, UsageError
from edgecap.fleet.messages import (
    SLOT,
    About,
    Done,
    Failed,
    Needs,
    Order,
    PartDone,
    Reply,
    packed,
    unpacked,
)
from edgecap.fleet.network import open_worker
from edgecap.job import Run, Scores, unheard
from edgecap.machine import default_threads
from edgecap.pipeline import profile, score_part
from edgecap.pruning import Wanted, prune
from edgecap.record import Failure, File
from edgecap.spec import DEFAULT_CORPUS, Spec
from edgecap.store import Home
from edgecap.sweep import failed
from edgecap.worker import Answer, Examine, Examined, Step, Watch, end_children, expected, in_child

AGAIN_S = 2.0  # between tries to join


class GivenUp(EdgecapError):
    """Nobody waits for this measurement any more."""


class Device:
    """What a fleet sees of the machine: its cache, and a slot that one measurement at a time may have."""

    def __init__(
        self, cache: Path, shared: Path | None = None, run: Run = in_child, most_bytes: float | None = None
    ) -> None:
        """Of `cache`, what was not used for longest goes when it is larger than `most_bytes`."""
        self._cache, self._blobs, self._run, self._most_bytes = cache, Blobs(cache, shared), run, most_bytes
        self._slot, self._unwanted = threading.Lock(), threading.Event()

    # --- what it is told ----------------------------------------------------------------------

    def answer(self, data: bytes) -> bytes:
        """The reply to an order; whatever goes wrong is one too."""
        with self._slot:
            self._unwanted.clear()
            reply = packed(self._reply(data))
            self._tidy()
            return reply

    def _reply(self, data: bytes) -> Reply:
        try:
            return self._obey(unpacked(data, Order))
        except (DiskFull, GivenUp, Interrupted) as error:
            return Failed(failure=failed("device", error), elsewhere=True)
        except EdgecapError as error:
            return Failed(failure=failed("refused", error))
        except Exception as error:  # a mistake of ours costs a cell, not the device
            return Failed(failure=failed("edgecap", error), elsewhere=True)

    def _tidy(self) -> None:
        """Makes room for the next model."""
        if self._most_bytes is not None:
            with contextlib.suppress(EdgecapError):
                prune(self._cache, Wanted(to_bytes=self._most_bytes))

    def take(self, about: bytes, offset: int, data: bytes) -> bytes:
        """Takes a piece of a file; replies with what is still needed of it."""
        with self._slot:
            try:
                file = unpacked(about, File)
                whole = self._blobs.take(file, offset, data)
                return packed(Needs(files=() if whole else (file,), had=() if whole else (offset + len(data),)))
            except EdgecapError as error:
                return packed(Failed(failure=failed("device", error), elsewhere=True))

    def give_up(self) -> None:
        """Ends what is measured now; its reply, which nobody reads, says so."""
        self._unwanted.set()
        end_children()

    # --- what it does -------------------------------------------------------------------------

    def _obey(self, order: Order) -> Reply:
        if order.edgecap != __version__:
            raise GivenUp(f"this device runs edgecap {__version__}, the client {order.edgecap}: install the same")
        files = source.manifest_files(_parsed(order.manifest))
        lacking = self._blobs.missing((*files, *((order.text,) if order.text else ())))
        if lacking:
            return Needs(files=lacking, had=tuple(self._blobs.had(file.sha256) for file in lacking))
        with ExitStack() as in_use, tempfile.TemporaryDirectory(prefix="edgecap-run-") as scratch:
            spec = self._here(order, files, in_use)
            home = Home(cache=self._cache, profiles=Path(scratch))
            if order.part:
                found = score_part(spec, home, order.part.number, order.part.of, run=self._watched)
                return Failed(failure=found) if isinstance(found, Failure) else PartDone(shares=found)
            record = profile(spec, home, unheard, self._watched, Scores(documents=order.documents))
            return Done(record=msgspec.Raw(msgspec.json.encode(record)))

    def _watched(self, step: Step, watch: Watch, timeout_s: float) -> Answer:
        """A step of the run, unless nobody waits for it any more."""
        self._check_wanted()
        answer = self._run(step, watch, timeout_s)
        self._check_wanted()
        return answer

    def _check_wanted(self) -> None:
        if self._unwanted.is_set():
            raise GivenUp("the client or the scheduler went away")

    def _here(self, order: Order, files: tuple[File, ...], in_use: ExitStack) -> Spec:
        """What is asked, of files that lie here. Nothing that the order says reaches a path unchecked."""
        bundle = self._cache / "bundles" / store.sha256_of(order.manifest.encode())[:32]
        folder = bundle / store.slug(order.model_name)
        with locks.alone(bundle, lambda: None, lambda reason: None):
            in_use.enter_context(locks.used(bundle))
            if not (folder / source.MANIFEST).is_file():
                with store.new_folder(folder) as scratch:
                    self._blobs.lay_out(files, scratch)
                    store.write_atomically(scratch / source.MANIFEST, order.manifest.encode())
            store.touch(bundle)
        return msgspec.structs.replace(
            order.spec,
            model=str(folder),
            corpus=self._text(order),
            revision=None,
            trust_remote_code=False,
            meter=None,
            meter_offset_s=None,
        )

    def _text(self, order: Order) -> str:
        if order.text is None:
            if order.spec.corpus != DEFAULT_CORPUS:
                raise UsageError("an order without a text is one for the bundled corpus")
            return DEFAULT_CORPUS
        folder = self._cache / "texts" / order.text.sha256
        name = store.slug(order.text_name)
        if not (folder / name).is_file():
            self._blobs.lay_out((msgspec.structs.replace(order.text, path=name),), folder)
        return str(folder / name)


def _parsed(manifest: str) -> dict[str, Any]:
    try:
        told = msgspec.json.decode(manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"the manifest is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise UsageError("the manifest is no object")
    return told


def _made(folder: Path) -> Path:
    with store.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- this process -----------------------------------------------------------------------------

_HERE: list[Device] = []  # one, once the process has joined


def serve(order: bytes) -> bytes:
    """What dask calls with an order; a process that is no device of edgecap says so."""
    return _HERE[0].answer(order) if _HERE else packed(Failed(failure=_STRANGER, elsewhere=True))


def take(about: bytes, offset: int, data: bytes) -> bytes:
    """What dask calls with a piece of a file."""
    return _HERE[0].take(about, offset, data) if _HERE else packed(Failed(failure=_STRANGER, elsewhere=True))


def give_up() -> None:
    """What dask calls where a client needs an answer no longer."""
    for device in _HERE:
        device.give_up()


_STRANGER = Failure(stage="device", error="NoDevice", message="a dask worker that `edgecap worker` did not start")


def look(name: str, run: Run = in_child) -> About:
    """What this machine can measure. Raises UsageError where ONNX Runtime cannot be used."""
    import psutil

    from edgecap.machine import look_around

    found = expected(run(Examine(threads=default_threads()), lambda progress: None, 600.0), Examined)
    if isinstance(found, Failure):
        raise UsageError(f"this machine cannot measure: {found.message}")
    providers = tuple(name for name, reason in found.providers.items() if not reason)
    return About(
        edgecap=__version__,
        name=name,
        host=platform.node(),
        cpu=look_around(providers).cpu,
        memory_bytes=psutil.virtual_memory().total,
        providers=providers,
        counters=tuple(counter.name for counter in found.counters),
    )


def resources(about: About) -> dict[str, float]:
    """The same as dask counts it: one slot, and what a cell may ask for."""
    found = {SLOT: 1.0, f"device:{about.name}": 1.0, "memory": float(about.memory_bytes)}
    found |= {f"provider:{name}": 1.0 for name in about.providers}
    return found | ({"energy": 1.0} if about.counters else {})


@contextlib.contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Holds a cache for this process as a device. Raises UsageError where another worker has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(_made(cache) / "worker.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"another worker measures on this machine with {cache}; for a second one that may disturb it, give --cache"
        ) from None
    try:
        yield
    finally:
        lock.release()


async def join(address: str, security: Any | None, device: Device, about: About, say: Callable[[str], None]) -> None:
    """Serves a scheduler until cancelled; joins again whenever it is lost."""
    _HERE[:] = [device]
    with tempfile.TemporaryDirectory(prefix="edgecap-worker-") as scratch:
        while True:
            await _serve_once(address, security, about, scratch, say)
            device.give_up()
            await asyncio.sleep(AGAIN_S)


async def _serve_once(
    address: str, security: Any | None, about: About, scratch: str, say: Callable[[str], None]
) -> None:
    worker = open_worker(
        address,
        security,
        name=about.name,
        resources=resources(about),
        local_directory=scratch,
        startup_information={SLOT: lambda worker: msgspec.to_builtins(about)},
    )
    try:
        await worker
        say(f"joined {address} as {about.name}")
        await worker.finished()
        say("the scheduler is gone; trying to join again")
    except (TimeoutError, OSError, ValueError, RuntimeError) as error:
        say(f"cannot join {address}: {' '.join(str(error).split())[:300]}; trying again")
    finally:
        with contextlib.suppress(Exception):
            await worker.close(timeout=2)
