"""Device of a fleet: execute orders one at a time, while a client waits for the result.

Nothing of an order reaches a path, a library or a command unchecked: `manifest` restricts the files
of a model, a text is data, names are made safe, and code of a model never runs.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from edgecap import __version__
from edgecap.errors import DiskFull, EdgecapError, Interrupted, UsageError
from edgecap.model.manifest import MANIFEST
from edgecap.names import safe_filename
from edgecap.pipeline.profile import profile
from edgecap.pipeline.run_context import KnownScores, StepRunner, ignore_events
from edgecap.pipeline.scoring import score_part
from edgecap.pipeline.worker import Answer, Progress, Step, StepCallback, in_child
from edgecap.provider_options import parse_provider
from edgecap.record import Failure, File
from edgecap.spec import DEFAULT_CORPUS, Spec
from edgecap.storage import locks
from edgecap.storage.cache_prune import PruneOptions, prune
from edgecap.storage.content import ContentStore
from edgecap.storage.files import Paths, new_folder, sha256_of, touch, write_atomically
from edgecap.sweep.fleet.manifest import model_files
from edgecap.sweep.fleet.messages import (
    CellDone,
    DeviceProgress,
    FilesNeeded,
    InvalidMessage,
    Order,
    PartDone,
    Reply,
    TaskFailed,
    decode,
    encode,
)
from edgecap.sweep.runner import failure_of

_OF_FILES = re.compile(
    r"path|lib|file|dir|config|plugin|cache", re.I
)  # names of options that take files


class TaskAbandoned(EdgecapError):
    """No client waits for this measurement any more, or this device cannot run it."""


def _always() -> bool:
    return True


class Device:
    """Device with a cache that measures one task at a time."""

    def __init__(
        self,
        cache: Path,
        shared: Path | None = None,
        run: StepRunner = in_child,
        most_bytes: float | None = None,
    ) -> None:
        """Keep `cache` below `most_bytes` by removing the least recently used files."""
        self._cache, self._blobs, self._run, self._most_bytes = (
            cache,
            ContentStore(cache, shared),
            run,
            most_bytes,
        )
        self._slot, self._wanted = threading.Lock(), _always
        self.progress = DeviceProgress()

    # --- messages -----------------------------------------------------------------------------

    def answer(self, data: bytes, wanted: Callable[[], bool] = _always) -> bytes:
        """Execute an order and return the reply; stop as soon as it is not `wanted` any more."""
        with self._slot:
            self._wanted = wanted
            reply = encode(self._reply(data))
            self.progress = DeviceProgress(beats=self.progress.beats + 1)
            self._free_space()
            return reply

    def _reply(self, data: bytes) -> Reply:
        try:
            self._check_wanted()
            return self._execute(decode(data, Order))
        except (DiskFull, InvalidMessage, TaskAbandoned, Interrupted) as error:
            return TaskFailed(failure=failure_of("device", error), elsewhere=True)
        except EdgecapError as error:
            return TaskFailed(failure=failure_of("refused", error))
        except Exception as error:  # a bug fails one cell, not the device
            return TaskFailed(failure=failure_of("edgecap", error), elsewhere=True)

    def _free_space(self) -> None:
        """Free space for the next model."""
        if self._most_bytes is not None:
            with contextlib.suppress(EdgecapError):
                prune(self._cache, PruneOptions(to_bytes=self._most_bytes))

    def take(self, about: bytes, offset: int, data: bytes) -> bytes:
        """Store a piece of a file; reply with the bytes received so far, or that it is complete."""
        with self._slot:
            try:
                return encode(self._store_piece(decode(about, File), offset, data))
            except EdgecapError as error:
                return encode(TaskFailed(failure=failure_of("device", error), elsewhere=True))

    def _store_piece(self, file: File, offset: int, data: bytes) -> FilesNeeded:
        if not self._blobs.missing((file,)) or self._blobs.append(file, offset, data):
            return FilesNeeded(had={})
        return FilesNeeded(had={file.sha256: self._blobs.received_bytes(file)})

    # --- execution ----------------------------------------------------------------------------

    def _execute(self, order: Order) -> Reply:
        if order.edgecap != __version__:
            raise TaskAbandoned(
                f"this device runs edgecap {__version__}, the client {order.edgecap[:40]}: "
                "install the same version"
            )
        files = model_files(order.manifest)
        missing = self._blobs.missing((*files, *((order.text,) if order.text else ())))
        if missing:
            return FilesNeeded(
                had={file.sha256: self._blobs.received_bytes(file) for file in missing}
            )
        with ExitStack() as in_use, tempfile.TemporaryDirectory(prefix="edgecap-run-") as scratch:
            spec = self._local_spec(order, files, in_use)
            home = Paths(cache=self._cache, profiles=Path(scratch))
            if order.part:
                shares = score_part(spec, home, order.part.number, order.part.of, run=self._watched)
                return (
                    TaskFailed(failure=shares)
                    if isinstance(shares, Failure)
                    else PartDone(shares=shares)
                )
            record = profile(
                spec, home, ignore_events, self._watched, KnownScores(documents=order.documents)
            )
            return CellDone(record=msgspec.Raw(msgspec.json.encode(record)))

    def _watched(self, step: Step, watch: StepCallback, timeout_s: float) -> Answer:
        """Run a step, unless the task was cancelled."""

        def report(progress: Progress) -> None:
            self._check_wanted()
            self.progress = DeviceProgress(
                self.progress.beats + 1, progress.stage[:80], progress.done, progress.total
            )
            watch(progress)

        self._check_wanted()
        answer = self._run(step, report, timeout_s)
        self._check_wanted()
        return answer

    def _check_wanted(self) -> None:
        if not self._wanted():
            raise TaskAbandoned("the client or the scheduler is gone")

    # --- files --------------------------------------------------------------------------------

    def _local_spec(self, order: Order, files: tuple[File, ...], in_use: ExitStack) -> Spec:
        """Return the spec of an order with local paths."""
        for provider in order.spec.providers:
            _check_options(provider)
        return msgspec.structs.replace(
            order.spec,
            model=str(self._model(order, files, in_use)),
            corpus=self._text(order, in_use),
            revision=None,
            trust_remote_code=False,
            meter=None,
            law=None,
            meter_offset_s=None,
        )

    def _model(self, order: Order, files: tuple[File, ...], in_use: ExitStack) -> Path:
        """Return the model's folder; lay it out if it is missing, and mark it in use."""
        bundle = self._cache / "bundles" / sha256_of(order.manifest.encode())[:32]
        folder = bundle / safe_filename(order.model_name)
        with locks.build_lock(bundle, lambda: None, lambda reason: None):
            in_use.enter_context(locks.usage_mark(bundle))
            if not (folder / MANIFEST).is_file():
                with new_folder(folder) as scratch:
                    self._lay_out(files, scratch)
                    write_atomically(scratch / MANIFEST, order.manifest.encode())
            touch(bundle)
        return folder

    def _text(self, order: Order, in_use: ExitStack) -> str:
        if order.text is None:
            if order.spec.corpus != DEFAULT_CORPUS:
                raise UsageError("an order without a text must be for the bundled corpus")
            return DEFAULT_CORPUS
        texts = self._cache / "texts" / order.text.sha256
        name = safe_filename(order.text_name)
        with locks.build_lock(texts, lambda: None, lambda reason: None):
            in_use.enter_context(locks.usage_mark(texts))
            if not (texts / name / name).is_file():
                with new_folder(texts / name) as scratch:
                    self._lay_out((msgspec.structs.replace(order.text, path=name),), scratch)
            touch(texts)
        return str(texts / name / name)

    def _lay_out(self, files: tuple[File, ...], folder: Path) -> None:
        """Lay out files. Raise TaskAbandoned if a stored file is damaged; it is then sent again."""
        try:
            self._blobs.link_into(files, folder)
        except DiskFull:
            raise
        except UsageError as error:
            raise TaskAbandoned(str(error)) from error


def _check_options(provider: str) -> None:
    """Raise UsageError if a provider option could load a library or name a local file."""
    for key, value in parse_provider(provider).options.items():
        if _OF_FILES.search(key) or "/" in value or "\\" in value:
            raise UsageError(
                f"{provider[:80]}: an order may not name files or libraries of the device"
            )
