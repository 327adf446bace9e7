"""What is known before the first measurement: the model, its graphs, the runtime, and whether it can be done.

Everything that can be refused is refused here. Making graphs is left to `making`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from edgecap.errors import UsageError
from edgecap.graph import export, finish
from edgecap.machine.energy import meter
from edgecap.machine.info import check_processors, check_threads, default_threads
from edgecap.meters.compression import ScoredDocument
from edgecap.model import source
from edgecap.pipeline.capabilities import Model, check_request, read_model
from edgecap.pipeline.worker import (
    Answer,
    Inspect,
    Inspected,
    Progress,
    Session,
    Step,
    StepCallback,
)
from edgecap.provider_options import FUSED, base, remedy
from edgecap.record import Absent, Failure, File, Graph
from edgecap.spec import DEFAULT_PRECISIONS, PRECISIONS, CellSpec, Spec, cells
from edgecap.storage import files as store
from edgecap.storage.files import Paths
from edgecap.text.corpus import Corpus

METER_AGE_S = 30.0

StepRunner = Callable[[Step, StepCallback, float], Answer]
ProgressCallback = Callable[["ProgressEvent"], None]


class ProgressEvent(NamedTuple):
    """What is happening: a cell, its stage, and how far the stage is; without a cell, `total` cells begin."""

    cell: CellSpec | None
    stage: str
    done: int = 0
    total: int = 1


class ReadyGraph(NamedTuple):
    """A graph on this disk, ready to run."""

    folder: Path
    graph: Graph

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.folder / self.graph.files[0].path


class KnownScores(NamedTuple):
    """Bits of documents from elsewhere: a `folder` of journals that outlives the run, and `documents` from the first on.

    `devices` are those that scored these documents.
    """

    folder: Path | None = None
    documents: tuple[ScoredDocument, ...] = ()
    devices: tuple[str, ...] = ()


NO_SCORES = KnownScores()


class RunContext(NamedTuple):
    """All that is known before the first measurement."""

    spec: Spec
    home: Paths
    located: source.Located
    model: Model
    hashes: source.Hashes
    corpus: Corpus
    found: tuple[ReadyGraph, ...]
    notice: ProgressCallback
    run: StepRunner
    made: dict[
        Path, ReadyGraph | Failure
    ]  # checked or tried once a run, not again for the next cell
    in_use: ExitStack  # what the cache keeps and this run uses is marked until it is closed
    scores: KnownScores = NO_SCORES


def export_recipe(spec: Spec, model: Model, provider: str) -> str:
    """Who makes the fp32 graph, with versions, and what is done to it. Raises UsageError where that is not installed."""
    return f"{export.recipe(spec.exporter, model.exported_as)}; {finish.RECIPES[finish_of(spec, model, provider)]}"


def finish_of(spec: Spec, model: Model, provider: str) -> str:
    """How an export is finished for a provider; the genai builder's graphs come fused, an encoder has nothing to fuse."""
    if not spec.optimize or spec.exporter == "genai" or model.encodes:
        return finish.PLAIN
    return finish.FUSED if base(provider) in FUSED else finish.BARE


def ignore_events(event: ProgressEvent) -> None:
    """Tells nobody."""


class Prepared(NamedTuple):
    """A job, the providers that the runtime offers, and the cells that were asked for."""

    job: RunContext
    providers: tuple[str, ...]
    wanted: list[CellSpec]


NO_TEXT = Corpus(name="", path="", sha256="", domains={})


def prepare(
    spec: Spec, home: Paths, notice: ProgressCallback, run: StepRunner, corpus: Corpus = NO_TEXT
) -> Prepared:
    """Finds the model and looks at it and at the runtime; work that only needs the graphs has no corpus.

    Raises UsageError where the request cannot be met.
    """
    if spec.meter:
        _check_meter(Path(spec.meter), spec.meter_offset_s)
    check_processors(spec.affinity)
    check_threads(spec.threads, spec.affinity)
    located = source.locate(spec.model, spec.revision)
    check_request(spec, read_model(located))
    looked, found = _look(located, run, spec)
    model = read_model(located, looked.graphs)
    check_request(spec, model)
    wanted = _wanted(spec, located, looked, found)
    if located.kind != "onnx":
        export.recipe(spec.exporter, model.exported_as)
    hashes = source.hashes(located, [f for ready in found for f in ready.graph.files])
    job = RunContext(
        spec, home, located, model, hashes, corpus, found, notice, run, {}, ExitStack()
    )
    return Prepared(job, looked.providers, wanted)


def _check_meter(path: Path, offset_s: float | None) -> None:
    """Raises UsageError where the file is none of a meter, or nothing was written to it lately."""
    try:
        rows = meter.parse(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"--meter {path}: {error.strerror}; start the meter's logging first"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"--meter {path} is not a text file") from None
    except ValueError as error:
        raise UsageError(f"--meter {path}: {error}") from None
    if len(rows.times) < 2:
        raise UsageError(f"--meter {path} has no two rows yet; start the meter's logging first")
    age, period = time.time() + (offset_s or 0.0) - rows.times[-1], rows.times[-1] - rows.times[-2]
    if abs(age) > METER_AGE_S + 3 * period + (meter.SEARCH_S if offset_s is None else 0.0):
        raise UsageError(
            f"--meter {path}: its last row is {abs(age):.0f} s {'old' if age > 0 else 'ahead of this clock'}; "
            "let it be written while edgecap runs, or give --meter-offset"
        )


# --- how it is opened -------------------------------------------------------------------------


def vocabulary_of(job: RunContext) -> int:
    """The ids that the model tells apart."""
    known = job.model.sizes.vocabulary
    if known:
        return known
    from edgecap.text.tokenizer import read_tokenizer

    return int(read_tokenizer(job.located.path).size)


def session_of(job: RunContext, provider: str, ready: ReadyGraph) -> Session:
    """A graph on a provider, opened as the run was asked to."""
    spec = job.spec
    return Session(
        graph=str(ready.path),
        provider=provider,
        threads=threads_of(spec),
        vocabulary=vocabulary_of(job),
        head_dim=job.model.head_dim,
        task=job.model.task,
        level=spec.graph_level,
        arena=spec.arena,
        affinity=spec.affinity,
    )


def threads_of(spec: Spec) -> int:
    """The intra-op threads of every session: as asked for, else the physical cores, or the processors it is kept to."""
    return spec.threads or min(default_threads(), len(spec.affinity) or default_threads())


# --- what is there to run it ------------------------------------------------------------------


def _look(
    located: source.Located, run: StepRunner, spec: Spec
) -> tuple[Inspected, tuple[ReadyGraph, ...]]:
    """The providers of the runtime, and the graphs that an ONNX folder holds."""
    files = source.onnx_files(located.path) if located.kind == "onnx" else []
    graphs = tuple(str(f.path) for f in files)
    asked = Inspect(
        graphs=graphs, providers=spec.providers, energy=spec.energy == "require", meter=spec.meter
    )
    looked = run(asked, _unwatched, spec.timeout_s)
    if not isinstance(looked, Inspected):
        reason = f": {looked.message}" if isinstance(looked, Failure) else ""
        raise UsageError(
            f"ONNX Runtime cannot be used here with {', '.join(spec.providers)}{reason}"
        )
    ready = []
    for file, facts in zip(files, looked.graphs, strict=True):
        listed = file.files or store.list_files(file.path.parent, list(facts.files))
        graph = describe_graph(
            file.precision or facts.precision, file.exporter, file.recipe, listed
        )
        ready.append(ReadyGraph(file.path.parent, graph))
    return looked, tuple(ready)


def _unwatched(progress: Progress) -> None:
    return None


def describe_graph(
    precision: str,
    exporter: str,
    recipe: str,
    files: tuple[File, ...],
    unfused: tuple[str, ...] = (),
) -> Graph:
    """A graph as the record tells it, before anything was measured."""
    return Graph(
        precision=precision,
        exporter=exporter,
        recipe=recipe,
        bytes=sum(f.bytes for f in files),
        files=files,
        divergence_bits=Absent(reason="not measured"),
        unfused=unfused,
    )


def _wanted(
    spec: Spec, located: source.Located, looked: Inspected, found: tuple[ReadyGraph, ...]
) -> list[CellSpec]:
    """The cells, once precisions and providers are known to be had."""
    for provider in spec.providers:
        if base(provider) not in looked.providers or provider in looked.refused:
            reason = looked.refused.get(provider) or looked.refused.get(base(provider), "")
            why = "; ".join(
                filter(
                    None,
                    (
                        reason,
                        remedy(base(provider), reason, there=base(provider) in looked.providers),
                    ),
                )
            )
            raise UsageError(
                f"provider '{provider}' is not available in the installed ONNX Runtime{f' ({why})' if why else ''}; "
                f"others in it: {', '.join(looked.providers)}"
            )
        if provider in looked.no_energy:
            raise UsageError(f"--energy require: {looked.no_energy[provider]}")
    had = tuple(r.graph.precision for r in found)
    if located.kind != "onnx":
        return cells(spec.precisions or DEFAULT_PRECISIONS, spec.providers)
    possible = PRECISIONS if "fp32" in had else had
    for precision in spec.precisions:
        if precision not in (*had, *possible):
            raise UsageError(
                f"{located.path} holds {', '.join(had)}; {precision} cannot be made from that, it needs an fp32 graph"
            )
    return cells(spec.precisions or had, spec.providers)
