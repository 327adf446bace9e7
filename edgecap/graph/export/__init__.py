"""Export a Hugging Face folder to an fp32 graph, by one of two exporters.

    optimum    Optimum: plain operators, many architectures
    genai      onnxruntime-genai's model builder: fused operators, fewer architectures
    framework  Load the model with transformers, check its weights, compute with it.
    dialect    Translate configs that transformers 5 saved.

Nothing is downloaded, and no code from the model's folder runs without --trust-remote-code.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from edgecap.graph.export import framework, genai, optimum
from edgecap.graph.export.dialect import readable_folder
from edgecap.graph.export.framework import FrameworkModel

TASK = optimum.TASK
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
    compute: Callable[[FrameworkModel], None] | None = None,
) -> Path:
    """Export a model into `out` and return the path of `model.onnx`; `task` is Optimum's name.

    `compute` is called with the model as transformers computes it, before it is exported. Raises
    UsageError if transformers or the exporter does not know the model, or if the files do not hold
    the weights that it has.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with readable_folder(folder) as readable:
        model = framework.load_model(
            readable, task, trust_remote_code, weights=exporter == "optimum" or compute is not None
        )
        if compute is not None:
            with FrameworkModel(model) as computing:
                compute(computing)
        if exporter == "optimum":
            return optimum.export_model(model, out, task)
        del model  # the builder loads it again
        return genai.export_folder(readable, out, trust_remote_code)


def copy_config_files(folder: Path, exported: Path, out: Path) -> None:
    """Copy tokenizer files and configs into `out`: the model's own, else the exporter's."""
    for name in CONFIG_FILES:
        source = next((f / name for f in (folder, exported) if (f / name).is_file()), None)
        if source:
            shutil.copyfile(source, out / name)
