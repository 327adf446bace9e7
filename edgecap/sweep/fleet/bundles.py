"""Bundles for devices: a variant with its fp32 graph as a portable folder, and a text, by hash.

The client builds each variant once, so that devices need neither PyTorch nor transformers.
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
from edgecap.model.onnx_folder import unmeasured_graphs
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
    """A variant could not be built; `failure` has the reason."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ModelBundle(NamedTuple):
    """Model for a device: its manifest, its local files by hash, and what its record must contain.

    `graph` lists the files of the measured variant, `others` the graphs that were not chosen.
    """

    manifest: str
    places: dict[str, Path]
    name: str
    revision: str | None
    others: tuple[str, ...]
    hashes: ModelHashes
    graph: tuple[File, ...]


class Bundles:
    """Bundles of a sweep, each built when it is first needed; thread-safe."""

    def __init__(self, home: Paths, shared: Path | None = None, run: StepRunner = in_child) -> None:
        self._home, self._run = home, run
        self._shared = ContentStore(shared) if shared else None
        self._bundles: dict[tuple[str, ...], ModelBundle | EdgecapError] = {}
        self._texts: dict[tuple[str, int | None, float | None], Corpus] = {}
        self._files: dict[Path, File] = {}
        # Two locks, so that a text can be read while a graph is built.
        self._lock, self._build_lock = threading.Lock(), threading.Lock()
        self._in_use = ExitStack()
        self._cleanup: SweepCleanup | None = None

    def begin(self, private: Path) -> None:
        """Log the graphs that are built from now on in a sweep's private folder."""
        self._cleanup = SweepCleanup(self._home.cache, private)

    def end(self, keep: bool) -> None:
        """End the sweep; remove the graphs that it built unless `keep`."""
        self.close()
        if self._cleanup:
            if not keep:
                self._cleanup.remove()
            self._cleanup.end()

    def close(self) -> None:
        """Release the graphs of the cache."""
        self._in_use.close()

    def bundle(self, cell: PlannedCell) -> ModelBundle:
        """Return the model of a cell. Raise UsageError, BuildFailed or DiskFull."""
        spec = cell.spec
        key = (spec.model, spec.precisions[0], spec.providers[0], spec.exporter, str(spec.optimize))
        if key not in self._bundles:
            with self._build_lock:
                if key not in self._bundles:
                    self._bundles[key] = self._try_build(spec)
        bundle = self._bundles[key]
        if isinstance(bundle, EdgecapError):
            raise bundle
        return bundle

    def _try_build(self, spec: Spec) -> ModelBundle | EdgecapError:
        """Build a bundle, or return the error. Raise DiskFull if space may become free."""
        try:
            return self._build(spec)
        except DiskFull as error:
            if free_bytes(self._home.cache) > FULL_BELOW_BYTES:
                return BuildFailed(failure_of("disk", error))
            raise
        except EdgecapError as error:
            return error

    def corpus(self, cell: PlannedCell) -> Corpus:
        """Return the text of a cell. Raise UsageError."""
        key = (cell.spec.corpus, cell.spec.documents, cell.spec.bias_bits)
        with self._lock:
            if key not in self._texts:
                self._texts[key] = read_corpus(key[0], key[1], self._home.cache, key[2])
        return self._texts[key]

    def order(
        self, cell: PlannedCell, part: int | None, documents: tuple[ScoredDocument, ...]
    ) -> tuple[Order, dict[str, Path]]:
        """Return the order for a device, and its files by hash. Raise UsageError or BuildFailed."""
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
        """Copy files to the shared folder, if there is one."""
        if self._shared:
            for sha256, path in places.items():
                self._shared.add(
                    path, File(path=path.name, bytes=path.stat().st_size, sha256=sha256)
                )

    def _file(self, path: Path) -> File:
        """Return a text as a file for a device, hashed once."""
        with self._lock:
            if path not in self._files:
                size, sha256 = path.stat().st_size, sha256_of_file(path)
                name = (
                    safe_filename(path.stem)[:40] + path.suffix
                )  # the suffix selects the reader of a text
                self._files[path] = File(path=name, bytes=size, sha256=sha256)
        return self._files[path]

    def _build(self, spec: Spec) -> ModelBundle:
        precision, provider = spec.precisions[0], spec.providers[0]
        build_spec = msgspec.structs.replace(
            spec, providers=("cpu",), energy="auto", threads=None, affinity=(), assume_watts=None
        )
        run = self._cleanup.recording(self._run, spec.model) if self._cleanup else self._run
        context = prepare(build_spec, self._home, ignore_events, run).context
        self._in_use.enter_context(context.in_use)
        graphs = {}
        for name in dict.fromkeys(("fp32", precision) if can_be_fp32(context) else (precision,)):
            ready = get_or_build(context, CellSpec(name, provider))
            if isinstance(ready, Failure):
                raise BuildFailed(ready)
            graphs[name] = ready
        export = contents(context, graphs, provider)
        files = model_files(export.manifest.decode())
        places = {file.sha256: export.files[file.path] for file in files}
        located = context.located
        graph = graphs[precision].graph.files
        others = unmeasured_graphs(located.path, [r.path for r in context.graphs])
        return ModelBundle(
            export.manifest.decode(),
            places,
            located.name,
            located.revision,
            others,
            context.hashes,
            graph,
        )
