"""Makes the graphs of a model, once: found in its folder, kept in the cache, or exported and converted now."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from edgecap.graph import finish as optimize
from edgecap.graph.variants import RECIPES, SAMPLED
from edgecap.pipeline.prepare import (
    ProgressEvent,
    ReadyGraph,
    RunContext,
    describe_graph,
    export_recipe,
    finish_of,
)
from edgecap.pipeline.worker import BuiltGraph, Export, Optimize, Quantize, Step, expected
from edgecap.record import Failure, Graph
from edgecap.spec import DEFAULT_CORPUS, CellSpec
from edgecap.storage import files as store
from edgecap.storage import locks
from edgecap.storage.cache import ORIGIN, Origin
from edgecap.text.corpus import Corpus, read_corpus


def get_or_build(job: RunContext, cell: CellSpec) -> ReadyGraph | Failure:
    """The graph of a cell: found in the folder, in the cache, or made now."""
    for ready in job.found:
        if ready.graph.precision == cell.precision:
            return ready
    if job.located.kind == "onnx" and not can_be_fp32(job):
        had = ", ".join(r.graph.precision for r in job.found)
        return Failure(
            stage="vary",
            error="NoSource",
            message=f"the folder holds {had}, and no fp32 to make it from",
        )
    if cell.precision == "fp32":
        return _exported(job, cell)
    base = get_or_build(job, CellSpec("fp32", cell.provider))
    return base if isinstance(base, Failure) else _varied(job, cell, base)


def _exported(job: RunContext, cell: CellSpec) -> ReadyGraph | Failure:
    spec, finish = job.spec, finish_of(job.spec, job.model, cell.provider)
    folder, trust = str(job.located.path), spec.trust_remote_code
    plan = _Plan(
        cache_of_export(job, cell.provider),
        spec.exporter,
        export_recipe(spec, job.model, cell.provider),
        lambda out: Export(
            folder=folder,
            out=out,
            trust_remote_code=trust,
            exporter=spec.exporter,
            task=job.model.exported_as,
            finish=finish,
        ),
    )
    return _cached(job, cell, plan)


def _varied(job: RunContext, cell: CellSpec, base: ReadyGraph) -> ReadyGraph | Failure:
    """A variant of an fp32 graph; one that is made on samples of text depends on the text too."""
    recipe = RECIPES[cell.precision]
    text = _calibration(job) if cell.precision in SAMPLED else None
    told = [recipe, _tools(), *([text.sha256, job.hashes.tokenizer] if text else [])]
    plan = _Plan(
        job.home.cache / "variants" / f"{cell.precision}-{_key_of(base, *told)}",
        base.graph.exporter,
        f"{recipe}; samples of {text.name} {text.sha256[:12]}" if text else recipe,
        lambda out: Quantize(
            graph=str(base.path),
            precision=cell.precision,
            out=out,
            corpus=text,
            tokenizer=str(tokenizer_folder(job, cell.provider)) if text else "",
            positions=job.model.horizon,
        ),
        base.graph.unfused,
    )
    return _cached(job, cell, plan)


def _calibration(job: RunContext) -> Corpus:
    """The corpus of the run, or the bundled one where the run has none."""
    return job.corpus if job.corpus.path else read_corpus(DEFAULT_CORPUS, None, job.home.cache)


def fused(job: RunContext, base: ReadyGraph) -> ReadyGraph | Failure:
    """An fp32 graph of a folder, fused."""
    recipe = f"{base.graph.recipe}; {optimize.RECIPES[optimize.FUSED]}"
    plan = _Plan(
        job.home.cache / "fused" / _key_of(base, recipe, _tools()),
        base.graph.exporter,
        recipe,
        lambda out: Optimize(graph=str(base.path), out=out),
    )
    return _cached(job, CellSpec("fp32", "cpu"), plan)


def _key_of(base: ReadyGraph, *told: str) -> str:
    weights = [f"{f.path} {f.sha256}" for f in base.graph.files]
    return store.sha256_of(*(text.encode() for text in (*weights, *told)))[:24]


def can_be_fp32(job: RunContext) -> bool:
    """Whether there is an fp32 graph, or something to export it from."""
    return job.located.kind != "onnx" or any(r.graph.precision == "fp32" for r in job.found)


def tokenizer_folder(job: RunContext, provider: str) -> Path:
    """The model's folder, or, where it has only a slow tokenizer, the export that converted it."""
    if (job.located.path / "tokenizer.json").is_file() or job.located.kind == "onnx":
        return job.located.path
    return cache_of_export(job, provider)


Item = TypeVar("Item")


def run_step(
    job: RunContext, cell: CellSpec | None, step: Step, kind: type[Item]
) -> Item | Failure:
    """What the child that does a step, of a cell or of several together, answers; anything but `kind` is a Failure."""
    answer = job.run(
        step,
        lambda p: job.notice(ProgressEvent(cell, p.stage, p.done, p.total)),
        job.spec.timeout_s,
    )
    return expected(answer, kind)


# --- the cache --------------------------------------------------------------------------------


def cache_of_export(job: RunContext, provider: str) -> Path:
    """Where the fp32 export for a provider is kept: named by all that it depends on."""
    config = msgspec.json.encode(job.located.config, order="sorted")
    made_by = export_recipe(job.spec, job.model, provider)
    parts = (
        job.hashes.weights,
        job.hashes.tokenizer,
        made_by,
        _tools(),
        str(job.spec.trust_remote_code),
    )
    key = store.sha256_of(config, *(p.encode() for p in parts))[:24]
    return job.home.cache / "exports" / key


def _tools() -> str:
    """Versions of the tools that make variants."""
    from edgecap.machine.info import versions

    return ", ".join(f"{k} {v}" for k, v in versions().items() if k.startswith("onnx"))


class _Plan(NamedTuple):
    """Where a graph is kept, how it is described, the step that makes it, and what its source has unfused."""

    target: Path
    exporter: str
    recipe: str
    step: Callable[[str], Step]
    unfused: tuple[str, ...] = ()


def _cached(job: RunContext, cell: CellSpec, plan: _Plan) -> ReadyGraph | Failure:
    if plan.target not in job.made:
        with build_lock(job, cell, plan.target, f"makes {cell.precision}"):
            job.in_use.enter_context(locks.used(plan.target))
            job.made[plan.target] = _kept(plan.target) or _make(job, cell, plan)
    return job.made[plan.target]


@contextlib.contextmanager
def build_lock(job: RunContext, cell: CellSpec | None, thing: Path, work: str) -> Iterator[None]:
    """Lets one process at a time look for a thing in the cache and make it; `work` says what the other one does."""
    with locks.alone(
        thing,
        lambda: job.notice(ProgressEvent(cell, f"waiting for another process that {work}")),
        lambda reason: job.notice(
            ProgressEvent(cell, f"going on without a lock in {job.home.cache}: {reason}")
        ),
    ):
        yield


def mark_in_use(job: RunContext, cell: CellSpec | None, path: Path) -> None:
    """Marks what the cache keeps at a path as in use until the run ends; a path elsewhere needs no mark."""
    thing = locks.thing_of(job.home.cache, path)
    if thing:
        with build_lock(job, cell, thing, f"looks at {path.name}"):
            job.in_use.enter_context(locks.used(thing))
            store.touch(thing)


def _kept(target: Path) -> ReadyGraph | None:
    """What an earlier run left, if every byte of it is still there; else it is cleared away."""
    try:
        graph = msgspec.json.decode((target / "graph.json").read_bytes(), type=Graph)
        if store.list_files(target, [f.path for f in graph.files]) == graph.files:
            store.touch(target / "graph.json")
            return ReadyGraph(target, graph)
    except (OSError, msgspec.DecodeError):
        pass
    shutil.rmtree(target, ignore_errors=True)
    return None


def _make(job: RunContext, cell: CellSpec, plan: _Plan) -> ReadyGraph | Failure:
    try:
        with store.new_folder(plan.target) as scratch:
            answer = run_step(job, cell, plan.step(str(scratch)), BuiltGraph)
            if isinstance(answer, Failure):
                raise _Abandoned(answer)
            files = store.list_files(scratch, list(answer.files))
            unfused = answer.unfused or plan.unfused
            graph = describe_graph(cell.precision, plan.exporter, plan.recipe, files, unfused)
            store.write_atomically(scratch / "graph.json", msgspec.json.encode(graph))
            store.write_atomically(scratch / ORIGIN, msgspec.json.encode(_origin(job)))
    except _Abandoned as abandoned:
        return abandoned.failure
    return ReadyGraph(plan.target, graph)


def _origin(job: RunContext) -> Origin:
    return Origin(model=job.located.name, made_utc=store.utc_now())


class _Abandoned(Exception):
    """Leaves a scratch folder behind to be removed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
