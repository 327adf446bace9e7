"""Prepare a run: find the model, inspect its graphs and the runtime, refuse what cannot be done.

All that can be refused is refused here, before the first measurement. `artifacts` builds graphs.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgecap.errors import UsageError
from edgecap.graph import export, finish
from edgecap.graph.onnx_file import GraphFacts, unknown_inputs
from edgecap.graph.variants import CORPUS, samples_of
from edgecap.machine.energy import meter
from edgecap.machine.energy.meter.cells import FIRST_S
from edgecap.machine.info import check_processors, check_threads
from edgecap.model.checkpoint import has_checkpoint, modules_with_weights
from edgecap.model.locate import LocatedModel, locate
from edgecap.model.manifest import MANIFEST
from edgecap.model.onnx_folder import onnx_files, unmeasured_graphs
from edgecap.model.weight_files import hash_model
from edgecap.names import shortened_list
from edgecap.pipeline.capabilities import Model, check_request, read_model
from edgecap.pipeline.run_context import (
    NO_SCORES,
    KnownScores,
    ProgressCallback,
    ProgressEvent,
    ReadyGraph,
    RunContext,
    StepRunner,
)
from edgecap.pipeline.tokenizer_check import check_tokenizer, require_tokenizer
from edgecap.pipeline.worker import Inspect, Inspected, ignore_progress
from edgecap.provider_options import FUSED_PROVIDERS, base_name, install_hint
from edgecap.record import Absent, Failure, File, Graph
from edgecap.spec import PRECISIONS, TUNED, CellSpec, Spec, cells, usual_cells
from edgecap.storage.files import Paths, check_cache, list_files, require_regular_file
from edgecap.text.corpus import Corpus

METER_AGE_S = 30.0
NO_TEXT = Corpus(name="", path="", sha256="", domains={})


class Prepared(NamedTuple):
    """Context of a run, the providers of the installed runtime, and the cells to measure."""

    context: RunContext
    providers: tuple[str, ...]
    cells: list[CellSpec]


def prepare(
    spec: Spec,
    home: Paths,
    notice: ProgressCallback,
    run: StepRunner,
    corpus: Corpus = NO_TEXT,
    scores: KnownScores = NO_SCORES,
) -> Prepared:
    """Find the model, inspect its graphs and the runtime, and list the cells.

    A run that only needs graphs gives no corpus. Raises UsageError if the request cannot be met.
    """
    notice(ProgressEvent(None, "inspecting model and runtime"))
    if spec.meter:
        column = _check_meter(Path(spec.meter), spec.meter_offset_s)
        notice(ProgressEvent(None, column))
    check_cache(home.cache)
    check_processors(spec.affinity)
    check_threads(spec.threads, spec.affinity)
    located = locate(spec.model, spec.revision)
    if located.kind == "onnx":  # such a folder is described by its graphs
        inspected, graphs = _inspect(located, run, spec)
        model = _read_model(spec, located, inspected.graphs)
    else:  # refuse by the config alone, before a child is started
        model = _read_model(spec, located)
        inspected, graphs = _inspect(located, run, spec)
    cell_specs = _cells(spec, located, inspected, graphs)
    _check_tokenizer(spec, located, model, inspected, corpus)
    if located.kind != "onnx":
        export.recipe(spec.exporter, model.exported_as)
    _tell_others(located, graphs, notice)
    hashes = hash_model(located, [f for ready in graphs for f in ready.graph.files])
    context = RunContext(
        spec, home, located, model, hashes, corpus, graphs, notice, run, {}, ExitStack(), scores
    )
    return Prepared(context, inspected.providers, cell_specs)


def _check_tokenizer(
    spec: Spec, located: LocatedModel, model: Model, inspected: Inspected, corpus: Corpus
) -> None:
    """Raise UsageError if the tokenizer does not fit the model, or is not there for the text."""
    needs_text = corpus.path or any(samples_of(name) == CORPUS for name in spec.precisions)
    if needs_text and not model.encodes:
        require_tokenizer(located, spec.trust_remote_code)
    texts = (d.text for d in corpus.documents) if corpus.path else iter(())
    check_tokenizer(located, model, inspected.graphs, texts, spec.protocol == "paper")


def _tell_others(
    located: LocatedModel, graphs: tuple[ReadyGraph, ...], notice: ProgressCallback
) -> None:
    """Name what lies in the folder and is not measured: other graphs, or weights beside a graph."""
    folder, names = located.path, [os.path.relpath(r.path, located.path) for r in graphs]
    others = unmeasured_graphs(folder, [ready.path for ready in graphs])
    weights = ["its safetensors"] if located.kind == "onnx" and has_checkpoint(folder) else []
    rest = [*weights, *modules_with_weights(folder), *others]
    if rest:
        left = shortened_list(rest)
        may_choose = others and not (folder / MANIFEST).is_file()
        choice = f" (to choose: --model {folder / others[0]})" if may_choose else ""
        used = shortened_list(names or ["its safetensors"])
        notice(ProgressEvent(None, f"{located.name}: {used}; not measured: {left}{choice}"))


def _read_model(spec: Spec, located: LocatedModel, graphs: tuple[GraphFacts, ...] = ()) -> Model:
    model = read_model(located, graphs)
    check_request(spec, model)
    return model


def export_recipe(spec: Spec, model: Model, provider: str) -> str:
    """Return the exporter with its versions, and how its graph is finished.

    Raises UsageError if the exporter is not installed.
    """
    exporter = export.recipe(spec.exporter, model.exported_as)
    return f"{exporter}; {finish.RECIPES[finish_of(spec, model, provider)]}"


def finish_of(spec: Spec, model: Model, provider: str) -> str:
    """Return how an export is finished for a provider: a key of `graph.finish.RECIPES`.

    The genai builder's graphs come fused; an encoder has nothing to fuse.
    """
    if not spec.optimize or spec.exporter == "genai" or model.encodes:
        return finish.PLAIN
    return finish.FUSED if base_name(provider) in FUSED_PROVIDERS else finish.BARE


def _check_meter(path: Path, offset_s: float | None) -> str:
    """Return what is read of the meter's file.

    Raises UsageError if it is no meter's, its energy is too coarse, or its last row is not recent.
    """
    require_regular_file(path, "--meter")
    try:
        rows = meter.read_meter_file(path)
    except OSError as error:
        raise UsageError(
            f"--meter {path}: {error.strerror}; start the meter's logging first"
        ) from None
    except ValueError as error:
        raise UsageError(f"--meter {path}: {error}") from None
    if len(rows.times) < 2:
        raise UsageError(f"--meter {path} has no two rows yet; start the meter's logging first")
    coarse = meter.too_coarse(rows)
    if coarse:
        raise UsageError(f"--meter {path}: {coarse}")
    slack = METER_AGE_S + 3 * meter.period_of(rows) + (meter.SEARCH_S if offset_s is None else 0.0)
    _check_age(path, rows.times[-1], time.time() + (offset_s or 0.0), slack)
    return f"joules of the meter are read from '{rows.column}'"


def _check_age(path: Path, last: float, now: float, slack: float) -> None:
    """Raise UsageError if a meter's last row is not within `slack` seconds of now."""
    age = now - last
    if abs(age) <= slack:
        return
    if last < FIRST_S:
        raise UsageError(f"--meter {path}: its times do not count from 1970: write ISO 8601")
    zone = abs(age - 1800 * round(age / 1800)) <= slack and abs(age) < 15 * 3600
    raise UsageError(
        f"--meter {path}: its last row is {abs(age):.0f} s "
        f"{'old' if age > 0 else 'ahead of this clock'}; "
        + ("if its times are of another time zone, write them with their offset; " if zone else "")
        + "let the meter write it while edgecap runs, or give --meter-offset"
    )


def _inspect(
    located: LocatedModel, run: StepRunner, spec: Spec
) -> tuple[Inspected, tuple[ReadyGraph, ...]]:
    """Return the providers of the runtime, and the graphs of an ONNX folder."""
    files = onnx_files(located.path, located.graph) if located.kind == "onnx" else []
    graphs = tuple(str(f.path) for f in files)
    step = Inspect(
        graphs=graphs, providers=spec.providers, energy=spec.energy == "require", meter=spec.meter
    )
    inspected = run(step, ignore_progress, spec.timeout_s)
    if not isinstance(inspected, Inspected):
        reason = f": {inspected.message}" if isinstance(inspected, Failure) else ""
        raise UsageError(
            f"ONNX Runtime cannot be used here with {', '.join(spec.providers)}{reason}"
        )
    ready = []
    for file, facts in zip(files, inspected.graphs, strict=True):
        unknown = unknown_inputs(facts.inputs)
        if unknown:
            raise UsageError(
                f"{file.path} has inputs that edgecap does not know: {', '.join(unknown[:6])}; "
                "give a decoder in one graph, as `edgecap export` and Optimum write it"
            )
        listed = file.files or list_files(file.path.parent, list(facts.files))
        graph = describe_graph(
            file.precision or facts.precision, file.exporter, file.recipe, listed
        )
        graph = msgspec.structs.replace(
            graph, fidelity_bits=file.fidelity_bits, fidelity=file.fidelity
        )
        ready.append(ReadyGraph(file.path.parent, graph))
    return inspected, tuple(ready)


def describe_graph(
    precision: str,
    exporter: str,
    recipe: str,
    files: tuple[File, ...],
) -> Graph:
    """Return the record of a graph before anything is measured."""
    return Graph(
        precision=precision,
        exporter=exporter,
        recipe=recipe,
        bytes=sum(f.bytes for f in files),
        files=files,
        divergence_bits=Absent(reason="not measured"),
    )


def _cells(
    spec: Spec, located: LocatedModel, inspected: Inspected, graphs: tuple[ReadyGraph, ...]
) -> list[CellSpec]:
    """List the cells to measure. Raise UsageError if a provider or a precision is not available."""
    for provider in spec.providers:
        _check_provider(provider, inspected)
    present = tuple(r.graph.precision for r in graphs)
    if TUNED in spec.precisions and TUNED not in present:
        raise UsageError(
            f"{located.name} has no tuned variant; edgecap tune writes a folder that holds one"
        )
    if located.kind != "onnx":
        given = cells(spec.precisions, spec.providers)
        return given or usual_cells(spec.providers)
    possible = {*present, *(PRECISIONS if "fp32" in present else ())}
    for precision in spec.precisions:
        if precision not in possible:
            raise UsageError(
                f"{located.path} holds {', '.join(present)}; "
                f"{precision} cannot be made from that, it needs an fp32 graph"
            )
    return cells(spec.precisions or present, spec.providers)


def _check_provider(provider: str, inspected: Inspected) -> None:
    """Raise UsageError if the provider does not work, or its energy is required and not counted."""
    name, available = base_name(provider), inspected.providers
    if name not in available or provider in inspected.refused:
        reason = inspected.refused.get(provider) or inspected.refused.get(name, "")
        advice = install_hint(name, reason, there=name in available)
        why = "; ".join(filter(None, (reason, advice)))
        raise UsageError(
            f"provider '{provider}' is not available in the installed ONNX Runtime"
            f"{f' ({why})' if why else ''}; others in it: {', '.join(available)}"
        )
    if provider in inspected.no_energy:
        raise UsageError(f"--energy require: {inspected.no_energy[provider]}")
