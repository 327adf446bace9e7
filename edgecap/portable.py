"""One portable folder: a graph for each precision, tokenizer, config, and a manifest of hashes."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from edgecap import __version__, export, source, store
from edgecap.errors import UsageError
from edgecap.job import Event, Job, Notice, Ready, Run, prepare, unheard
from edgecap.making import cache_of_export, fused, graph_of
from edgecap.provider_options import parse_provider
from edgecap.record import Failure, Graph
from edgecap.spec import DEFAULT_PRECISIONS, CellSpec, Spec
from edgecap.store import Home
from edgecap.worker import in_child


def export_folder(
    spec: Spec,
    out: Path,
    home: Home | None = None,
    notice: Notice = unheard,
    run: Run = in_child,
    provider: str = "cpu",
) -> dict[str, Graph]:
    """Writes one portable folder with a graph for each precision, tokenizer, config and a manifest of hashes.

    The graphs are finished for `provider`, which need not be there.
    """
    return _written(_prepared(spec, out, home, notice, run), out, parse_provider(provider).name)


def optimize_folder(
    spec: Spec, out: Path, home: Home | None = None, notice: Notice = unheard, run: Run = in_child
) -> dict[str, Graph]:
    """The same of a folder of ONNX graphs, whose fp32 graph is fused first; variants are made from that.

    Raises UsageError where the folder holds no plain fp32 graph.
    """
    job = _prepared(spec, out, home, notice, run)
    if job.located.kind != "onnx":
        raise UsageError(f"{spec.model} is no folder of ONNX graphs; edgecap export fuses what it exports")
    if job.model.encodes:
        raise UsageError(f"{spec.model} holds an encoder; what edgecap fuses is the attention of decoders")
    plain = next((r for r in job.found if r.graph.precision == "fp32"), None)
    if plain is None:
        raise UsageError(f"{job.located.path} holds no fp32 graph; only that can be fused and checked")
    ready = fused(job, plain)
    if isinstance(ready, Failure):
        raise UsageError(f"cannot fuse the graph: {ready.message}")
    only = job._replace(found=(ready,), spec=msgspec.structs.replace(spec, precisions=spec.precisions or ("fp32",)))
    return _written(only, out)


def _prepared(spec: Spec, out: Path, home: Home | None, notice: Notice, run: Run) -> Job:
    if out.exists():
        raise UsageError(f"{out} is there already; give a new folder")
    store.check_writable(out)
    return prepare(spec, home or store.home(), notice, run).job


def _written(job: Job, out: Path, provider: str = "cpu") -> dict[str, Graph]:
    spec, notice = job.spec, job.notice
    graphs: dict[str, Ready] = {}
    precisions = spec.precisions or DEFAULT_PRECISIONS
    notice(Event(None, f"{len(precisions)} graphs to make", total=len(precisions)))
    for precision in precisions:
        ready = graph_of(job, CellSpec(precision, provider))
        if isinstance(ready, Failure):
            raise UsageError(f"cannot make {precision}: {ready.message}")
        graphs[precision] = ready
    with job.in_use, store.new_folder(out) as scratch:
        _write_portable(job, graphs, scratch, provider)
    return {precision: ready.graph for precision, ready in graphs.items()}


def _write_portable(job: Job, graphs: dict[str, Ready], out: Path, provider: str) -> None:
    folders = [job.located.path, *(r.folder for r in graphs.values())]
    if job.located.kind != "onnx":
        folders.append(cache_of_export(job, provider))
    beside: list[str] = []
    for name in export.BESIDE:
        found = next((f / name for f in folders if (f / name).is_file()), None)
        if found:
            shutil.copyfile(found, out / name)
            beside.append(name)
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
        "files": msgspec.to_builtins(store.list_files(out, beside)),
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
