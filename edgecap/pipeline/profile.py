"""The main job: from a spec to a record, one cell after another. `profile` is the table of contents.

Every step that loads, runs or converts a model is done by `run`, in a child process; this process
sleeps meanwhile. The record is written after every cell, so that nothing finished is lost.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgecap import __version__
from edgecap.analysis.advisor import advise
from edgecap.analysis.roofline import roofline
from edgecap.analysis.score import NOT_DECODED, score
from edgecap.analysis.warnings import cautions
from edgecap.analysis.warnings.quality import foreign_bias
from edgecap.analysis.warnings.timing import above_peak
from edgecap.errors import EdgecapError, Interrupted, UsageError
from edgecap.machine.info import available_memory, read_machine
from edgecap.meters.compression import ScoredDocument
from edgecap.meters.sharding import DocumentShare
from edgecap.model import source
from edgecap.model.flops import count_flops
from edgecap.pipeline.artifacts import (
    build_lock,
    can_be_fp32,
    get_or_build,
    mark_in_use,
    run_step,
    tokenizer_folder,
)
from edgecap.pipeline.capabilities import Model
from edgecap.pipeline.peaks import peaks_of
from edgecap.pipeline.prepare import (
    NO_SCORES,
    KnownScores,
    Prepared,
    ProgressCallback,
    ProgressEvent,
    ReadyGraph,
    RunContext,
    StepRunner,
    ignore_events,
    prepare,
    session_of,
    threads_of,
)
from edgecap.pipeline.worker import (
    CompressBaselines,
    CompressedBaselines,
    MeasureCell,
    MeasuredCell,
    MeasuredLatency,
    MeasureLatency,
    MeasureMemory,
    ScoredPart,
    ScorePart,
    expected,
    in_child,
)
from edgecap.provider_options import parse_provider
from edgecap.record import (
    LEFT_OUT,
    SCHEMA,
    Absent,
    Architecture,
    Baseline,
    Bound,
    Cell,
    Compression,
    Failure,
    Flops,
    Graph,
    Latency,
    Measurement,
    Memory,
    Peaks,
    Profile,
    Roofline,
    Source,
)
from edgecap.spec import SWEEP_STEPS, CellSpec, Spec
from edgecap.storage import files
from edgecap.storage.files import Paths
from edgecap.storage.jsonl_log import JsonlLog
from edgecap.text import compressors
from edgecap.text.corpus import describe, read_corpus

PREFILL_TOKENS = 512
LAYERS = 24  # of the empty graph, where the model's are not known
SWEEP = (128, 512, 1024)  # contexts that are timed beside
DECODE_STEPS = 32
MEMORY_OF_GRAPH, MEMORY_OF_SESSION, FREE_SHARE = (
    1.5,
    150_000_000,
    0.6,
)  # what sessions side by side may need


def profile(
    spec: Spec | None = None,
    home: Paths | None = None,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
    scores: KnownScores = NO_SCORES,
) -> Profile:
    """Measures a model as `spec` asks and returns the record, which is also written under `home.profiles`.

    Documents that `scores` holds are not scored again. Raises UsageError before anything is measured where the request cannot be met, and Interrupted,
    after the finished cells were written, on Ctrl-C.
    """
    spec, home = spec or Spec(), home or files.home()
    corpus = read_corpus(spec.corpus, spec.documents, home.cache, spec.bias_bits)
    notice(ProgressEvent(None, "looking at the model and the runtime"))
    ready = prepare(spec, home, notice, run, corpus)
    ready = ready._replace(job=ready.job._replace(scores=scores))
    job, wanted = ready.job, ready.wanted
    mark_in_use(job, None, Path(corpus.path))
    files.check_writable(home.profiles)
    record = _new_record(ready)
    path = files.record_path(job.home.profiles, record)
    words = f"{len(wanted)} cells to measure" if len(wanted) > 1 else "measuring"
    notice(ProgressEvent(None, words, total=len(wanted)))
    together = len(wanted) > 1 and all(
        parse_provider(c.provider).place == ("cpu", 0) for c in wanted
    )
    graphs: dict[CellSpec, ReadyGraph] = {}
    try:
        for cell_spec in wanted:
            made = _cell(job, record, cell_spec, len(wanted))
            record = _with_cell(record, made)
            files.save(record, path)
            graph = get_or_build(job, cell_spec) if isinstance(made.outcome, Measurement) else None
            if isinstance(graph, ReadyGraph):
                graphs[cell_spec] = graph
        for group in _groups(graphs, together):
            record = _timed(job, record, group, len(wanted))
            files.save(record, path)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted: {_what_is_kept(record, wanted, path)}") from None
    except EdgecapError as error:
        if not record.cells:
            raise
        raise type(error)(f"{error}; {_what_is_kept(record, wanted, path)}") from error
    finally:
        job.in_use.close()
    record = msgspec.structs.replace(record, complete=True)
    files.save(record, path)
    return record


def _what_is_kept(record: Profile, wanted: list[CellSpec], path: Path) -> str:
    return (
        f"{len(record.cells)} of {len(wanted)} cells are in {path}"
        if record.cells
        else "no cell was finished"
    )


# --- before the first measurement -------------------------------------------------------------


def _baselines(job: RunContext) -> dict[str, Baseline]:
    """What general compressors make of the corpus, so that a reader sees what the model buys: found out once."""
    path = compressors.kept_at(job.home.cache, job.corpus.sha256, job.corpus.bytes)
    with build_lock(job, None, path, "compresses the corpus"):
        return compressors.kept(path) or _squeezed(job, path)


def _squeezed(job: RunContext, path: Path) -> dict[str, Baseline]:
    stage = CompressBaselines(corpus=job.corpus)
    answer = expected(
        job.run(stage, lambda p: job.notice(ProgressEvent(None, p.stage)), job.spec.timeout_s),
        CompressedBaselines,
    )
    if isinstance(answer, CompressedBaselines):
        compressors.keep(path, answer.baselines)
        return answer.baselines
    job.notice(ProgressEvent(None, f"without gzip, xz and zstd: {answer.message}"))
    return {}


def _new_record(ready: Prepared) -> Profile:
    job = ready.job
    spec, located = job.spec, job.located
    parameters = source.count_parameters(located.path)
    return Profile(
        schema=SCHEMA,
        edgecap=__version__,
        created_utc=files.utc_now("microseconds"),
        complete=False,
        spec=spec,
        machine=read_machine(ready.providers),
        source=Source(
            name=located.name,
            kind=located.kind,
            revision=located.revision,
            parameters=Absent(reason="the folder has no safetensors to count")
            if parameters is None
            else parameters,
            weights_sha256=job.hashes.weights,
            tokenizer_sha256=job.hashes.tokenizer,
            architecture=job.model.architecture,
            task=job.model.task,
        ),
        corpus=describe(job.corpus, spec.bias_bits, {} if job.model.encodes else _baselines(job)),
        flops=_flops(job.model, spec),
        peaks=_peaks(job),
    )


def _peaks(job: RunContext) -> dict[str, Peaks | Absent]:
    """What the machine reaches through each provider, from an earlier run unless --calibrate asks again."""
    spec = job.spec
    told = threads_of(spec), job.notice, job.run, spec.calibrate, spec.affinity
    return {p: peaks_of(job.home, p, *told) for p in spec.providers}


def _flops(model: Model, spec: Spec) -> Flops | Absent:
    """Over the horizon; under the paper's protocol over the window, and as the published scripts count."""
    architecture, horizon = model.architecture, model.horizon
    if isinstance(architecture, Absent):
        return architecture
    as_published = spec.protocol == "paper"
    context = (spec.context or horizon) if as_published else horizon
    return count_flops(
        architecture, context, min(PREFILL_TOKENS, horizon), own_position=not as_published
    )


# --- one cell ---------------------------------------------------------------------------------


def _with_cell(record: Profile, cell: Cell) -> Profile:
    return msgspec.structs.replace(record, cells=(*record.cells, cell))


def _cell(job: RunContext, record: Profile, cell: CellSpec, cells_in_run: int) -> Cell:
    """All of a cell but its latency, which is measured when the graphs of all cells are there."""
    unfit = _unfit(job, record, cell)
    if unfit:
        return _failed(cell, Absent(reason="left out"), unfit)
    ready = get_or_build(job, cell)
    if isinstance(ready, Failure):
        return _failed(cell, Absent(reason="it could not be made"), ready)
    answer = _measure(job, record, cell, ready)
    if isinstance(answer, Failure):
        return _failed(cell, ready.graph, answer)
    memory = _weigh(job, cell, ready)
    graph = msgspec.structs.replace(
        ready.graph, divergence_bits=answer.divergence_bits, cosine=answer.cosine
    )
    measured = Measurement(
        compression=answer.compression,
        latency=Absent(reason="the run ended before the latency was measured"),
        energy=answer.energy,
        memory=_gone(memory) if isinstance(memory, Failure) else memory,
        placement=answer.placement,
        work=answer.work,
    )
    return _judged(job, record, cell, graph, measured, cells_in_run)


def _unfit(job: RunContext, record: Profile, cell: CellSpec) -> Failure | None:
    """Why a variant is left out before time is spent on it, where that was asked for."""
    parameters = record.source.parameters
    told = advise(
        record.machine,
        cell.precision,
        cell.provider,
        parameters if isinstance(parameters, int) else None,
    )
    if told is None or not job.spec.skip_unfit:
        return None
    return Failure(
        stage=LEFT_OUT, error=told.code, message=f"left out: {told.message}; {told.advice}"
    )


def _judged(
    job: RunContext,
    record: Profile,
    cell: CellSpec,
    graph: Graph,
    measured: Measurement,
    cells_in_run: int,
) -> Cell:
    """What was measured with what is computed from it."""
    bound = roofline(measured, record.flops, record.peaks.get(cell.provider), cell.precision)
    decoded = bound.decode if isinstance(bound, Roofline) else bound
    return Cell(
        precision=cell.precision,
        provider=cell.provider,
        graph=graph,
        outcome=measured,
        score=score(
            measured,
            record.flops,
            record.corpus.bias_bits,
            decoded.ratio if isinstance(decoded, Bound) else decoded or NOT_DECODED,
        ),
        roofline=bound,
        cautions=(
            *cautions(record.machine, record.source, graph, cell.provider, measured, cells_in_run),
            *(above_peak(bound) if isinstance(bound, Roofline) else ()),
            *foreign_bias(job.corpus.card, measured.compression),
        ),
    )


def _failed(cell: CellSpec, graph: Graph | Absent, failure: Failure) -> Cell:
    return Cell(
        precision=cell.precision,
        provider=cell.provider,
        graph=graph,
        outcome=failure,
        score=Absent(reason=f"{failure.stage} failed"),
    )


def _measure(
    job: RunContext, record: Profile, cell: CellSpec, ready: ReadyGraph
) -> MeasuredCell | Failure:
    model = job.model
    reference = get_or_build(job, CellSpec("fp32", cell.provider)) if can_be_fp32(job) else None
    step = MeasureCell(
        session=session_of(job, cell.provider, ready),
        reference=str(reference.path) if isinstance(reference, ReadyGraph) else None,
        tokenizer=str(tokenizer_folder(job, cell.provider)),
        corpus=job.corpus,
        protocol=job.spec.protocol,
        context=job.spec.context or model.horizon,
        stride=job.spec.stride,
        journal="",
        prefill_tokens=min(PREFILL_TOKENS, model.horizon),
        decode_context=model.decode_context,
        operators=job.spec.operators,
        allow_fallback=job.spec.allow_fallback,
        energy=job.spec.energy,
        assume_watts=job.spec.assume_watts,
        meter=job.spec.meter and str(Path(job.spec.meter).absolute()),
        meter_offset_s=job.spec.meter_offset_s,
    )
    journal = _journal(job, record, step, ready)
    mark_in_use(job, cell, journal)
    _sow(journal, job.scores.documents)
    answer = run_step(job, cell, msgspec.structs.replace(step, journal=str(journal)), MeasuredCell)
    if isinstance(answer, MeasuredCell) and job.scores.folder is None:
        journal.unlink(missing_ok=True)
    return _told_where(answer, job.scores.devices) if isinstance(answer, MeasuredCell) else answer


def _told_where(found: MeasuredCell, devices: tuple[str, ...]) -> MeasuredCell:
    """With the devices that scored parts of the text, if any did."""
    if not devices or not isinstance(found.compression, Compression):
        return found
    return msgspec.structs.replace(
        found, compression=msgspec.structs.replace(found.compression, scored_on=devices)
    )


def score_part(
    spec: Spec,
    home: Paths,
    part: int,
    parts: int,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
) -> tuple[DocumentShare, ...] | Failure:
    """Bits of a part of the corpus under the one graph that `spec` asks for; what `profile` scores, in pieces.

    Raises UsageError where the request cannot be met.
    """
    ready = prepare(
        spec,
        home,
        notice,
        run,
        read_corpus(spec.corpus, spec.documents, home.cache, spec.bias_bits),
    )
    job, (cell,) = ready.job, ready.wanted
    if job.model.encodes:
        raise UsageError(
            f"{spec.model} is an encoder, which predicts no next token: there are no bits to score"
        )
    with job.in_use:
        graph = get_or_build(job, cell)
        return graph if isinstance(graph, Failure) else _scored(job, cell, graph, part, parts)


def _scored(
    job: RunContext, cell: CellSpec, graph: ReadyGraph, part: int, parts: int
) -> tuple[DocumentShare, ...] | Failure:
    spec = job.spec
    step = ScorePart(
        session=session_of(job, cell.provider, graph),
        tokenizer=str(tokenizer_folder(job, cell.provider)),
        corpus=job.corpus,
        protocol=spec.protocol,
        context=spec.context or job.model.horizon,
        stride=spec.stride,
        part=part,
        parts=parts,
    )
    found = run_step(job, cell, step, ScoredPart)
    return found if isinstance(found, Failure) else found.shares


def _sow(path: Path, documents: tuple[ScoredDocument, ...]) -> None:
    """Puts documents that were scored elsewhere into a journal, behind those that it holds."""
    if documents:
        journal = JsonlLog(path, ScoredDocument)
        for document in documents[len(journal.finished) :]:
            journal.add(document)


def _journal(job: RunContext, record: Profile, step: MeasureCell, ready: ReadyGraph) -> Path:
    """Where finished documents are kept until the cell is: named by all that their bits depend on."""
    scored = msgspec.structs.replace(
        step,
        corpus=msgspec.structs.replace(job.corpus, card=None),
        reference=None,
        prefill_tokens=0,
        decode_context=0,
        operators=False,
        allow_fallback=True,
        energy="",
        assume_watts=None,
        meter=None,
        meter_offset_s=None,
    )
    told = (
        scored,
        [(f.path, f.sha256) for f in ready.graph.files],
        (job.corpus.sha256, job.hashes.tokenizer, job.located.config),
        (record.machine.cpu, sorted(record.machine.versions.items()), __version__),
    )
    folder = job.scores.folder or job.home.cache / "journals"
    return folder / f"{files.sha256_of(msgspec.json.encode(told, order='sorted'))[:32]}.jsonl"


def _weigh(job: RunContext, cell: CellSpec, ready: ReadyGraph) -> Memory | Failure:
    steps = min(DECODE_STEPS, job.model.decode_context)
    return run_step(
        job,
        cell,
        MeasureMemory(
            session=session_of(job, cell.provider, ready),
            files=tuple(str(ready.folder / f.path) for f in ready.graph.files),
            prefill_tokens=min(PREFILL_TOKENS, job.model.horizon - steps),
            steps=steps,
        ),
        Memory,
    )


# --- latency ----------------------------------------------------------------------------------


def _groups(graphs: dict[CellSpec, ReadyGraph], together: bool) -> list[dict[CellSpec, ReadyGraph]]:
    """Cells that are timed in turns: all of them where they fit into memory together, else each alone."""
    needed = sum(MEMORY_OF_GRAPH * r.graph.bytes + MEMORY_OF_SESSION for r in graphs.values())
    if together and needed <= FREE_SHARE * available_memory():
        return [graphs]
    return [{cell: ready} for cell, ready in graphs.items()]


def _timed(
    job: RunContext, record: Profile, group: dict[CellSpec, ReadyGraph], cells_in_run: int
) -> Profile:
    """The record with the latency of a group of cells; where they end their process together, each is tried alone."""
    if not group:
        return record
    found = run_step(
        job, next(iter(group)) if len(group) == 1 else None, _race(job, group), MeasuredLatency
    )
    if isinstance(found, Failure) and len(group) > 1:
        for cell, ready in group.items():
            record = _timed(job, record, {cell: ready}, cells_in_run)
        return record
    latencies = (found,) if isinstance(found, Failure) else found.found
    new = {
        c: _with_latency(job, record, c, x, cells_in_run)
        for c, x in zip(group, latencies, strict=True)
    }
    return msgspec.structs.replace(
        record, cells=tuple(new.get(CellSpec(c.precision, c.provider), c) for c in record.cells)
    )


def _gone(found: Failure) -> Absent:
    return Absent(reason=f"{found.error}: {found.message}", failed=True)


def _race(job: RunContext, group: dict[CellSpec, ReadyGraph]) -> MeasureLatency:
    model = job.model
    return MeasureLatency(
        entrants=tuple(session_of(job, cell.provider, ready) for cell, ready in group.items()),
        prefill_tokens=min(PREFILL_TOKENS, model.horizon),
        decode_context=model.decode_context,
        limit_s=job.spec.limit_s,
        target=job.spec.precision_target,
        sweep=_sweep(job.spec, model),
        batches=job.spec.batches,
        streams=job.spec.streams,
        layers=_layers(model.architecture),
    )


def _layers(architecture: Architecture | Absent) -> int:
    return (
        sum(x.count for x in architecture.layers)
        if isinstance(architecture, Architecture)
        else LAYERS
    )


def _sweep(spec: Spec, model: Model) -> tuple[int, ...]:
    """The contexts to time beside; unless some were asked for, the usual ones that the model has positions for."""
    if spec.context_sweep is not None:
        return spec.context_sweep
    decoded = 0 if model.encodes else SWEEP_STEPS
    most = model.sizes.positions or (PREFILL_TOKENS if model.encodes else SWEEP[-1] + decoded)
    return tuple(c for c in SWEEP if c + decoded <= most)


def _with_latency(
    job: RunContext, record: Profile, cell: CellSpec, found: Latency | Failure, cells_in_run: int
) -> Cell:
    had = next(c for c in record.cells if CellSpec(c.precision, c.provider) == cell)
    assert isinstance(had.outcome, Measurement) and isinstance(had.graph, Graph)
    latency = _gone(found) if isinstance(found, Failure) else found
    measured = msgspec.structs.replace(had.outcome, latency=latency)
    return _judged(job, record, cell, had.graph, measured, cells_in_run)
