"""The main job: from a spec to a record, one cell after another. `profile` is the table of contents.

Every step that loads, runs or converts a model is done by `run`, in a child process; this process
sleeps meanwhile. The record is written after every cell, so that nothing finished is lost.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgecap import __version__, export, source, store
from edgecap.architecture import read_architecture, read_genai
from edgecap.cautions import cautions
from edgecap.corpus import Corpus, describe, read_corpus
from edgecap.errors import EdgecapError, Interrupted, UsageError
from edgecap.flops import count_flops
from edgecap.graph.variants import RECIPES
from edgecap.machine import default_threads, look_around
from edgecap.record import (
    SCHEMA,
    Absent,
    Architecture,
    Baseline,
    Cell,
    Failure,
    File,
    Flops,
    Graph,
    Measurement,
    Memory,
    Profile,
    Source,
)
from edgecap.score import score
from edgecap.spec import PRECISIONS, CellSpec, Spec, cells
from edgecap.store import Home
from edgecap.worker import (
    Answer,
    Export,
    Look,
    Looked,
    Made,
    Measure,
    Measured,
    Progress,
    Squeeze,
    Squeezed,
    Step,
    Vary,
    Watch,
    Weigh,
    in_child,
)

HORIZON = 1024  # steps over which a decoded token's cost is averaged
PREFILL_TOKENS = 512
DECODE_STEPS = 32

Run = Callable[[Step, Watch, float], Answer]
Notice = Callable[["Event"], None]


class Event(NamedTuple):
    """What is happening: a cell, its stage, and how far the stage is; without a cell, `total` cells begin."""

    cell: CellSpec | None
    stage: str
    done: int = 0
    total: int = 1


class Ready(NamedTuple):
    """A graph on this disk, ready to run."""

    folder: Path
    graph: Graph
    vocabulary: int | None = None

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.folder / self.graph.files[0].path


class Job(NamedTuple):
    """All that is known before the first measurement."""

    spec: Spec
    home: Home
    located: source.Located
    hashes: source.Hashes
    corpus: Corpus
    found: tuple[Ready, ...]
    notice: Notice
    run: Run
    made: dict[Path, Ready | Failure]  # checked or tried once a run, not again for the next cell


def unheard(event: Event) -> None:
    """Tells nobody."""


def profile(
    spec: Spec | None = None, home: Home | None = None, notice: Notice = unheard, run: Run = in_child
) -> Profile:
    """Measures a model as `spec` asks and returns the record, which is also written under `home.profiles`.

    Raises UsageError before anything is measured where the request cannot be met, and Interrupted,
    after the finished cells were written, on Ctrl-C.
    """
    job, record, wanted = _begin(spec or Spec(), home or store.home(), notice, run)
    path = store.record_path(job.home.profiles, record)
    notice(Event(None, f"{len(wanted)} cells to measure", total=len(wanted)))
    try:
        for cell_spec in wanted:
            record = _with_cell(record, _cell(job, record, cell_spec, len(wanted)))
            store.save(record, path)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted: {_what_is_kept(record, wanted, path)}") from None
    except EdgecapError as error:
        if not record.cells:
            raise
        raise type(error)(f"{error}; {_what_is_kept(record, wanted, path)}") from error
    record = msgspec.structs.replace(record, complete=True)
    store.save(record, path)
    return record


def _what_is_kept(record: Profile, wanted: list[CellSpec], path: Path) -> str:
    return f"{len(record.cells)} of {len(wanted)} cells are in {path}" if record.cells else "no cell was finished"


def export_folder(
    spec: Spec, out: Path, home: Home | None = None, notice: Notice = unheard, run: Run = in_child
) -> dict[str, Graph]:
    """Writes one portable folder with a graph for each precision, tokenizer, config and a manifest of hashes."""
    if out.exists():
        raise UsageError(f"{out} is there already; give a new folder")
    store.check_writable(out)
    job, _ = prepare(spec, home or store.home(), notice, run)
    graphs: dict[str, Ready] = {}
    precisions = spec.precisions or PRECISIONS
    notice(Event(None, f"{len(precisions)} graphs to make", total=len(precisions)))
    for precision in precisions:
        ready = graph_of(job, CellSpec(precision, "cpu"))
        if isinstance(ready, Failure):
            raise UsageError(f"cannot make {precision}: {ready.message}")
        graphs[precision] = ready
    with store.new_folder(out) as scratch:
        _write_portable(job, graphs, scratch)
    return {precision: ready.graph for precision, ready in graphs.items()}


def prepare(spec: Spec, home: Home, notice: Notice, run: Run) -> tuple[Job, Architecture | Absent]:
    """A job without a corpus, for work that only needs the graphs, and what the model is."""
    located = source.locate(spec.model, spec.revision)
    _check_context(spec, _from_config(located))
    looked, found = _found(located, run, spec)
    architecture = _architecture(spec, located, looked)
    _wanted(spec, located, looked, found)
    no_text = Corpus(name="", path="", sha256="", domains={})
    job = Job(spec, home, located, _hashes(located, found), no_text, found, notice, run, {})
    return job, architecture


# --- before the first measurement -------------------------------------------------------------


def _begin(spec: Spec, home: Home, notice: Notice, run: Run) -> tuple[Job, Profile, list[CellSpec]]:
    """Everything that can be refused is refused here."""
    corpus = read_corpus(spec.corpus, spec.documents, home.cache)
    located = source.locate(spec.model, spec.revision)
    architecture = _from_config(located)
    _check_context(spec, architecture)
    notice(Event(None, "looking at the model and the runtime"))
    looked, found = _found(located, run, spec)
    architecture = _architecture(spec, located, looked)
    wanted = _wanted(spec, located, looked, found)
    if located.kind != "onnx":
        export.recipe()
    store.check_writable(home.profiles)
    job = Job(spec, home, located, _hashes(located, found), corpus, found, notice, run, {})
    return job, _new_record(job, architecture, looked), wanted


def _architecture(spec: Spec, located: source.Located, looked: Looked) -> Architecture | Absent:
    """From the config, or from what the onnxruntime-genai builder leaves in its place."""
    architecture = _from_config(located)
    if isinstance(architecture, Absent) and located.genai:
        where = str(located.path / "genai_config.json")
        architecture = read_genai(located.genai, looked.graphs[0].matrix_weights, where)
    _check_context(spec, architecture)
    return architecture


def _baselines(job: Job) -> dict[str, Baseline]:
    """What general compressors make of the corpus, so that a reader sees what the model buys."""
    stage = Squeeze(corpus=job.corpus)
    answer = job.run(stage, lambda p: job.notice(Event(None, p.stage)), job.spec.timeout_s)
    return answer.baselines if isinstance(answer, Squeezed) else {}


def _from_config(located: source.Located) -> Architecture | Absent:
    """What config.json tells; a folder of graphs may have none."""
    if located.kind == "onnx" and not located.config:
        return Absent(reason="the folder has no config.json")
    return read_architecture(located.config, str(located.path / "config.json"))


def _hashes(located: source.Located, found: tuple[Ready, ...]) -> source.Hashes:
    return source.hashes(located, [f for ready in found for f in ready.graph.files])


def _check_context(spec: Spec, architecture: Architecture | Absent) -> None:
    positions = architecture.positions if isinstance(architecture, Architecture) else None
    if spec.context and positions and spec.context > positions:
        raise UsageError(f"--context {spec.context} is longer than the model's {positions} positions")
    window = spec.context or _horizon(architecture)
    if spec.stride and spec.stride >= window:
        raise UsageError(f"--stride {spec.stride} must be less than the {window} positions of a window")


def _found(located: source.Located, run: Run, spec: Spec) -> tuple[Looked, tuple[Ready, ...]]:
    """The providers of the runtime, and the graphs that an ONNX folder holds."""
    files = source.onnx_files(located.path) if located.kind == "onnx" else []
    asked = Look(graphs=tuple(str(f.path) for f in files), providers=spec.providers)
    looked = run(asked, _unwatched, spec.timeout_s)
    if not isinstance(looked, Looked):
        reason = f": {looked.message}" if isinstance(looked, Failure) else ""
        raise UsageError(f"ONNX Runtime cannot be used here{reason}")
    ready = []
    for file, facts in zip(files, looked.graphs, strict=True):
        listed = file.files or store.list_files(file.path.parent, list(facts.files))
        graph = _describe_graph(file.precision or facts.precision, file.exporter, file.recipe, listed)
        ready.append(Ready(file.path.parent, graph, facts.vocabulary))
    return looked, tuple(ready)


def _describe_graph(precision: str, exporter: str, recipe: str, files: tuple[File, ...]) -> Graph:
    return Graph(
        precision=precision,
        exporter=exporter,
        recipe=recipe,
        bytes=sum(f.bytes for f in files),
        files=files,
        divergence_bits=Absent(reason="not measured"),
    )


def _unwatched(progress: Progress) -> None:
    return None


def _check_providers(spec: Spec, looked: Looked) -> None:
    for provider in spec.providers:
        if provider not in looked.providers:
            raise UsageError(
                f"provider '{provider}' is not available in the installed ONNX Runtime; available: {', '.join(looked.providers)}"
            )


def _wanted(spec: Spec, located: source.Located, looked: Looked, found: tuple[Ready, ...]) -> list[CellSpec]:
    """The cells, once precisions and providers are known to be had."""
    _check_providers(spec, looked)
    had = tuple(r.graph.precision for r in found)
    if located.kind != "onnx":
        return cells(spec.precisions or PRECISIONS, spec.providers)
    possible = PRECISIONS if "fp32" in had else had
    for precision in spec.precisions:
        if precision not in (*had, *possible):
            raise UsageError(
                f"{located.path} holds {', '.join(had)}; {precision} cannot be made from that, it needs an fp32 graph"
            )
    return cells(spec.precisions or had, spec.providers)


def _new_record(job: Job, architecture: Architecture | Absent, looked: Looked) -> Profile:
    spec, located = job.spec, job.located
    parameters = source.count_parameters(located.path)
    return Profile(
        schema=SCHEMA,
        edgecap=__version__,
        created_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        complete=False,
        spec=spec,
        machine=look_around(looked.providers),
        source=Source(
            name=located.name,
            kind=located.kind,
            revision=located.revision,
            parameters=Absent(reason="the folder has no safetensors to count") if parameters is None else parameters,
            weights_sha256=job.hashes.weights,
            tokenizer_sha256=job.hashes.tokenizer,
            architecture=architecture,
        ),
        corpus=describe(job.corpus, spec.bias_bits, _baselines(job)),
        flops=_flops(architecture, spec),
    )


def _flops(architecture: Architecture | Absent, spec: Spec) -> Flops | Absent:
    """Over the horizon; under the paper's protocol over the window, and as the published scripts count."""
    if isinstance(architecture, Absent):
        return architecture
    horizon = _horizon(architecture)
    as_published = spec.protocol == "paper"
    context = (spec.context or horizon) if as_published else horizon
    return count_flops(architecture, context, min(PREFILL_TOKENS, horizon), own_position=not as_published)


def _horizon(architecture: Architecture | Absent) -> int:
    positions = architecture.positions if isinstance(architecture, Architecture) else None
    return min(HORIZON, positions or HORIZON)


# --- one cell ---------------------------------------------------------------------------------


def _with_cell(record: Profile, cell: Cell) -> Profile:
    return msgspec.structs.replace(record, cells=(*record.cells, cell))


def _cell(job: Job, record: Profile, cell: CellSpec, cells_in_run: int) -> Cell:
    ready = graph_of(job, cell)
    if isinstance(ready, Failure):
        return _failed(cell, Absent(reason="it could not be made"), ready)
    answer = _measure(job, record, cell, ready)
    if isinstance(answer, Failure):
        return _failed(cell, ready.graph, answer)
    memory = _weigh(job, record, cell, ready)
    graph = msgspec.structs.replace(ready.graph, divergence_bits=answer.divergence_bits)
    measured = Measurement(
        compression=answer.compression,
        latency=answer.latency,
        energy=answer.energy,
        memory=Absent(reason=memory.message) if isinstance(memory, Failure) else memory,
        placement=answer.placement,
    )
    return Cell(
        precision=cell.precision,
        provider=cell.provider,
        graph=graph,
        outcome=measured,
        score=score(measured, record.flops, record.corpus.bias_bits),
        cautions=cautions(record.machine, record.source, graph, cell.provider, measured, cells_in_run),
    )


def _failed(cell: CellSpec, graph: Graph | Absent, failure: Failure) -> Cell:
    return Cell(
        precision=cell.precision,
        provider=cell.provider,
        graph=graph,
        outcome=failure,
        score=Absent(reason=f"{failure.stage} failed"),
    )


def _measure(job: Job, record: Profile, cell: CellSpec, ready: Ready) -> Measured | Failure:
    horizon = _horizon(record.source.architecture)
    reference = graph_of(job, CellSpec("fp32", "cpu")) if _can_be_fp32(job) else None
    step = Measure(
        graph=str(ready.path),
        reference=str(reference.path) if isinstance(reference, Ready) else None,
        provider=cell.provider,
        threads=job.spec.threads or default_threads(),
        tokenizer=str(tokenizer_folder(job, ready)),
        corpus=job.corpus,
        protocol=job.spec.protocol,
        context=job.spec.context or horizon,
        stride=job.spec.stride,
        journal="",
        vocabulary=vocabulary_of(job, record.source.architecture),
        head_dim=head_dim_of(record.source.architecture),
        prefill_tokens=min(PREFILL_TOKENS, horizon),
        decode_context=horizon // 2,
        limit_s=job.spec.limit_s,
    )
    journal = _journal(job, record, step, ready)
    answer = _run(job, cell, msgspec.structs.replace(step, journal=str(journal)))
    if isinstance(answer, Measured):
        journal.unlink(missing_ok=True)
    return answer if isinstance(answer, Measured | Failure) else _nonsense(answer)


def _journal(job: Job, record: Profile, step: Measure, ready: Ready) -> Path:
    """Where finished documents are kept until the cell is: named by all that their bits depend on."""
    scored = msgspec.structs.replace(step, reference=None, prefill_tokens=0, decode_context=0, limit_s=0.0)
    told = (
        scored,
        [(f.path, f.sha256) for f in ready.graph.files],
        (job.corpus.sha256, job.hashes.tokenizer, job.located.config),
        (record.machine.cpu, sorted(record.machine.versions.items()), __version__),
    )
    return job.home.cache / "journals" / f"{store.sha256_of(msgspec.json.encode(told, order='sorted'))[:32]}.jsonl"


def _weigh(job: Job, record: Profile, cell: CellSpec, ready: Ready) -> Memory | Failure:
    horizon = _horizon(record.source.architecture)
    answer = _run(
        job,
        cell,
        Weigh(
            graph=str(ready.path),
            files=tuple(str(ready.folder / f.path) for f in ready.graph.files),
            provider=cell.provider,
            threads=job.spec.threads or default_threads(),
            vocabulary=vocabulary_of(job, record.source.architecture),
            head_dim=head_dim_of(record.source.architecture),
            prefill_tokens=min(PREFILL_TOKENS, horizon - min(DECODE_STEPS, horizon // 2)),
            steps=min(DECODE_STEPS, horizon // 2),
        ),
    )
    return answer if isinstance(answer, Memory | Failure) else _nonsense(answer)


def _nonsense(answer: object) -> Failure:
    return Failure(stage="worker", error="BadAnswer", message=f"the child answered with {type(answer).__name__}")


def _run(job: Job, cell: CellSpec, step: Step) -> Answer:
    return job.run(step, lambda p: job.notice(Event(cell, p.stage, p.done, p.total)), job.spec.timeout_s)


def vocabulary_of(job: Job, architecture: Architecture | Absent) -> int:
    """The ids that the model tells apart."""
    if isinstance(architecture, Architecture):
        return architecture.vocabulary
    known = next((r.vocabulary for r in job.found if r.vocabulary), None)
    if known:
        return known
    from edgecap.tokens import read_tokenizer

    return int(read_tokenizer(job.located.path).size)


def head_dim_of(architecture: Architecture | Absent) -> int | None:
    """The width of cached keys, where it is known."""
    return architecture.layers[0].attention.head_dim if isinstance(architecture, Architecture) else None


def tokenizer_folder(job: Job, ready: Ready) -> Path:
    """The model's folder, or, where it has only a slow tokenizer, the export that converted it."""
    if (job.located.path / "tokenizer.json").is_file() or job.located.kind == "onnx":
        return job.located.path
    return _cache_of_export(job)


# --- graphs, made once and kept ---------------------------------------------------------------


def _can_be_fp32(job: Job) -> bool:
    return job.located.kind != "onnx" or any(r.graph.precision == "fp32" for r in job.found)


def graph_of(job: Job, cell: CellSpec) -> Ready | Failure:
    """The graph of a cell: found in the folder, in the cache, or made now."""
    for ready in job.found:
        if ready.graph.precision == cell.precision:
            return ready
    if job.located.kind == "onnx" and not _can_be_fp32(job):
        had = ", ".join(r.graph.precision for r in job.found)
        return Failure(stage="vary", error="NoSource", message=f"the folder holds {had}, and no fp32 to make it from")
    if cell.precision == "fp32":
        target = _cache_of_export(job)
        step = lambda out: Export(folder=str(job.located.path), out=out, trust_remote_code=job.spec.trust_remote_code)  # noqa: E731
        return _cached(job, cell, target, export.recipe(), step)
    base = graph_of(job, CellSpec("fp32", cell.provider))
    if isinstance(base, Failure):
        return base
    recipe = RECIPES[cell.precision]
    weights = [f"{f.path} {f.sha256}".encode() for f in base.graph.files]
    key = store.sha256_of(*weights, recipe.encode(), _tools().encode())[:24]
    target = job.home.cache / "variants" / f"{cell.precision}-{key}"
    return _cached(job, cell, target, recipe, lambda out: Vary(graph=str(base.path), precision=cell.precision, out=out))


def _cache_of_export(job: Job) -> Path:
    config = msgspec.json.encode(job.located.config, order="sorted")
    parts = (job.hashes.weights, job.hashes.tokenizer, export.recipe(), str(job.spec.trust_remote_code))
    key = store.sha256_of(config, *(p.encode() for p in parts))[:24]
    return job.home.cache / "exports" / key


def _tools() -> str:
    """Versions of the tools that make variants."""
    from edgecap.machine import versions

    return ", ".join(f"{k} {v}" for k, v in versions().items() if k.startswith("onnx"))


def _cached(job: Job, cell: CellSpec, target: Path, recipe: str, step: Callable[[str], Step]) -> Ready | Failure:
    if target not in job.made:
        job.made[target] = _kept(target) or _make(job, cell, target, recipe, step)
    return job.made[target]


def _kept(target: Path) -> Ready | None:
    """What an earlier run left, if every byte of it is still there; else it is cleared away."""
    try:
        graph = msgspec.json.decode((target / "graph.json").read_bytes(), type=Graph)
        if store.list_files(target, [f.path for f in graph.files]) == graph.files:
            return Ready(target, graph)
    except (OSError, msgspec.DecodeError):
        pass
    shutil.rmtree(target, ignore_errors=True)
    return None


def _make(job: Job, cell: CellSpec, target: Path, recipe: str, step: Callable[[str], Step]) -> Ready | Failure:
    try:
        with store.new_folder(target) as scratch:
            answer = _run(job, cell, step(str(scratch)))
            if not isinstance(answer, Made):
                raise _Abandoned(answer if isinstance(answer, Failure) else _nonsense(answer))
            files = store.list_files(scratch, list(answer.files))
            graph = _describe_graph(cell.precision, "optimum", recipe, files)
            store.write_atomically(scratch / "graph.json", msgspec.json.encode(graph))
    except _Abandoned as abandoned:
        return abandoned.failure
    return Ready(target, graph)


class _Abandoned(Exception):
    """Leaves a scratch folder behind to be removed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _write_portable(job: Job, graphs: dict[str, Ready], out: Path) -> None:
    folders = [job.located.path, *(r.folder for r in graphs.values())]
    if job.located.kind != "onnx":
        folders.append(_cache_of_export(job))
    for name in (*export.TOKENIZER_FILES, "genai_config.json"):
        found = next((f / name for f in folders if (f / name).is_file()), None)
        if found:
            shutil.copyfile(found, out / name)
    for precision, ready in graphs.items():
        (out / precision).mkdir()
        for file in ready.graph.files:
            shutil.copyfile(ready.folder / file.path, out / precision / file.path)
    manifest = {
        "edgecap": __version__,
        "source": {
            "name": job.located.name,
            "revision": job.located.revision,
            "weights_sha256": job.hashes.weights,
            "tokenizer_sha256": job.hashes.tokenizer,
            "parameters": source.count_parameters(job.located.path),
        },
        "graphs": [
            {
                "precision": precision,
                "folder": precision,
                "exporter": ready.graph.exporter,
                "recipe": ready.graph.recipe,
                "files": msgspec.to_builtins(ready.graph.files),
            }
            for precision, ready in graphs.items()
        ],
    }
    store.write_atomically(out / source.MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
