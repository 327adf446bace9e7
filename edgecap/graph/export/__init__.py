"""Makes the fp32 graph of a Hugging Face folder, by one of two exporters, and takes along what lies beside it.

    optimum   Optimum: plain operators, many architectures
    genai     onnxruntime-genai's model builder: fused operators, fewer architectures

Neither runs code from the model's folder unless told to trust it, and neither fetches anything.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edgecap.graph.export import genai, optimum

EXPORTERS = {"optimum": optimum, "genai": genai}
CONFIG_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "config.json",
    "generation_config.json",
    "genai_config.json",
)


def recipe(exporter: str, task: str) -> str:
    """The exporter, its versions and what the graph is for. Raises UsageError where it is not installed."""
    return str(EXPORTERS[exporter].recipe(task))


def export_fp32(
    folder: Path,
    out: Path,
    trust_remote_code: bool,
    exporter: str = "optimum",
    task: str = optimum.TASK,
) -> Path:
    """Writes `model.onnx`, which is returned, and what the exporter saves beside it into `out`; `task` is Optimum's name.

    Raises UsageError where the exporter does not know the model.
    """
    return Path(EXPORTERS[exporter].export_fp32(folder, out, trust_remote_code, task))


def copy_config_files(folder: Path, exported: Path, out: Path) -> None:
    """Copies the tokenizer's files and configs into `out`: the model's own where it has them, else the exporter's."""
    for name in CONFIG_FILES:
        found = next((f / name for f in (folder, exported) if (f / name).is_file()), None)
        if found:
            shutil.copyfile(found, out / name)
