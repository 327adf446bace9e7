"""Graphs of a model: taken from its folder or the cache, or exported and quantized now, once.

An artifact lies in the cache under a key of all that its bytes depend on. One process builds it
under a lock; processes that use it mark it, so that nobody prunes it meanwhile.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgecap.analysis.assignment import GroupChoices
from edgecap.errors import UsageError
from edgecap.graph import finish
from edgecap.graph.variants import CORPUS, RECIPES, SAMPLED, TUNED_RECIPE, recipe_of
from edgecap.pipeline.prepare import describe_graph, export_recipe, finish_of
from edgecap.pipeline.run_context import (
    ProgressEvent,
    ReadyGraph,
    RunContext,
    run_step,
    threads_of,
)
from edgecap.pipeline.worker import (
    BuiltGraph,
    Export,
    MakeTuned,
    MeasuredSensitivity,
    MeasureSensitivity,
    Optimize,
    Quantize,
    Step,
)
from edgecap.provider_options import block_operators
from edgecap.record import Failure, Graph
from edgecap.spec import CALIBRATION_CORPUS, DEFAULT_CORPUS, TUNED, CellSpec
from edgecap.storage import locks
from edgecap.storage.cache import ORIGIN_FILE, Origin
from edgecap.storage.files import (
    list_files,
    new_folder,
    sha256_of,
    touch,
    utc_now,
    write_atomically,
)
from edgecap.text.corpus import Corpus, read_corpus
from edgecap.text.tokenizer import check_ids

GRAPH_FILE = "graph.json"  # the description of a cached graph, beside it


def get_or_build(context: RunContext, cell: CellSpec) -> ReadyGraph | Failure:
    """Return the graph of a cell: from the model's folder, from the cache, or built now."""
    for ready in context.graphs:
        if ready.graph.precision == cell.precision:
            return ready
    if not can_be_fp32(context):
        present = ", ".join(r.graph.precision for r in context.graphs)
        message = f"the folder holds {present}, and no fp32 to make it from"
        return Failure(stage="vary", error="NoSource", message=message)
    if cell.precision == "fp32":
        return _get_or_export(context, cell)
    fp32 = get_or_build(context, CellSpec("fp32", cell.provider))
    return fp32 if isinstance(fp32, Failure) else _get_or_quantize(context, cell, fp32)


def build_or_refuse(context: RunContext, cell: CellSpec) -> ReadyGraph:
    """Return the graph of a cell. Raises UsageError if it cannot be built."""
    graph = get_or_build(context, cell)
    if isinstance(graph, Failure):
        raise UsageError(f"cannot make {cell.precision}: {graph.message}")
    return graph


def export_first(context: RunContext, cells: Sequence[CellSpec]) -> None:
    """Export the model before anything is measured, so that it is refused at once if it must be.

    A run that may leave variants out exports when the first variant needs it.
    """
    if context.located.kind == "onnx" or context.spec.skip_unfit:
        return
    for provider in dict.fromkeys(cell.provider for cell in cells):
        get_or_build(context, CellSpec("fp32", provider))


def can_be_fp32(context: RunContext) -> bool:
    """Return True if there is an fp32 graph, or a model to export it from."""
    is_fp32 = (r.graph.precision == "fp32" for r in context.graphs)
    return context.located.kind != "onnx" or any(is_fp32)


def measure_sensitivity(
    context: RunContext, cell: CellSpec, fp32: ReadyGraph
) -> tuple[Path, tuple[GroupChoices, ...]]:
    """Measure what each group of an fp32 graph's matrices loses and costs in each format.

    Returns the folder of roundings in the cache as well, where an earlier run goes on. Raises
    UsageError if the model has no tokenizer, or if it fails.
    """
    text = read_corpus(CALIBRATION_CORPUS, None, context.home.cache)
    tokenizer = tokenizer_folder(context, cell.provider)
    key = _key_of(fp32, TUNED_RECIPE, text.sha256, context.hashes.tokenizer, _tool_versions())
    folder = context.home.cache / "tunings" / key
    with build_lock(context, cell, folder, f"tunes {context.located.name}"):
        context.in_use.enter_context(locks.usage_mark(folder))
        folder.mkdir(parents=True, exist_ok=True)
        touch(folder)
        if not (folder / ORIGIN_FILE).is_file():
            origin = Origin(model=context.located.name, made_utc=utc_now())
            write_atomically(folder / ORIGIN_FILE, msgspec.json.encode(origin))
        step = MeasureSensitivity(
            graph=str(fp32.path),
            folder=str(folder),
            corpus=text,
            tokenizer=str(tokenizer),
            positions=context.model.horizon,
            provider=cell.provider,
            threads=threads_of(context.spec),
            affinity=context.spec.affinity,
        )
        answer = run_step(context, cell, step, MeasuredSensitivity)
    if isinstance(answer, Failure):
        raise UsageError(f"cannot measure the sensitivity: {answer.message}")
    return folder, answer.groups


def get_or_tune(
    context: RunContext, cell: CellSpec, fp32: ReadyGraph, tuning: Path, formats: dict[str, str]
) -> ReadyGraph | Failure:
    """Return a variant of an fp32 graph with a format for each matrix, from a tuning folder."""
    choice = msgspec.json.encode(formats, order="sorted").decode()
    operators = block_operators(cell.provider)
    recipe = recipe_of(TUNED, operators)
    key = _key_of(fp32, tuning.name, recipe, choice)
    plan = _BuildPlan(
        context.home.cache / "variants" / f"{TUNED}-{key}",
        fp32.graph.exporter,
        recipe,
        lambda out: MakeTuned(folder=str(tuning), formats=formats, out=out, operators=operators),
        fp32.graph,
    )
    return _get_or_run(context, cell, plan)


def get_or_fuse(context: RunContext, plain: ReadyGraph) -> ReadyGraph | Failure:
    """Return an fp32 graph of a folder with fused operators."""
    recipe = f"{plain.graph.recipe}; {finish.RECIPES[finish.FUSED]}"
    plan = _BuildPlan(
        context.home.cache / "fused" / _key_of(plain, recipe, _tool_versions()),
        plain.graph.exporter,
        recipe,
        lambda out: Optimize(graph=str(plain.path), out=out),
    )
    return _get_or_run(context, CellSpec("fp32", "cpu"), plan)


def tokenizer_folder(context: RunContext, provider: str) -> Path:
    """Return the folder with `tokenizer.json`.

    It is the model's own, or the export's, which converts a slow tokenizer. Raises UsageError if
    the converted one gives ids that the model does not have.
    """
    folder = context.located.path
    if (folder / "tokenizer.json").is_file() or context.located.kind == "onnx":
        return folder
    converted = export_folder_of(context, provider)
    if (converted / "tokenizer.json").is_file():
        check_ids(converted, context.model.sizes.vocabulary)
    return converted


def export_folder_of(context: RunContext, provider: str) -> Path:
    """Return the cache folder of the fp32 export for a provider."""
    config = msgspec.json.encode(context.located.config, order="sorted")
    parts = (
        context.hashes.weights,
        context.hashes.tokenizer,
        export_recipe(context.spec, context.model, provider),
        _tool_versions(),
        str(context.spec.trust_remote_code),
    )
    key = sha256_of(config, *(p.encode() for p in parts))[:24]
    return context.home.cache / "exports" / key


def _get_or_export(context: RunContext, cell: CellSpec) -> ReadyGraph | Failure:
    spec, model = context.spec, context.model
    plan = _BuildPlan(
        export_folder_of(context, cell.provider),
        spec.exporter,
        export_recipe(spec, model, cell.provider),
        lambda out: Export(
            folder=str(context.located.path),
            out=out,
            trust_remote_code=spec.trust_remote_code,
            exporter=spec.exporter,
            task=model.exported_as,
            finish=finish_of(spec, model, cell.provider),
        ),
    )
    return _get_or_run(context, cell, plan)


def _get_or_quantize(context: RunContext, cell: CellSpec, fp32: ReadyGraph) -> ReadyGraph | Failure:
    """Return a variant of an fp32 graph. One that is calibrated on text depends on that text."""
    if cell.precision not in RECIPES:
        message = f"edgecap tune makes {cell.precision}; no recipe does"
        return Failure(stage="vary", error="NoRecipe", message=message)
    operators = block_operators(cell.provider)
    recipe = recipe_of(cell.precision, operators)
    text = _calibration_text(context, cell)
    inputs = [recipe, _tool_versions(), *([text.sha256, context.hashes.tokenizer] if text else [])]
    plan = _BuildPlan(
        context.home.cache / "variants" / f"{cell.precision}-{_key_of(fp32, *inputs)}",
        fp32.graph.exporter,
        _sampled_recipe(recipe, cell.precision, text),
        lambda out: Quantize(
            graph=str(fp32.path),
            precision=cell.precision,
            out=out,
            corpus=text,
            tokenizer=str(tokenizer_folder(context, cell.provider)) if text else "",
            positions=context.model.horizon,
            operators=operators,
        ),
        fp32.graph,
    )
    return _get_or_run(context, cell, plan)


def _sampled_recipe(recipe: str, precision: str, text: Corpus | None) -> str:
    if text is None:
        return f"{recipe}; without samples" if precision in SAMPLED else recipe
    return f"{recipe}; samples of {text.name} {text.sha256[:12]}"


def _calibration_text(context: RunContext, cell: CellSpec) -> Corpus | None:
    """Return the text that a variant takes samples from, or None.

    "corpus" is that of the run, or the bundled one if the run has none. The text that int4 is
    fitted to is never scored; without a tokenizer, int4 is made without it.
    """
    kind = SAMPLED.get(cell.precision)
    if kind == CORPUS and context.corpus.path:
        return context.corpus
    if kind == CORPUS:
        return read_corpus(DEFAULT_CORPUS, None, context.home.cache)
    if kind and (tokenizer_folder(context, cell.provider) / "tokenizer.json").is_file():
        return read_corpus(CALIBRATION_CORPUS, None, context.home.cache)
    return None


def _key_of(source: ReadyGraph, *inputs: str) -> str:
    weights = [f"{f.path} {f.sha256}" for f in source.graph.files]
    return sha256_of(*(text.encode() for text in (*weights, *inputs)))[:24]


def _tool_versions() -> str:
    """Return the versions of the libraries that make variants."""
    from edgecap.machine.info import library_versions

    return ", ".join(f"{k} {v}" for k, v in library_versions().items() if k.startswith("onnx"))


# --- the cache --------------------------------------------------------------------------------


class _BuildPlan(NamedTuple):
    """Plan to build a graph: its place in the cache, its description, and the step that makes it.

    A variant has what is known of the fp32 graph `source` that it is made from.
    """

    target: Path
    exporter: str
    recipe: str
    step: Callable[[str], Step]
    source: Graph | None = None


def _get_or_run(context: RunContext, cell: CellSpec, plan: _BuildPlan) -> ReadyGraph | Failure:
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


def _read_cached(target: Path) -> ReadyGraph | None:
    """Return a graph of an earlier run if each of its files is whole; else clear the folder."""
    try:
        graph = msgspec.json.decode((target / GRAPH_FILE).read_bytes(), type=Graph)
        if list_files(target, [f.path for f in graph.files]) == graph.files:
            touch(target / GRAPH_FILE)
            return ReadyGraph(target, graph)
    except (OSError, msgspec.DecodeError, RecursionError):
        pass
    shutil.rmtree(target, ignore_errors=True)
    return None


def _build(context: RunContext, cell: CellSpec, plan: _BuildPlan) -> ReadyGraph | Failure:
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
