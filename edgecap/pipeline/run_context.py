"""Context of one run: the request, the model, the text, the graphs, and who runs a step.

`prepare` makes it, every later stage reads it. Nothing here starts a process or touches a file.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypeVar

from edgecap.machine.info import default_threads
from edgecap.meters.compression import ScoredDocument
from edgecap.model.locate import LocatedModel
from edgecap.model.weight_files import ModelHashes
from edgecap.pipeline.capabilities import Model
from edgecap.pipeline.worker import Answer, Session, Step, StepCallback, expected
from edgecap.record import Failure, Graph
from edgecap.spec import CellSpec, Spec
from edgecap.storage.files import Paths
from edgecap.text.corpus import Corpus

StepRunner = Callable[[Step, StepCallback, float], Answer]
ProgressCallback = Callable[["ProgressEvent"], None]
AnswerKind = TypeVar("AnswerKind")


class WorkPart(NamedTuple):
    """A part of a run, and its seconds on a usual machine.

    `kind` is "build" or "measure" of a cell; "set up", "rounds" and "sweeps" (of timing) have none.
    """

    cell: CellSpec | None
    kind: str
    seconds: float


class ProgressEvent(NamedTuple):
    """Progress of a stage, of a cell or of all. `work` announces the parts that now begin."""

    cell: CellSpec | None
    stage: str
    done: int = 0
    total: int = 1
    work: tuple[WorkPart, ...] = ()


def ignore_events(event: ProgressEvent) -> None:
    """Ignore progress events."""


class ReadyGraph(NamedTuple):
    """A graph on this disk, ready to run."""

    folder: Path
    graph: Graph

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.folder / self.graph.files[0].path


class KnownScores(NamedTuple):
    """Bits of documents that were scored elsewhere, or before.

    `documents` are the first documents of the corpus, in order; `devices` scored them. `folder`
    keeps the logs of finished documents beyond the run.
    """

    folder: Path | None = None
    documents: tuple[ScoredDocument, ...] = ()
    devices: tuple[str, ...] = ()


NO_SCORES = KnownScores()


class RunContext(NamedTuple):
    """Everything that is known before the first measurement."""

    spec: Spec
    home: Paths
    located: LocatedModel
    model: Model
    hashes: ModelHashes
    corpus: Corpus
    graphs: tuple[ReadyGraph, ...]  # of a folder of ONNX graphs
    notice: ProgressCallback
    run: StepRunner
    built: dict[Path, ReadyGraph | Failure]  # by cache folder: build or check each once a run
    in_use: ExitStack  # holds the marks on cache entries of this run; close it at the end
    scores: KnownScores = NO_SCORES


def run_step(
    context: RunContext, cell: CellSpec | None, step: Step, kind: type[AnswerKind]
) -> AnswerKind | Failure:
    """Run a step in a child and return its answer, or a Failure for any other kind of answer."""
    answer = context.run(
        step,
        lambda p: context.notice(ProgressEvent(cell, p.stage, p.done, p.total)),
        context.spec.timeout_s,
    )
    return expected(answer, kind)


def session_of(context: RunContext, provider: str, ready: ReadyGraph) -> Session:
    """Return the session options of a graph on a provider, as the request sets them."""
    spec = context.spec
    return Session(
        graph=str(ready.path),
        provider=provider,
        threads=threads_of(spec),
        vocabulary=_vocabulary(context),
        head_dim=context.model.head_dim,
        task=context.model.task,
        level=spec.graph_level,
        arena=spec.arena,
        affinity=spec.affinity,
    )


class Amounts(NamedTuple):
    """Positions that a model is run at, and samples of the text.

    `prompt` tokens are read, tokens are decoded at the mean context `context` (0 for an encoder),
    `decoded` of them in a row while memory or joules are read, and `samples` are compared with
    fp32.
    """

    prompt: int
    context: int
    decoded: int
    samples: int


FULL, QUICK = Amounts(512, 512, 32, 4), Amounts(128, 128, 8, 2)


def amounts_of(context: RunContext) -> Amounts:
    """Return how much of a model is run, as far as it has the positions."""
    model, most = context.model, QUICK if context.spec.quick else FULL
    decoded = min(most.context, model.decode_context)
    prompt, steps = min(most.prompt, model.horizon), min(most.decoded, decoded)
    return Amounts(prompt, decoded, steps, most.samples)


def one_precision(context: RunContext) -> str:
    """Return the precision of a command that runs one graph.

    The first that was asked for, else fp32, else the first of the model's folder.
    """
    if context.spec.precisions:
        return context.spec.precisions[0]
    present = [r.graph.precision for r in context.graphs]
    return "fp32" if "fp32" in present or not present else present[0]


def threads_of(spec: Spec) -> int:
    """Return the intra-op threads of every session.

    The default is that of the machine (`default_threads`), or the number of processors in
    `spec.affinity` if fewer.
    """
    return spec.threads or min(default_threads(), len(spec.affinity) or default_threads())


def _vocabulary(context: RunContext) -> int:
    """Return the number of token ids: from the model, else from its tokenizer."""
    known = context.model.sizes.vocabulary
    if known:
        return known
    from edgecap.text.tokenizer import read_tokenizer

    return int(read_tokenizer(context.located.path).size)
