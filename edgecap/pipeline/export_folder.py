"""One portable folder: a graph for each precision, tokenizer, config, and a manifest of hashes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgecap import __version__
from edgecap.errors import UsageError
from edgecap.graph import export
from edgecap.model import source
from edgecap.pipeline.artifacts import cache_of_export, fused, get_or_build
from edgecap.pipeline.prepare import (
    ProgressCallback,
    ProgressEvent,
    ReadyGraph,
    RunContext,
    StepRunner,
    ignore_events,
    prepare,
)
from edgecap.pipeline.worker import in_child
from edgecap.provider_options import parse_provider
from edgecap.record import Failure, Graph
from edgecap.spec import DEFAULT_PRECISIONS, CellSpec, Spec
from edgecap.storage import files as store
from edgecap.storage.files import Paths


def export_folder(
    spec: Spec,
    out: Path,
    home: Paths | None = None,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
    provider: str = "cpu",
) -> dict[str, Graph]:
    """Writes one portable folder with a graph for each precision, tokenizer, config and a manifest of hashes.

    The graphs are finished for `provider`, which need not be there.
    """
    return _written(_prepared(spec, out, home, notice, run), out, parse_provider(provider).name)


def optimize_folder(
    spec: Spec,
    out: Path,
    home: Paths | None = None,
    notice: ProgressCallback = ignore_events,
    run: StepRunner = in_child,
) -> dict[str, Graph]:
    """The same of a folder of ONNX graphs, whose fp32 graph is fused first; variants are made from that.

    Raises UsageError where the folder holds no plain fp32 graph.
    """
    job = _prepared(spec, out, home, notice, run)
    if job.located.kind != "onnx":
        raise UsageError(
            f"{spec.model} is no folder of ONNX graphs; edgecap export fuses what it exports"
        )
    if job.model.encodes:
        raise UsageError(
            f"{spec.model} holds an encoder; what edgecap fuses is the attention of decoders"
        )
    plain = next((r for r in job.found if r.graph.precision == "fp32"), None)
    if plain is None:
        raise UsageError(
            f"{job.located.path} holds no fp32 graph; only that can be fused and checked"
        )
    ready = fused(job, plain)
    if isinstance(ready, Failure):
        raise UsageError(f"cannot fuse the graph: {ready.message}")
    only = job._replace(
        found=(ready,), spec=msgspec.structs.replace(spec, precisions=spec.precisions or ("fp32",))
    )
    return _written(only, out)


def _prepared(
    spec: Spec, out: Path, home: Paths | None, notice: ProgressCallback, run: StepRunner
) -> RunContext:
    if out.exists():
        raise UsageError(f"{out} is there already; give a new folder")
    store.check_writable(out)
    return prepare(spec, home or store.home(), notice, run).job


def _written(job: RunContext, out: Path, provider: str = "cpu") -> dict[str, Graph]:
    spec, notice = job.spec, job.notice
    graphs: dict[str, ReadyGraph] = {}
    precisions = spec.precisions or DEFAULT_PRECISIONS
    notice(ProgressEvent(None, f"{len(precisions)} graphs to make", total=len(precisions)))
    for precision in precisions:
        ready = get_or_build(job, CellSpec(precision, provider))
        if isinstance(ready, Failure):
            raise UsageError(f"cannot make {precision}: {ready.message}")
        graphs[precision] = ready
    with job.in_use, store.new_folder(out) as scratch:
        _write_portable(contents(job, graphs, provider), scratch)
    return {precision: ready.graph for precision, ready in graphs.items()}


class Contents(NamedTuple):
    """What a portable folder holds: where each file lies now, by its path in the folder, and the manifest's JSON."""

    files: dict[str, Path]
    manifest: bytes


def contents(job: RunContext, graphs: dict[str, ReadyGraph], provider: str) -> Contents:
    """The portable folder of some graphs, before anything is copied."""
    beside = _beside(job, graphs, provider)
    files = beside | {
        f"{p}/{f.path}": ready.folder / f.path
        for p, ready in graphs.items()
        for f in ready.graph.files
    }
    manifest = {
        "edgecap": __version__,
        "source": {
            "name": job.located.name,
            "revision": job.located.revision,
            "weights_sha256": job.hashes.weights,
            "tokenizer_sha256": job.hashes.tokenizer,
            "parameters": source.count_parameters(job.located.path),
        },
        "files": [
            {"path": name, "bytes": path.stat().st_size, "sha256": store.sha256_of_file(path)}
            for name, path in beside.items()
        ],
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
    return Contents(files, msgspec.json.format(msgspec.json.encode(manifest), indent=1))


def _beside(job: RunContext, graphs: dict[str, ReadyGraph], provider: str) -> dict[str, Path]:
    """Tokenizer, config and the like, from wherever they are."""
    folders = [job.located.path, *(r.folder for r in graphs.values())]
    if job.located.kind != "onnx":
        folders.append(cache_of_export(job, provider))
    places = {
        name: next((f / name for f in folders if (f / name).is_file()), None)
        for name in export.BESIDE
    }
    return {name: path for name, path in places.items() if path is not None}


def _write_portable(found: Contents, out: Path) -> None:
    for name, path in found.files.items():
        (out / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, out / name)
    store.write_atomically(out / source.MANIFEST, found.manifest)
