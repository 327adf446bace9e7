"""Models, graphs and folders that are made once for all processes of a test run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from conftest import REFERENCE, build_model
from fakes import scripted
from families import small_config, torch_kit
from filelock import FileLock

from edgecap.graph.export import export_fp32
from edgecap.graph.export.optimum import TASK
from edgecap.machine.info import default_threads
from edgecap.pipeline.export_folder import export_folder
from edgecap.pipeline.peaks import peaks_of
from edgecap.pipeline.run_context import ignore_events
from edgecap.pipeline.worker import BuiltGraph, Export, ignore_progress, in_child
from edgecap.spec import Spec
from edgecap.storage.files import Paths, resolve_paths


def with_peaks(cache: Path) -> Path:
    """Let a cache know the peaks of the machine, as a stand-in tells them."""
    peaks_of(Paths(cache, cache), "cpu", default_threads(), ignore_events, scripted(None))
    return cache


def once(path: Path, make: Callable[[Path], object]) -> Path:
    """Return `path`; if it is not there, `make` a folder of that name first.

    Other processes wait meanwhile, and find the whole folder or none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            scratch = path.parent / "unfinished" / path.name
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.parent.mkdir(exist_ok=True)
            make(scratch)
            scratch.rename(path)
    return path


def small(kind: str, cache: Path) -> Path:
    """Return a model of random weights of one of the kinds in conftest.SMALL."""
    return once(cache.parent / "models" / kind, lambda folder: build_model(folder, kind))


def exported(model, cache: Path, precisions=("fp32",), fused=True) -> Path:
    """Return a portable folder of a model."""
    name = f"{'fused' if fused else 'plain'}-{Path(model).name}-{'-'.join(precisions)}"
    spec = Spec(model=str(model), precisions=precisions, optimize=fused)
    return once(
        cache.parent / "exports" / name, lambda out: export_folder(spec, out, resolve_paths(cache))
    )


def stepped(model, cache: Path, finish="fused", exporter="optimum") -> tuple[Path, BuiltGraph]:
    """Return the folder that the export step writes in a child, and what the child answers."""

    def make(out):
        out.mkdir()
        step = Export(
            folder=str(model),
            out=str(out),
            trust_remote_code=False,
            exporter=exporter,
            task=TASK,
            finish=finish,
        )
        answer = in_child(step, ignore_progress, 600)
        (out / "answer.json").write_bytes(msgspec.json.encode(answer))

    folder = once(cache.parent / "steps" / f"{exporter}-{finish}-{Path(model).name}", make)
    return folder, msgspec.json.decode((folder / "answer.json").read_bytes(), type=BuiltGraph)


def built_by_genai(precision: str, cache: Path) -> Path:
    """Return the reference model as onnxruntime-genai's own command writes it."""

    def make(out):
        words = ["-i", REFERENCE, "-o", out, "-p", precision, "-e", "cpu", "-c", out.parent / "c"]
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]

    return once(cache.parent / "genai" / precision, make)


def family(kind: str, cache: Path) -> Path:
    """Return a folder with a tiny model of a family, `hf`, and its plain export, `plain`."""
    return once(cache.parent / "families" / kind, lambda out: export_family(out, kind))


def export_family(out: Path, kind: str, **changes) -> None:
    """Write a tiny model of a family, its config changed, to `out`/hf; export it to `out`/plain."""
    (out / "plain").mkdir(parents=True)
    with torch_kit() as (torch, transformers):
        torch.manual_seed(0)
        config = small_config(transformers, kind)
        for name, value in changes.items():
            setattr(config, name, value)
        transformers.AutoModelForCausalLM.from_config(config).float().save_pretrained(out / "hf")
        transformers.AutoTokenizer.from_pretrained(REFERENCE).save_pretrained(out / "hf")
        export_fp32(out / "hf", out / "plain", False)
