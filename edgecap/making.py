"""Makes the graphs of a model, once: found in its folder, kept in the cache, or exported and converted now."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from edgecap import export, store
from edgecap.graph.variants import RECIPES
from edgecap.job import Event, Job, Ready, describe_graph
from edgecap.record import Failure, Graph
from edgecap.spec import CellSpec
from edgecap.worker import Export, Made, Step, Vary, expected


def graph_of(job: Job, cell: CellSpec) -> Ready | Failure:
    """The graph of a cell: found in the folder, in the cache, or made now."""
    for ready in job.found:
        if ready.graph.precision == cell.precision:
            return ready
    if job.located.kind == "onnx" and not can_be_fp32(job):
        had = ", ".join(r.graph.precision for r in job.found)
        return Failure(stage="vary", error="NoSource", message=f"the folder holds {had}, and no fp32 to make it from")
    if cell.precision == "fp32":
        target = cache_of_export(job)
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


def can_be_fp32(job: Job) -> bool:
    """Whether there is an fp32 graph, or something to export it from."""
    return job.located.kind != "onnx" or any(r.graph.precision == "fp32" for r in job.found)


def tokenizer_folder(job: Job, ready: Ready) -> Path:
    """The model's folder, or, where it has only a slow tokenizer, the export that converted it."""
    if (job.located.path / "tokenizer.json").is_file() or job.located.kind == "onnx":
        return job.located.path
    return cache_of_export(job)


Found = TypeVar("Found")


def ask(job: Job, cell: CellSpec | None, step: Step, kind: type[Found]) -> Found | Failure:
    """What the child that does a step, of a cell or of several together, answers; anything but `kind` is a Failure."""
    answer = job.run(step, lambda p: job.notice(Event(cell, p.stage, p.done, p.total)), job.spec.timeout_s)
    return expected(answer, kind)


# --- the cache --------------------------------------------------------------------------------


def cache_of_export(job: Job) -> Path:
    """Where the fp32 export is kept: named by all that it depends on."""
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
            answer = ask(job, cell, step(str(scratch)), Made)
            if isinstance(answer, Failure):
                raise _Abandoned(answer)
            files = store.list_files(scratch, list(answer.files))
            graph = describe_graph(cell.precision, "optimum", recipe, files)
            store.write_atomically(scratch / "graph.json", msgspec.json.encode(graph))
    except _Abandoned as abandoned:
        return abandoned.failure
    return Ready(target, graph)


class _Abandoned(Exception):
    """Leaves a scratch folder behind to be removed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
