"""Profile a model: from a request to a record, one cell after another. Read `profile` first.

Every step that loads, runs or converts a model runs in a child process; this process sleeps
meanwhile, so that it costs the measurement nothing.
"""

from __future__ import annotations

from pathlib import Path

from edgecap.analysis.law import open_law
from edgecap.pipeline.artifacts import export_first
from edgecap.pipeline.building import mark_in_use
from edgecap.pipeline.cells import measure_cell
from edgecap.pipeline.prepare import prepare
from edgecap.pipeline.record_draft import open_draft
from edgecap.pipeline.run_context import (
    NO_SCORES,
    KnownScores,
    ProgressCallback,
    ProgressEvent,
    StepRunner,
    ignore_events,
)
from edgecap.pipeline.scoring import corpus_of
from edgecap.pipeline.timing import measure_latency, timing_groups
from edgecap.pipeline.work import work_of
from edgecap.pipeline.worker import in_child
from edgecap.record import Profile
from edgecap.spec import Spec
from edgecap.storage.files import Paths, check_writable, resolve_paths


def profile(
    spec: Spec | None = None,
    home: Paths | None = None,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
    scores: KnownScores = NO_SCORES,
) -> Profile:
    """Measure a model as `spec` asks, and return the record, which is also under `home.profiles`.

    Documents in `scores` are not scored again. Raises UsageError before anything is measured if the
    request cannot be met, and Interrupted on Ctrl-C, after the finished cells were written.
    """
    spec, home = spec or Spec(), home or resolve_paths()
    corpus = corpus_of(spec, home)
    if spec.law:
        open_law(Path(spec.law), corpus.sha256)  # refuse a bad card before anything is made
    prepared = prepare(spec, home, notice, run, corpus, scores)
    context, _, cells = prepared
    with context.in_use:
        mark_in_use(context, None, Path(corpus.path))
        check_writable(home.profiles, "give another folder with --output")
        words = f"to measure: {', '.join(map(str, cells))}"
        notice(ProgressEvent(None, words, work=work_of(context, cells, len(cells))))
        export_first(context, cells)
        with open_draft(prepared) as draft:
            for cell in cells:
                draft.add(measure_cell(context, draft.record, cell))
            for group in timing_groups(context, draft.record):
                draft.complete(measure_latency(context, draft.record, group))
    return draft.record
