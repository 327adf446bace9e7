"""What devices are sent: a model as a portable folder of one variant and its fp32 graph, a text, all by their hashes.

Made once for each variant, by this machine, so that devices need neither PyTorch nor transformers.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgecap import __version__
from edgecap.errors import DiskFull, EdgecapError
from edgecap.meters.compression import ScoredDocument
from edgecap.model.weight_files import ModelHashes
from edgecap.names import safe_filename
from edgecap.pipeline.artifacts import can_be_fp32, get_or_build
from edgecap.pipeline.export_folder import contents
from edgecap.pipeline.prepare import prepare
from edgecap.pipeline.run_context import StepRunner, ignore_events
from edgecap.pipeline.worker import in_child
from edgecap.record import Failure, File
from edgecap.spec import DEFAULT_CORPUS, CellSpec, Spec
from edgecap.storage.content import ContentStore
from edgecap.storage.files import Paths, free_bytes, sha256_of_file
from edgecap.sweep.cleanup import SweepCleanup
from edgecap.sweep.fleet.manifest import model_files
from edgecap.sweep.fleet.messages import Order, Part
from edgecap.sweep.plan import PlannedCell
from edgecap.sweep.runner import FULL_BELOW_BYTES, failure_of
from edgecap.text.corpus import Corpus, read_corpus


class BuildFailed(EdgecapError):
    """A variant that could not be made here; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ModelBundle(NamedTuple):
    """A model as it travels: the manifest, where its files lie here by hash, and what a record of it must say.

    `graph` are the files of the variant that is measured.
    """

    manifest: str
    places: dict[str, Path]
    name: str
    revision: str | None
    hashes: ModelHashes
    graph: tuple[File, ...]


class Bundles:
    """The bundles of a sweep, each made when it is first needed; safe to ask from several threads."""

    def __init__(self, home: Paths, shared: Path | None = None, run: StepRunner = in_child) -> None:
        self._home, self._run = home, run
        self._shared = ContentStore(shared) if shared else None
        self._made: dict[tuple[str, ...], ModelBundle | EdgecapError] = {}
        self._texts: dict[tuple[str, int | None, float | None], Corpus] = {}
        self._files: dict[Path, File] = {}
        self._lock, self._making = (
            threading.Lock(),
            threading.Lock(),
        )  # a text is had while a graph is made
        self._in_use = ExitStack()
        self._leavings: SweepCleanup | None = None

    def begin(self, private: Path) -> None:
        """From here on the graphs that are made are written down in a sweep's private folder."""
        self._leavings = SweepCleanup(self._home.cache, private)

    def end(self, keep: bool) -> None:
        """The sweep is done; what was made for it goes, unless it is to be kept."""
        self.close()
        if self._leavings:
            if not keep:
                self._leavings.remove()
            self._leavings.end()

    def close(self) -> None:
        """Graphs of the cache may go again."""
        self._in_use.close()

    def bundle(self, cell: PlannedCell) -> ModelBundle:
        """The model of a cell. Raises UsageError or NotMade, each time anew where it did once, and DiskFull."""
        spec = cell.spec
        key = (spec.model, spec.precisions[0], spec.providers[0], spec.exporter, str(spec.optimize))
        if key not in self._made:
            with self._making:
                if key not in self._made:
                    self._made[key] = self._tried(spec)
        found = self._made[key]
        if isinstance(found, EdgecapError):
            raise found
        return found

    def _tried(self, spec: Spec) -> ModelBundle | EdgecapError:
        """A bundle, or why there is none. Raises DiskFull where there may be room another time."""
        try:
            return self._make(spec)
        except DiskFull as error:
            if free_bytes(self._home.cache) > FULL_BELOW_BYTES:
                return BuildFailed(failure_of("disk", error))
            raise
        except EdgecapError as error:
            return error

    def corpus(self, cell: PlannedCell) -> Corpus:
        """The text of a cell. Raises UsageError."""
        key = (cell.spec.corpus, cell.spec.documents, cell.spec.bias_bits)
        with self._lock:
            if key not in self._texts:
                self._texts[key] = read_corpus(key[0], key[1], self._home.cache, key[2])
        return self._texts[key]

    def order(
        self, cell: PlannedCell, part: int | None, documents: tuple[ScoredDocument, ...]
    ) -> tuple[Order, dict[str, Path]]:
        """What a device is told, and where the files that it may ask for lie. Raises UsageError or NotMade."""
        bundle, corpus, name = self.bundle(cell), self.corpus(cell), Path(cell.spec.model).name
        spec = msgspec.structs.replace(cell.spec, model=name)
        places, text = dict(bundle.places), None
        if spec.corpus != DEFAULT_CORPUS:
            text = self._file(Path(corpus.path))
            places[text.sha256] = Path(corpus.path)
            bias = corpus.bias_bits if spec.bias_bits is None else spec.bias_bits
            spec = msgspec.structs.replace(spec, corpus="", bias_bits=bias)
        order = Order(
            edgecap=__version__,
            spec=spec,
            model_name=name,
            manifest=bundle.manifest,
            text=text,
            text_name=text.path if text else "",
            part=None if part is None else Part(part, cell.shards),
            documents=documents,
        )
        return order, places

    def hand_over(self, places: dict[str, Path]) -> None:
        """Puts files into the shared folder, where there is one."""
        if self._shared:
            for sha256, path in places.items():
                self._shared.add(
                    path, File(path=path.name, bytes=path.stat().st_size, sha256=sha256)
                )

    def _file(self, path: Path) -> File:
        """A text as it travels, hashed once."""
        with self._lock:
            if path not in self._files:
                size, sha256 = path.stat().st_size, sha256_of_file(path)
                name = (
                    safe_filename(path.stem)[:40] + path.suffix
                )  # how a text is read hangs on the suffix
                self._files[path] = File(path=name, bytes=size, sha256=sha256)
        return self._files[path]

    def _make(self, spec: Spec) -> ModelBundle:
        precision, provider = spec.precisions[0], spec.providers[0]
        asked = msgspec.structs.replace(
            spec, providers=("cpu",), energy="auto", threads=None, affinity=(), assume_watts=None
        )
        run = self._leavings.noting(self._run, spec.model) if self._leavings else self._run
        job = prepare(asked, self._home, ignore_events, run).context
        self._in_use.enter_context(job.in_use)
        graphs = {}
        for wanted in dict.fromkeys(("fp32", precision) if can_be_fp32(job) else (precision,)):
            ready = get_or_build(job, CellSpec(wanted, provider))
            if isinstance(ready, Failure):
                raise BuildFailed(ready)
            graphs[wanted] = ready
        found = contents(job, graphs, provider)
        files = model_files(found.manifest.decode())
        places = {file.sha256: found.files[file.path] for file in files}
        located = job.located
        graph = graphs[precision].graph.files
        return ModelBundle(
            found.manifest.decode(), places, located.name, located.revision, job.hashes, graph
        )
