"""The record of a run while it grows: started, written after each change, completed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edgecap import __version__
from edgecap.analysis.law import with_law
from edgecap.errors import EdgecapError, Interrupted
from edgecap.machine.info import read_machine
from edgecap.model.flops import count_flops
from edgecap.model.onnx_folder import unmeasured_graphs
from edgecap.model.weight_files import count_parameters
from edgecap.pipeline.building import build_lock
from edgecap.pipeline.judging import PENDING, judge
from edgecap.pipeline.peaks import peaks_of
from edgecap.pipeline.prepare import Prepared
from edgecap.pipeline.run_context import (
    ProgressEvent,
    RunContext,
    amounts_of,
    run_step,
    threads_of,
)
from edgecap.pipeline.worker import CompressBaselines, CompressedBaselines
from edgecap.provider_options import any_on_cuda
from edgecap.record import (
    SCHEMA,
    Absent,
    Baseline,
    Cell,
    Failure,
    Flops,
    Peaks,
    Profile,
    Source,
)
from edgecap.storage.files import utc_now
from edgecap.storage.records import record_path, save
from edgecap.text import compressors
from edgecap.text.corpus import corpus_info

Judge = Callable[[Profile, Cell], Cell]


class RecordDraft:
    """A record that is saved after each change, so that no finished cell is lost."""

    def __init__(self, record: Profile, path: Path, judge: Judge) -> None:
        self.record, self._path, self._judge = record, path, judge

    def add(self, cell: Cell) -> None:
        """Append a cell whose latency is still to come, or one that failed."""
        self._save(cells=(*self.record.cells, cell))

    def complete(self, cells: list[Cell]) -> None:
        """Judge cells that are measured in full and put them in their places."""
        done = {(c.precision, c.provider): self._judge(self.record, c) for c in cells}
        self._save(cells=tuple(done.get((c.precision, c.provider), c) for c in self.record.cells))

    def judge_pending(self) -> None:
        """Judge cells that will get no latency, since the run ends early."""
        pending = [c for c in self.record.cells if c.score == PENDING]
        if pending:
            self.complete(pending)

    def finish(self) -> None:
        """Mark the record as complete."""
        self._save(complete=True)

    def describe(self, cells_in_run: int) -> str:
        """Return how much of the run is on the disk, for a message."""
        if not self.record.cells:
            return "no cell was finished"
        return f"{len(self.record.cells)} of {cells_in_run} cells are in {self._path}"

    def _save(self, **changes: object) -> None:
        self.record = msgspec.structs.replace(self.record, **changes)
        save(self.record, self._path)


@contextmanager
def open_draft(prepared: Prepared) -> Iterator[RecordDraft]:
    """Start the record of a run; at the end mark it complete, or say what was kept.

    Raises Interrupted on Ctrl-C, and an EdgecapError again with the path of the record.
    """
    context, _, cells = prepared
    record = _start_record(prepared)
    path = record_path(context.home.profiles, record)
    draft = RecordDraft(
        record, path, lambda record, cell: judge(record, cell, context.corpus.card, len(cells))
    )
    try:
        yield draft
    except KeyboardInterrupt:
        draft.judge_pending()
        raise Interrupted(f"interrupted: {draft.describe(len(cells))}") from None
    except EdgecapError as error:
        if not draft.record.cells:
            raise
        draft.judge_pending()
        raise type(error)(f"{error}; {draft.describe(len(cells))}") from error
    draft.finish()


def _start_record(prepared: Prepared) -> Profile:
    context, providers, _ = prepared
    spec, located, model = context.spec, context.located, context.model
    parameters = count_parameters(located.path, located.kind)
    record = Profile(
        schema=SCHEMA,
        edgecap=__version__,
        created_utc=utc_now("microseconds"),
        complete=False,
        spec=spec,
        machine=read_machine(providers, any_on_cuda(spec.providers)),
        source=Source(
            name=located.name,
            kind=located.kind,
            revision=located.revision,
            parameters=Absent(reason="a graph was measured, and no safetensors to count")
            if parameters is None
            else parameters,
            weights_sha256=context.hashes.weights,
            tokenizer_sha256=context.hashes.tokenizer,
            architecture=model.architecture,
            task=model.task,
            other_graphs=unmeasured_graphs(located.path, [r.path for r in context.graphs]),
        ),
        corpus=corpus_info(context.corpus, spec.bias_bits, _baselines(context)),
        flops=_flops(context),
        peaks=_peaks(context),
    )
    return with_law(record, Path(spec.law)) if spec.law else record


def _baselines(context: RunContext) -> dict[str, Baseline]:
    """Return the sizes of gzip, xz and zstd on the corpus, measured once and then cached."""
    if context.model.encodes:
        return {}
    corpus = context.corpus
    path = compressors.baselines_path(context.home.cache, corpus.sha256, corpus.bytes)
    with build_lock(context, None, path, "compresses the corpus"):
        return compressors.read_baselines(path) or _compress_baselines(context, path)


def _compress_baselines(context: RunContext, path: Path) -> dict[str, Baseline]:
    answer = run_step(context, None, CompressBaselines(corpus=context.corpus), CompressedBaselines)
    if isinstance(answer, Failure):
        context.notice(ProgressEvent(None, f"without gzip, xz and zstd: {answer.message}"))
        return {}
    compressors.write_baselines(path, answer.baselines)
    return answer.baselines


def _peaks(context: RunContext) -> dict[str, Peaks | Absent]:
    """Return the peaks of the machine through each provider."""
    spec, threads = context.spec, threads_of(context.spec)
    return {
        provider: peaks_of(
            context.home,
            provider,
            threads,
            context.notice,
            context.run,
            spec.calibrate,
            spec.affinity,
        )
        for provider in spec.providers
    }


def _flops(context: RunContext) -> Flops | Absent:
    """Count FLOPs of a token over the horizon.

    Under the paper's protocol: over the window, and as the published scripts count.
    """
    spec, architecture, horizon = context.spec, context.model.architecture, context.model.horizon
    if isinstance(architecture, Absent):
        return architecture
    prompt, paper = amounts_of(context).prompt, spec.protocol == "paper"
    steps = (spec.context or horizon) if paper else horizon
    return count_flops(architecture, steps, prompt, own_position=not paper)
