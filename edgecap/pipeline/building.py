"""Build graphs in the cache, each once: under a lock, marked while it is in use.

CACHE/exports/KEY/graph.json    the description of a cached graph, beside its files
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgecap.pipeline.prepare import describe_graph
from edgecap.pipeline.run_context import ProgressEvent, ReadyGraph, RunContext, run_step
from edgecap.pipeline.worker import BuiltGraph, Step
from edgecap.record import Failure, Graph
from edgecap.spec import CellSpec
from edgecap.storage import locks
from edgecap.storage.cache import ORIGIN_FILE, Origin
from edgecap.storage.files import list_files, new_folder, touch, utc_now, write_atomically

GRAPH_FILE = "graph.json"


class BuildPlan(NamedTuple):
    """Plan to build a graph: its place in the cache, its description, and the step that makes it.

    A variant has what is known of the fp32 graph `source` that it is made from.
    """

    target: Path
    exporter: str
    recipe: str
    step: Callable[[str], Step]
    source: Graph | None = None


def get_or_run(context: RunContext, cell: CellSpec, plan: BuildPlan) -> ReadyGraph | Failure:
    """Return a cached graph, or build it; at most once a run, and in one process at a time."""
    if plan.target not in context.built:
        with build_lock(context, cell, plan.target, f"makes {cell.precision}"):
            context.in_use.enter_context(locks.usage_mark(plan.target))
            cached = _read_cached(plan.target)
            context.built[plan.target] = cached or _build(context, cell, plan)
    return context.built[plan.target]


@contextlib.contextmanager
def build_lock(
    context: RunContext, cell: CellSpec | None, entry: Path, work: str
) -> Iterator[None]:
    """Let one process at a time look for a cache entry and build it.

    `work` says what the other process does, for the message of a run that waits.
    """

    def report(message: str) -> None:
        context.notice(ProgressEvent(cell, message))

    with locks.build_lock(
        entry,
        lambda: report(f"waiting for another process that {work}"),
        lambda reason: report(f"going on without a lock in {context.home.cache}: {reason}"),
    ):
        yield


def mark_in_use(context: RunContext, cell: CellSpec | None, path: Path) -> None:
    """Mark the cache entry of a path as in use until the run ends; ignore a path elsewhere."""
    entry = locks.entry_path(context.home.cache, path)
    if entry:
        with build_lock(context, cell, entry, f"looks at {path.name}"):
            context.in_use.enter_context(locks.usage_mark(entry))
            touch(entry)


def described(target: Path) -> ReadyGraph | None:
    """Return a graph of an earlier run, unchecked."""
    with contextlib.suppress(OSError, msgspec.DecodeError, RecursionError):
        return ReadyGraph(
            target, msgspec.json.decode((target / GRAPH_FILE).read_bytes(), type=Graph)
        )
    return None


def _read_cached(target: Path) -> ReadyGraph | None:
    """Return a graph of an earlier run if each of its files is whole; else clear the folder."""
    ready = described(target)
    with contextlib.suppress(OSError):
        if ready and list_files(target, [f.path for f in ready.graph.files]) == ready.graph.files:
            touch(target / GRAPH_FILE)
            return ready
    shutil.rmtree(target, ignore_errors=True)
    return None


def _build(context: RunContext, cell: CellSpec, plan: BuildPlan) -> ReadyGraph | Failure:
    try:
        with new_folder(plan.target) as scratch:
            answer = run_step(context, cell, plan.step(str(scratch)), BuiltGraph)
            if isinstance(answer, Failure):
                raise _BuildFailed(answer)
            listed = list_files(scratch, list(answer.files))
            source = plan.source or answer
            graph = msgspec.structs.replace(
                describe_graph(cell.precision, plan.exporter, plan.recipe, listed),
                unfused=source.unfused,
                fidelity_bits=source.fidelity_bits,
                fidelity=source.fidelity,
                formats=answer.formats,
                weight_bits=answer.weight_bits,
            )
            origin = Origin(model=context.located.name, made_utc=utc_now())
            write_atomically(scratch / GRAPH_FILE, msgspec.json.encode(graph))
            write_atomically(scratch / ORIGIN_FILE, msgspec.json.encode(origin))
    except _BuildFailed as error:
        return error.failure
    return ReadyGraph(plan.target, graph)


class _BuildFailed(Exception):
    """Leave the scratch folder, so that it is removed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
