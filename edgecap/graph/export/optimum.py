"""Export a loaded model with Optimum. Owns optimum.

Optimum makes one fp32 graph, with KV cache for a decoder (`text-generation-with-past`).
`graph.finish` finishes it.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from edgecap.errors import UsageError

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
    return f"{task} fp32, v2; {', '.join(versions)}"


def export_model(model: Any, out: Path, task: str = TASK) -> Path:
    """Export a model of transformers; return the path of `model.onnx`.

    Saves configs and tokenizer beside it. Raises UsageError if Optimum does not know the model.
    """
    from optimum.exporters.onnx import onnx_export_from_model
    from optimum.exporters.utils import DisableCompileContextManager

    _check_task(model.config.model_type, task)
    model.config.use_cache = task.endswith("with-past")
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")  # the default one leaves out soft caps
    with DisableCompileContextManager():
        onnx_export_from_model(
            model,
            out,
            task=task,
            device="cpu",
            do_validation=False,
            no_post_process=True,  # it fails above 2 GiB
        )
    return out / "model.onnx"


def _check_task(model_type: str, task: str) -> None:
    import optimum.exporters.onnx.model_configs  # noqa: F401  registers the types
    from optimum.exporters.tasks import TasksManager

    known = TasksManager._SUPPORTED_MODEL_TYPE.get(model_type, {}).get("onnx", {})
    if task not in known:
        raise UsageError(
            f"Optimum does not export model type '{model_type}' for {task}; try --exporter genai"
        )
