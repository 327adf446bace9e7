"""Exports a Hugging Face folder to ONNX with Optimum. Owns optimum and transformers.

One fp32 graph as Optimum makes it, a decoder's with KV cache (`text-generation-with-past`); `optimize` finishes it. Runs no
code from the model's folder unless told to trust it, and fetches nothing.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

from edgecap.errors import UsageError
from edgecap.graph.export.transformers_check import check_known

TASK = "text-generation-with-past"  # of a decoder


def recipe(task: str = TASK) -> str:
    """The task, the exporter and its versions, which decide what comes out.

    Raises UsageError where it is not installed.
    """
    try:
        versions = [
            f"{name} {importlib.metadata.version(name)}"
            for name in ("optimum-onnx", "transformers", "torch", "onnx")
        ]
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            f"exporting needs {error.name}: pip install 'edgecap[export]', or profile a folder made by `edgecap export`"
        ) from error
    return f"{task} fp32, v1; {', '.join(versions)}"


def export_fp32(folder: Path, out: Path, trust_remote_code: bool, task: str = TASK) -> Path:
    """Writes `model.onnx`, which is returned, and what Optimum saves beside it into `out`."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from optimum.exporters.onnx import main_export

    check_known(folder, trust_remote_code)
    main_export(
        str(folder),
        str(out),
        task=task,
        device="cpu",
        dtype="fp32",
        do_validation=False,
        no_post_process=True,  # it ends at 2 GiB
        local_files_only=True,
        trust_remote_code=trust_remote_code,
    )
    return out / "model.onnx"
