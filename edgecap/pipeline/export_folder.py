"""Write a portable folder: a graph for each precision, tokenizer, config, manifest of hashes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgecap import __version__
from edgecap.errors import UsageError
from edgecap.graph import export
from edgecap.model.manifest import MANIFEST
from edgecap.model.weight_files import count_parameters
from edgecap.pipeline.artifacts import build_or_refuse, export_folders, get_or_fuse
from edgecap.pipeline.prepare import prepare
from edgecap.pipeline.run_context import (
    ProgressCallback,
    ProgressEvent,
    ReadyGraph,
    RunContext,
    StepRunner,
    ignore_events,
)
from edgecap.pipeline.work import build_work
from edgecap.pipeline.worker import in_child
from edgecap.provider_options import parse_provider
from edgecap.record import Failure, Graph
from edgecap.spec import CellSpec, Spec, usual_precisions
from edgecap.storage.files import (
    Paths,
    check_writable,
    new_folder,
    resolve_paths,
    sha256_of_file,
    write_atomically,
)
from edgecap.units import counted


def export_folder(
    spec: Spec,
    out: Path,
    home: Paths | None = None,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
    provider: str = "cpu",
) -> dict[str, Graph]:
    """Export a model into the new folder `out`: graphs, tokenizer, config, manifest of hashes.

    The graphs are finished for `provider`, which need not be installed. Returns the graphs by
    precision. Raises UsageError if the folder exists or a graph cannot be made.
    """
    context = _prepare(spec, out, home, notice, run)
    return _write_folder(context, out, parse_provider(provider).name)


def optimize_folder(
    spec: Spec,
    out: Path,
    home: Paths | None = None,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
) -> dict[str, Graph]:
    """Fuse the fp32 graph of a folder of ONNX graphs, make variants of it, and write them to `out`.

    Raises UsageError if the folder holds no plain fp32 graph.
    """
    context = _prepare(spec, out, home, notice, run)
    if context.located.kind != "onnx":
        raise UsageError(
            f"{spec.model} is no folder of ONNX graphs; edgecap export fuses what it exports"
        )
    if context.model.encodes:
        raise UsageError(
            f"{spec.model} holds an encoder; what edgecap fuses is the attention of decoders"
        )
    plain = next((r for r in context.graphs if r.graph.precision == "fp32"), None)
    if plain is None:
        raise UsageError(
            f"{context.located.path} holds no fp32 graph; only that can be fused and checked"
        )
    ready = get_or_fuse(context, plain)
    if isinstance(ready, Failure):
        raise UsageError(f"cannot fuse the graph: {ready.message}")
    precisions = spec.precisions or ("fp32",)
    fused = context._replace(
        graphs=(ready,), spec=msgspec.structs.replace(spec, precisions=precisions)
    )
    return _write_folder(fused, out)


def _prepare(
    spec: Spec, out: Path, home: Paths | None, notice: ProgressCallback, run: StepRunner
) -> RunContext:
    if out.exists():
        raise UsageError(f"{out} is there already; give a new folder")
    check_writable(out)
    return prepare(spec, home or resolve_paths(), notice, run).context


def _write_folder(context: RunContext, out: Path, provider: str = "cpu") -> dict[str, Graph]:
    spec, notice = context.spec, context.notice
    graphs: dict[str, ReadyGraph] = {}
    present = tuple(ready.graph.precision for ready in context.graphs)
    precisions = spec.precisions or present or usual_precisions(provider)
    work = build_work(context, [CellSpec(precision, provider) for precision in precisions])
    notice(ProgressEvent(None, f"{counted(len(precisions), 'graph')} to make", work=work))
    for precision in precisions:
        graphs[precision] = build_or_refuse(context, CellSpec(precision, provider))
    with context.in_use:
        write_graphs(context, graphs, out, provider)
    return {precision: ready.graph for precision, ready in graphs.items()}


def write_graphs(
    context: RunContext, graphs: dict[str, ReadyGraph], out: Path, provider: str
) -> None:
    """Write graphs, and the files beside them, to the new folder `out`."""
    with new_folder(out) as scratch:
        _copy(contents(context, graphs, provider), scratch)


class Contents(NamedTuple):
    """Contents of a portable folder.

    `files` maps a path in the folder to the place of the file now; `manifest` is JSON.
    """

    files: dict[str, Path]
    manifest: bytes


def contents(context: RunContext, graphs: dict[str, ReadyGraph], provider: str) -> Contents:
    """List the contents of a portable folder, before anything is copied."""
    beside = _files_beside(context, graphs, provider)
    places = beside | {
        f"{p}/{f.path}": ready.folder / f.path
        for p, ready in graphs.items()
        for f in ready.graph.files
    }
    manifest = {
        "edgecap": __version__,
        "source": {
            "name": context.located.name,
            "revision": context.located.revision,
            "weights_sha256": context.hashes.weights,
            "tokenizer_sha256": context.hashes.tokenizer,
            "parameters": count_parameters(context.located.path, context.located.kind),
        },
        "files": [
            {"path": name, "bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
            for name, path in beside.items()
        ],
        "graphs": [
            {
                "precision": precision,
                "folder": precision,
                "exporter": ready.graph.exporter,
                "recipe": ready.graph.recipe,
                "files": msgspec.to_builtins(ready.graph.files),
                "fidelity_bits": msgspec.to_builtins(ready.graph.fidelity_bits),
                "fidelity": msgspec.to_builtins(ready.graph.fidelity),
            }
            for precision, ready in graphs.items()
        ],
    }
    return Contents(places, msgspec.json.format(msgspec.json.encode(manifest), indent=1))


def _files_beside(
    context: RunContext, graphs: dict[str, ReadyGraph], provider: str
) -> dict[str, Path]:
    """Find tokenizer, config and the like: in the model, beside a graph, or in the export."""
    folders = [context.located.path, *(r.folder for r in graphs.values())]
    if context.located.kind != "onnx":
        folders += export_folders(context, provider)
    places = {
        name: next((f / name for f in folders if (f / name).is_file()), None)
        for name in export.CONFIG_FILES
    }
    return {name: path for name, path in places.items() if path is not None}


def _copy(folder: Contents, out: Path) -> None:
    for name, path in folder.files.items():
        (out / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, out / name)
    write_atomically(out / MANIFEST, folder.manifest)
