"""Graphs of a model: taken from its folder or the cache, or exported and quantized now, once.

An artifact lies in the cache under a key of all that its bytes depend on; `building` makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgecap.analysis.assignment import GroupChoices
from edgecap.errors import UsageError
from edgecap.graph import finish
from edgecap.graph.variants import (
    CORPUS,
    NAMES,
    TUNED_RECIPE,
    computes_in_half,
    form_of,
    samples_of,
    tuned_recipe,
)
from edgecap.pipeline.building import GRAPH_FILE, BuildPlan, build_lock, described, get_or_run
from edgecap.pipeline.prepare import export_recipe, finish_of
from edgecap.pipeline.run_context import (
    ReadyGraph,
    RunContext,
    run_step,
    threads_of,
)
from edgecap.pipeline.worker import (
    Export,
    MakeTuned,
    MeasuredSensitivity,
    MeasureSensitivity,
    Optimize,
    Quantize,
)
from edgecap.provider_options import (
    BEHIND,
    FUSED_PROVIDERS,
    HALF_PROVIDERS,
    base_name,
    block_operators,
)
from edgecap.record import Failure
from edgecap.spec import CALIBRATION_CORPUS, DEFAULT_CORPUS, TUNED, CellSpec
from edgecap.storage import locks
from edgecap.storage.cache import ORIGIN_FILE, Origin
from edgecap.storage.files import (
    sha256_of,
    touch,
    utc_now,
    write_atomically,
)
from edgecap.text.corpus import Corpus, read_corpus
from edgecap.text.tokenizer import check_ids


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
    fp32 = get_or_build(context, source_of(cell))
    return fp32 if isinstance(fp32, Failure) else _get_or_quantize(context, cell, fp32)


def source_of(cell: CellSpec) -> CellSpec:
    """Return the fp32 cell whose graph a cell's is made from, and compared with.

    What computes in half precision is fused, also where a provider has the fused operators in half
    precision only. A provider that leaves them to the one behind it compiles plain fp16 itself.
    """
    name = base_name(cell.provider)
    is_half = computes_in_half(cell.precision, cell.provider)
    fused = is_half and name in HALF_PROVIDERS and (name not in BEHIND or cell.precision != "fp16")
    return CellSpec("fp32", FUSED_PROVIDERS[0] if fused else cell.provider)


def is_built(context: RunContext, cell: CellSpec) -> bool:
    """Return True if the graph of a cell is in the model's folder or in the cache.

    Files are not checked, as `get_or_build` does: this only tells how much there is to do.
    """
    own = {ready.graph.precision: ready for ready in context.graphs}
    if cell.precision in own:
        return True
    fp32 = own.get("fp32") or described(export_folder_of(context, source_of(cell).provider))
    if fp32 is None or cell.precision == "fp32":
        return fp32 is not None
    if cell.precision not in NAMES:
        return False
    return (_quantize_plan(context, cell, fp32).target / GRAPH_FILE).is_file()


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
    for cell in exported(cells):
        get_or_build(context, cell)


def exported(cells: Sequence[CellSpec]) -> list[CellSpec]:
    """Return the fp32 cells that others are made from, each once."""
    return list(dict.fromkeys(map(source_of, cells)))


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
    recipe = tuned_recipe(operators)
    key = _key_of(fp32, tuning.name, recipe, choice)
    plan = BuildPlan(
        context.home.cache / "variants" / f"{TUNED}-{key}",
        fp32.graph.exporter,
        recipe,
        lambda out: MakeTuned(folder=str(tuning), formats=formats, out=out, operators=operators),
        fp32.graph,
    )
    return get_or_run(context, cell, plan)


def get_or_fuse(context: RunContext, plain: ReadyGraph) -> ReadyGraph | Failure:
    """Return an fp32 graph of a folder with fused operators."""
    recipe = f"{plain.graph.recipe}; {finish.RECIPES[finish.FUSED]}"
    plan = BuildPlan(
        context.home.cache / "fused" / _key_of(plain, recipe, _tool_versions()),
        plain.graph.exporter,
        recipe,
        lambda out: Optimize(graph=str(plain.path), out=out),
    )
    return get_or_run(context, CellSpec("fp32", "cpu"), plan)


def tokenizer_folder(context: RunContext, provider: str) -> Path:
    """Return the folder with `tokenizer.json`.

    It is the model's own, or the export's, which converts a slow tokenizer. Raises UsageError if
    the converted one gives ids that the model does not have.
    """
    folder = context.located.path
    if (folder / "tokenizer.json").is_file() or context.located.kind == "onnx":
        return folder
    folders = export_folders(context, provider)
    for converted in folders:
        if (converted / "tokenizer.json").is_file():
            check_ids(converted, context.model.sizes.vocabulary)
            return converted
    return folders[0]


def export_folders(context: RunContext, provider: str) -> tuple[Path, ...]:
    """Return the cache folders of the fp32 exports that a provider's cells are made from."""
    return tuple(
        dict.fromkeys(export_folder_of(context, p) for p in (provider, FUSED_PROVIDERS[0]))
    )


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
    plan = BuildPlan(
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
    return get_or_run(context, cell, plan)


def _get_or_quantize(context: RunContext, cell: CellSpec, fp32: ReadyGraph) -> ReadyGraph | Failure:
    """Return a variant of an fp32 graph."""
    if cell.precision not in NAMES:
        message = f"edgecap tune makes {cell.precision}; no recipe does"
        return Failure(stage="vary", error="NoRecipe", message=message)
    return get_or_run(context, cell, _quantize_plan(context, cell, fp32))


def _quantize_plan(context: RunContext, cell: CellSpec, fp32: ReadyGraph) -> BuildPlan:
    """Plan a variant of an fp32 graph. One that is calibrated on text depends on that text."""
    form, positions = form_of(cell.precision, cell.provider), context.model.sizes.positions
    recipe = form.recipe
    text = _calibration_text(context, cell)
    angles = [f"angles of {positions} positions"] if form.arithmetic else []
    samples = [text.sha256, context.hashes.tokenizer] if text else []
    inputs = [recipe, *angles, _tool_versions(), *samples]
    return BuildPlan(
        context.home.cache / "variants" / f"{cell.precision}-{_key_of(fp32, *inputs)}",
        fp32.graph.exporter,
        _sampled_recipe(recipe, cell.precision, text),
        lambda out: Quantize(
            graph=str(fp32.path),
            weights=form.weights,
            arithmetic=form.arithmetic,
            out=out,
            corpus=text,
            tokenizer=str(tokenizer_folder(context, cell.provider)) if text else "",
            sample_tokens=context.model.horizon,
            positions=positions,
            operators=form.operators,
        ),
        fp32.graph,
    )


def _sampled_recipe(recipe: str, precision: str, text: Corpus | None) -> str:
    if text is None:
        return f"{recipe}; without samples" if samples_of(precision) else recipe
    return f"{recipe}; samples of {text.name} {text.sha256[:12]}"


def _calibration_text(context: RunContext, cell: CellSpec) -> Corpus | None:
    """Return the text that a variant takes samples from, or None.

    "corpus" is that of the run, or the bundled one if the run has none; of a quick run the whole
    text, so that it makes the graphs of a full run. The text that int4 is fitted to is never
    scored; without a tokenizer, int4 is made without it.
    """
    kind = samples_of(cell.precision)
    if kind == CORPUS and context.corpus.pieces:
        return read_corpus(context.spec.corpus, context.spec.documents, context.home.cache, 0.0)
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
