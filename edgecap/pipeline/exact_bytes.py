"""`edgecap tokenizer --bytes exact-N`: finds the model, and has a child sum over the tokenizations of short texts."""

from __future__ import annotations

from edgecap.errors import EdgecapError, UsageError
from edgecap.meters.exact.texts import ExactBytesTotals, summed
from edgecap.pipeline.artifacts import get_or_build, tokenizer_folder
from edgecap.pipeline.prepare import (
    ProgressCallback,
    ProgressEvent,
    StepRunner,
    ignore_events,
    prepare,
    session_of,
)
from edgecap.pipeline.worker import ExactBytes, ExactBytesResult, in_child
from edgecap.record import Failure
from edgecap.spec import CellSpec, Spec
from edgecap.storage.files import Paths
from edgecap.text.corpus import read_corpus

MOST_BYTES = 64


def parse_bytes(text: str) -> int:
    """`"exact-24"` -> 24. Raises UsageError."""
    form, _, number = text.partition("-")
    if form != "exact" or not number.isdecimal() or not 1 <= int(number) <= MOST_BYTES:
        raise UsageError(
            f"--bytes {text}: write exact-N with N bytes from 1 to {MOST_BYTES}, as exact-24"
        )
    return int(number)


def exact_bytes(
    spec: Spec,
    most_bytes: int,
    home: Paths,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
) -> ExactBytesTotals:
    """The exact code length of the first bytes of each document, under `spec.precisions[0]` or fp32.

    Raises UsageError where the request cannot be met, EdgecapError where the model fails.
    """
    corpus = read_corpus(spec.corpus, spec.documents, home.cache)
    job = prepare(spec, home, notice, run, corpus).job
    if job.model.encodes:
        raise UsageError(
            f"{spec.model} is an encoder: it does not predict the next token, so that text has no probability"
        )
    if job.model.sizes.positions and job.model.sizes.positions <= most_bytes:
        raise UsageError(
            f"--bytes exact-{most_bytes} is longer than the model's {job.model.sizes.positions} positions"
        )
    provider, precision = (
        spec.providers[0],
        _precision(spec, [r.graph.precision for r in job.found]),
    )
    with job.in_use:
        ready = get_or_build(job, CellSpec(precision, provider))
        if isinstance(ready, Failure):
            raise UsageError(f"cannot make {precision}: {ready.message}")
        folder = str(tokenizer_folder(job, provider))
        step = ExactBytes(session_of(job, provider, ready), folder, corpus, most_bytes)
        answer = run(
            step, lambda p: notice(ProgressEvent(None, p.stage, p.done, p.total)), spec.timeout_s
        )
    if not isinstance(answer, ExactBytesResult):
        reason = (
            answer.message
            if isinstance(answer, Failure)
            else f"the child answered with {type(answer).__name__}"
        )
        raise EdgecapError(f"the texts could not be scored: {reason}")
    if not answer.texts:
        raise UsageError(
            f"--bytes exact-{most_bytes}: no document begins with a whole character of so few bytes"
        )
    return summed(
        answer.texts, job.located.name, precision, provider, corpus.name, most_bytes, corpus.count
    )


def _precision(spec: Spec, had: list[str]) -> str:
    return spec.precisions[0] if spec.precisions else "fp32" if "fp32" in had or not had else had[0]
