"""Export a Hugging Face folder to an fp32 graph, by one of two exporters.

    optimum   Optimum: plain operators, many architectures
    genai     onnxruntime-genai's model builder: fused operators, fewer architectures

Neither downloads anything, or runs code from the model's folder without --trust-remote-code.
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
    """Return the exporter with its versions, and the task. Raises UsageError if not installed."""
    return str(EXPORTERS[exporter].recipe(task))


def export_fp32(
    folder: Path,
    out: Path,
    trust_remote_code: bool,
    exporter: str = "optimum",
    task: str = optimum.TASK,
) -> Path:
    """Export a model into `out` and return the path of `model.onnx`; `task` is Optimum's name.

    Raises UsageError if the exporter does not know the model.
    """
    return Path(EXPORTERS[exporter].export_fp32(folder, out, trust_remote_code, task))


def copy_config_files(folder: Path, exported: Path, out: Path) -> None:
    """Copy tokenizer files and configs into `out`: the model's own, else the exporter's."""
    for name in CONFIG_FILES:
        source = next((f / name for f in (folder, exported) if (f / name).is_file()), None)
        if source:
            shutil.copyfile(source, out / name)
