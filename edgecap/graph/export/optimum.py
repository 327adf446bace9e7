"""Export a Hugging Face folder with Optimum. Owns optimum and transformers.

Optimum makes one fp32 graph, with KV cache for a decoder (`text-generation-with-past`).
`graph.finish` finishes it. Downloads nothing, and runs no code from the model's folder without
--trust-remote-code.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

from edgecap.errors import UsageError
from edgecap.graph.export.transformers_check import check_known

TASK = "text-generation-with-past"  # of a decoder


def recipe(task: str = TASK) -> str:
    """Return the task and the exporter with the versions that decide its output.

    Raises UsageError if it is not installed.
    """
    try:
        versions = [
            f"{name} {importlib.metadata.version(name)}"
            for name in ("optimum-onnx", "transformers", "torch", "onnx")
        ]
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            f"exporting needs {error.name}: pip install 'edgecap[export]', "
            "or profile a folder made by `edgecap export`"
        ) from error
    return f"{task} fp32, v1; {', '.join(versions)}"


def export_fp32(folder: Path, out: Path, trust_remote_code: bool, task: str = TASK) -> Path:
    """Export `model.onnx` and the files that Optimum saves beside it; return the graph's path."""
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
        no_post_process=True,  # it fails above 2 GiB
        local_files_only=True,
        trust_remote_code=trust_remote_code,
    )
    return out / "model.onnx"
