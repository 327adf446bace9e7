"""A device of a fleet: it answers orders one at a time, and measures only for who waits for it.

Nothing that an order says reaches a path, a library or a command unchecked: a model is what `freight` lets travel, a
text is data, names are slugs, and code of a model never runs, whatever the order says.
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

_OF_FILES = re.compile(r"path|lib|file|dir|config|plugin|cache", re.I)  # in an option's name


class TaskAbandoned(EdgecapError):
    """Nobody waits for this measurement any more, or this device cannot do it."""


def _always() -> bool:
    return True


class Device:
    """The cache of a machine, and a slot that one measurement at a time may have."""

    def __init__(
        self,
        cache: Path,
        shared: Path | None = None,
        run: StepRunner = in_child,
        most_bytes: float | None = None,
    ) -> None:
        """Of `cache`, what was not used for longest goes when it is larger than `most_bytes`."""
        self._cache, self._blobs, self._run, self._most_bytes = (
            cache,
            ContentStore(cache, shared),
            run,
            most_bytes,
        )
        self._slot, self._wanted = threading.Lock(), _always
        self.pulse = DeviceProgress()

    # --- what it is told ----------------------------------------------------------------------

    def answer(self, data: bytes, wanted: Callable[[], bool] = _always) -> bytes:
        """The reply to an order, whatever goes wrong; it is given up as soon as it is not `wanted` any more."""
        with self._slot:
            self._wanted = wanted
            reply = encode(self._reply(data))
            self.pulse = DeviceProgress(beats=self.pulse.beats + 1)
            self._tidy()
            return reply

    def _reply(self, data: bytes) -> Reply:
        try:
            self._check_wanted()
            return self._obey(decode(data, Order))
        except (DiskFull, InvalidMessage, TaskAbandoned, Interrupted) as error:
            return TaskFailed(failure=failure_of("device", error), elsewhere=True)
        except EdgecapError as error:
            return TaskFailed(failure=failure_of("refused", error))
        except Exception as error:  # a mistake of ours costs a cell, not the device
            return TaskFailed(failure=failure_of("edgecap", error), elsewhere=True)

    def _tidy(self) -> None:
        """Makes room for the next model."""
        if self._most_bytes is not None:
            with contextlib.suppress(EdgecapError):
                prune(self._cache, PruneOptions(to_bytes=self._most_bytes))

    def take(self, about: bytes, offset: int, data: bytes) -> bytes:
        """Takes a piece of a file; replies with what is here of it, or that nothing more is needed."""
        with self._slot:
            try:
                return encode(self._taken(decode(about, File), offset, data))
            except EdgecapError as error:
                return encode(TaskFailed(failure=failure_of("device", error), elsewhere=True))

    def _taken(self, file: File, offset: int, data: bytes) -> FilesNeeded:
        if not self._blobs.missing((file,)) or self._blobs.append(file, offset, data):
            return FilesNeeded(had={})
        return FilesNeeded(had={file.sha256: self._blobs.received_bytes(file)})

    # --- what it does -------------------------------------------------------------------------

    def _obey(self, order: Order) -> Reply:
        if order.edgecap != __version__:
            raise TaskAbandoned(
                f"this device runs edgecap {__version__}, the client {order.edgecap[:40]}: install the same"
            )
        files = model_files(order.manifest)
        lacking = self._blobs.missing((*files, *((order.text,) if order.text else ())))
        if lacking:
            return FilesNeeded(
                had={file.sha256: self._blobs.received_bytes(file) for file in lacking}
            )
        with ExitStack() as in_use, tempfile.TemporaryDirectory(prefix="edgecap-run-") as scratch:
            spec = self._here(order, files, in_use)
            home = Paths(cache=self._cache, profiles=Path(scratch))
            if order.part:
                found = score_part(spec, home, order.part.number, order.part.of, run=self._watched)
                return (
                    TaskFailed(failure=found)
                    if isinstance(found, Failure)
                    else PartDone(shares=found)
                )
            record = profile(
                spec, home, ignore_events, self._watched, KnownScores(documents=order.documents)
            )
            return CellDone(record=msgspec.Raw(msgspec.json.encode(record)))

    def _watched(self, step: Step, watch: StepCallback, timeout_s: float) -> Answer:
        """A step of the run, unless nobody waits for it any more."""

        def heard(progress: Progress) -> None:
            self._check_wanted()
            self.pulse = DeviceProgress(
                self.pulse.beats + 1, progress.stage[:80], progress.done, progress.total
            )
            watch(progress)

        self._check_wanted()
        answer = self._run(step, heard, timeout_s)
        self._check_wanted()
        return answer

    def _check_wanted(self) -> None:
        if not self._wanted():
            raise TaskAbandoned("the client or the scheduler went away")

    # --- what it is given ---------------------------------------------------------------------

    def _here(self, order: Order, files: tuple[File, ...], in_use: ExitStack) -> Spec:
        """What is asked, of files that lie here."""
        for asked in order.spec.providers:
            _check_options(asked)
        return msgspec.structs.replace(
            order.spec,
            model=str(self._model(order, files, in_use)),
            corpus=self._text(order, in_use),
            revision=None,
            trust_remote_code=False,
            meter=None,
            meter_offset_s=None,
        )

    def _model(self, order: Order, files: tuple[File, ...], in_use: ExitStack) -> Path:
        """The model's folder, made of blobs when it is first needed, and kept while it is used."""
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
                raise UsageError("an order without a text is one for the bundled corpus")
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
        """Raises GivenUp where what was kept is damaged: the next time, it is sent anew."""
        try:
            self._blobs.link_into(files, folder)
        except DiskFull:
            raise
        except UsageError as error:
            raise TaskAbandoned(str(error)) from error


def _check_options(provider: str) -> None:
    """Raises UsageError where an option of a provider could load a library, or name a file of this machine."""
    for key, value in parse_provider(provider).options.items():
        if _OF_FILES.search(key) or "/" in value or "\\" in value:
            raise UsageError(f"{provider[:80]}: a device takes no files or libraries from an order")
