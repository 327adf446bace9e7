"""Compute exact code lengths of short texts: the sum over all their tokenizations.

Serves `edgecap tokenizer --bytes exact-N`.
"""

from __future__ import annotations

from edgecap.errors import EdgecapError, UsageError
from edgecap.meters.exact.texts import ExactBytesTotals, sum_texts
from edgecap.pipeline.artifacts import build_or_refuse, tokenizer_folder
from edgecap.pipeline.prepare import prepare
from edgecap.pipeline.run_context import (
    ProgressCallback,
    StepRunner,
    ignore_events,
    one_precision,
    run_step,
    session_of,
)
from edgecap.pipeline.worker import ExactBytes, ExactBytesResult, in_child
from edgecap.record import Failure
from edgecap.spec import CellSpec, Spec
from edgecap.storage.files import Paths
from edgecap.text.corpus import read_corpus

MOST_BYTES = 64


def parse_bytes(text: str) -> int:
    """Read the number of bytes: `"exact-24"` -> 24. Raise UsageError."""
    form, _, number = text.partition("-")
    if form != "exact" or not number.isdecimal() or not 1 <= int(number) <= MOST_BYTES:
        raise UsageError(f"{text}: write exact-N with N bytes from 1 to {MOST_BYTES}, as exact-24")
    return int(number)


def exact_bytes(
    spec: Spec,
    most_bytes: int,
    home: Paths,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
) -> ExactBytesTotals:
    """Compute the exact code length of the first `most_bytes` bytes of each document, in bits.

    The graph is `spec.precisions[0]`, or fp32. Raises UsageError if the request cannot be met,
    EdgecapError if the model fails.
    """
    corpus = read_corpus(spec.corpus, spec.documents, home.cache)
    context = prepare(spec, home, notice, run, corpus).context
    if context.model.encodes:
        raise UsageError(
            f"{spec.model} is an encoder: it does not predict the next token, "
            "so that text has no probability"
        )
    positions = context.model.sizes.positions
    if positions and positions <= most_bytes:
        raise UsageError(
            f"--bytes exact-{most_bytes} is longer than the model's {positions} positions"
        )
    provider, precision = spec.providers[0], one_precision(context)
    with context.in_use:
        graph = build_or_refuse(context, CellSpec(precision, provider))
        step = ExactBytes(
            session=session_of(context, provider, graph),
            tokenizer=str(tokenizer_folder(context, provider)),
            corpus=corpus,
            most_bytes=most_bytes,
        )
        answer = run_step(context, None, step, ExactBytesResult)
    if isinstance(answer, Failure):
        raise EdgecapError(f"the texts could not be scored: {answer.message}")
    if not answer.texts:
        raise UsageError(
            f"--bytes exact-{most_bytes}: no document begins with a whole character of so few bytes"
        )
    name = context.located.name
    return sum_texts(answer.texts, name, precision, provider, corpus.name, most_bytes, corpus.count)
