"""Score a corpus: the plan of a graph, the log of finished documents, and one part alone."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgecap import __version__
from edgecap.errors import UsageError
from edgecap.meters.compression import ScoredDocument
from edgecap.meters.sharding import DocumentShare
from edgecap.pipeline.artifacts import get_or_build, tokenizer_folder
from edgecap.pipeline.prepare import prepare
from edgecap.pipeline.run_context import (
    ProgressCallback,
    ReadyGraph,
    RunContext,
    StepRunner,
    ignore_events,
    run_step,
    session_of,
)
from edgecap.pipeline.worker import ScoredPart, ScorePart, ScoringPlan, in_child
from edgecap.record import Failure, Machine
from edgecap.spec import CellSpec, Spec
from edgecap.storage.files import Paths, sha256_of
from edgecap.storage.jsonl_log import JsonlLog
from edgecap.text.corpus import Corpus, excerpt, read_corpus
from edgecap.units import counted


def score_part(
    spec: Spec,
    home: Paths,
    part: int,
    parts: int,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
) -> tuple[DocumentShare, ...] | Failure:
    """Score part `part` of `parts` of the corpus with the one graph that `spec` names.

    The shares of all parts add up to what `profile` scores. Raises UsageError if the request cannot
    be met.
    """
    corpus = corpus_of(spec, home)
    context, _, (cell,) = prepare(spec, home, notice, run, corpus)
    if context.model.encodes:
        raise UsageError(
            f"{spec.model} is an encoder, which predicts no next token: there are no bits to score"
        )
    with context.in_use:
        graph = get_or_build(context, cell)
        if isinstance(graph, Failure):
            return graph
        step = ScorePart(plan=scoring_plan(context, cell, graph), part=part, parts=parts)
        answer = run_step(context, cell, step, ScoredPart)
    return answer if isinstance(answer, Failure) else answer.shares


def corpus_of(spec: Spec, home: Paths) -> Corpus:
    """Return the text that a run scores."""
    corpus = read_corpus(spec.corpus, spec.documents, home.cache, spec.bias_bits)
    return excerpt(corpus) if spec.quick else corpus


def scoring_plan(context: RunContext, cell: CellSpec, graph: ReadyGraph) -> ScoringPlan:
    """Return how a graph scores the corpus of a run."""
    spec = context.spec
    return ScoringPlan(
        session=session_of(context, cell.provider, graph),
        tokenizer=str(tokenizer_folder(context, cell.provider)),
        corpus=context.corpus,
        protocol=spec.protocol,
        context=spec.context or context.model.horizon,
        stride=spec.stride,
    )


def document_log(
    context: RunContext, machine: Machine, plan: ScoringPlan, graph: ReadyGraph
) -> Path:
    """Return the path of the log of finished documents, by all that their bits depend on.

    A run that was cut off goes on from it.
    """
    key = (
        msgspec.structs.replace(plan, corpus=msgspec.structs.replace(plan.corpus, card=None)),
        [(f.path, f.sha256) for f in graph.graph.files],
        (context.corpus.sha256, context.hashes.tokenizer, context.located.config),
        (machine.processor, sorted(machine.versions.items()), __version__),
    )
    folder = context.scores.folder or context.home.cache / "journals"
    return folder / f"{sha256_of(msgspec.json.encode(key, order='sorted'))[:32]}.jsonl"


def add_known_documents(log: Path, documents: tuple[ScoredDocument, ...], count: int) -> None:
    """Append documents that were scored elsewhere to a log, after those that it holds.

    A log of more than the `count` documents of the text is of another text, and deleted. Raises
    UsageError if `documents` are more.
    """
    if len(documents) > count:
        raise UsageError(
            f"{counted(len(documents), 'document')} were scored elsewhere, of a text of {count}: "
            "score that text again"
        )
    finished = JsonlLog(log, ScoredDocument)
    if len(finished.finished) > count:
        log.unlink()
        finished = JsonlLog(log, ScoredDocument)
    for document in documents[len(finished.finished) :]:
        finished.add(document)
