"""Exports a Hugging Face folder to ONNX with Optimum. Owns optimum and transformers.

One fp32 graph with KV cache (`text-generation-with-past`); a tied embedding is stored once. Runs no
code from the model's folder unless told to trust it, and fetches nothing.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

from edgecap.errors import UsageError
from edgecap.graph.read import open_graph, write_graph
from edgecap.graph.ties import tie

TASK = "text-generation-with-past"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "config.json",
    "generation_config.json",
)


def recipe() -> str:
    """The exporter and its versions, which decide what comes out.

    Raises UsageError where it is not installed.
    """
    try:
        versions = [
            f"{name} {importlib.metadata.version(name)}" for name in ("optimum-onnx", "transformers", "torch", "onnx")
        ]
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            f"exporting needs {error.name}: pip install 'edgecap[export]', or profile a folder made by `edgecap export`"
        ) from error
    return f"{TASK} fp32, tied once, v1; {', '.join(versions)}"


def export_fp32(folder: Path, out: Path, trust_remote_code: bool) -> list[str]:
    """Writes `model.onnx` and the tokenizer's files into `out`; returns the names of the graph's files."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from optimum.exporters.onnx import main_export

    _check_known(folder, trust_remote_code)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        main_export(
            str(folder),
            scratch,
            task=TASK,
            device="cpu",
            dtype="fp32",
            do_validation=False,
            no_post_process=True,  # it ends at 2 GiB; tying is done below
            local_files_only=True,
            trust_remote_code=trust_remote_code,
        )
        model = open_graph(Path(scratch) / "model.onnx")
        tie(model)
        names = write_graph(model, out)
        _take_tokenizer(folder, Path(scratch), out)
    return names


def _check_known(folder: Path, trust_remote_code: bool) -> None:
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (ValueError, KeyError, OSError) as error:
        reason = str(error).split("\n")[0][:200]
        raise UsageError(f"transformers does not know the model in {folder}: {reason}") from error


def _take_tokenizer(folder: Path, exported: Path, out: Path) -> None:
    """The model's own files where it has them, else those that Optimum saved."""
    for name in TOKENIZER_FILES:
        found = next((f / name for f in (folder, exported) if (f / name).is_file()), None)
        if found:
            shutil.copyfile(found, out / name)
