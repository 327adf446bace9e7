"""Export a Hugging Face folder with onnxruntime-genai's model builder. Owns onnxruntime_genai.

The builder makes one fp32 graph with KV cache and fused attention. It stores a tied embedding as
the matrix of the LM head; here that becomes the table to gather from, as with the other exporter.
`graph.finish` finishes the graph. Downloads nothing.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecap.errors import UsageError
from edgecap.graph.export.optimum import TASK
from edgecap.graph.onnx_file import inspect_graph, open_graph, write_graph
from edgecap.graph.tied_weights import tie_weights, untie_weights
from edgecap.machine.info import package_versions
from edgecap.names import one_line

if TYPE_CHECKING:
    import onnx

# Wheels of one module: one of them is installed.
WHEELS = ("onnxruntime-genai-cuda", "onnxruntime-genai", "onnxruntime-genai-directml")
TOOLS = ("transformers", "torch", "onnx", "onnx-ir")
INSTALL = "pip install 'edgecap[genai]'"
ALTERNATIVE = "try --exporter optimum"

CONFIG = "genai_config.json"
CACHE_WIDTH = "kv_cache_dim"
INPUTS = ("input_ids", "attention_mask", "position_ids", "past_key_values.")  # of a decoder of text
# GroupQueryAttention rotates heads, and halves of the rotated part, in multiples of these.
HEAD_STEP, ANGLE_STEP = 16, 8

# Errors of the builder on configs that it does not expect: KeyError on SmolLM3.
CRASHES = (AssertionError, AttributeError, KeyError, TypeError, ValueError)


def recipe(task: str = TASK) -> str:
    """Return the builder with the versions that decide its output.

    Raises UsageError if it is not installed.
    """
    builder, tools = package_versions(WHEELS), package_versions(TOOLS)
    missing = [*([] if builder else ["onnxruntime-genai"]), *(n for n in TOOLS if n not in tools)]
    if missing:
        raise UsageError(
            f"--exporter genai needs {', '.join(missing)}: {INSTALL}, or {ALTERNATIVE}"
        )
    return f"genai builder fp32, v2; {', '.join(f'{n} {v}' for n, v in (builder | tools).items())}"


def export_folder(folder: Path, out: Path, trust_remote_code: bool) -> Path:
    """Export `model.onnx`, `genai_config.json` and the tokenizer's files; return the graph's path.

    Raises UsageError if the builder does not know the model, or if the graph is no fp32 decoder of
    text that the runtime can run.
    """
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        built = Path(scratch) / "built"
        _build(folder, built, Path(scratch) / "cache", trust_remote_code)
        model = _finish(folder, built)
        for file in [f for f in built.iterdir() if not f.name.startswith("model.onnx")]:
            shutil.move(file, out / file.name)
    return out / write_graph(model, out)[0]


# --- the builder ------------------------------------------------------------------------------


def _build(folder: Path, built: Path, cache: Path, trust_remote_code: bool) -> None:
    library = _library()
    arguments = (None, str(folder), str(built), "fp32", "cpu", str(cache))
    options = library.parse_extra_options(
        *arguments, ["hf_token=false", f"hf_remote={str(trust_remote_code).lower()}"]
    )
    config = options["hf_details"]["hf_config"]
    description = _describe(folder, config)
    try:
        library.create_model(*arguments, **options)
    except NotImplementedError as error:
        raise UsageError(
            f"onnxruntime-genai's builder does not know {description}; {ALTERNATIVE}"
        ) from error
    except CRASHES as error:
        reason = one_line(f"{type(error).__name__} {error}", 200)
        raise UsageError(
            f"onnxruntime-genai's builder fails on {description}: {reason}; {ALTERNATIVE}"
        ) from error


def _library() -> Any:
    try:
        from onnxruntime_genai.models import builder
    except ImportError as error:
        raise UsageError(
            f"--exporter genai cannot load {error.name or error}: {INSTALL}, or {ALTERNATIVE}"
        ) from error
    return builder


def _describe(folder: Path, config: Any) -> str:
    """Name the model for messages. Raise UsageError if its config names no class."""
    name = next(iter(config.architectures or ()), None)  # the builder decides by this
    if name is None:
        raise UsageError(f"{folder / 'config.json'} names no 'architectures'; {ALTERNATIVE}")
    return f"model_type '{config.model_type}' ({name} in {folder})"


# --- its graph --------------------------------------------------------------------------------


def _finish(folder: Path, built: Path) -> onnx.ModelProto:
    """Set the width of the cache and store a tied embedding as a table.

    Raises UsageError if the graph is no fp32 decoder of text.
    """
    facts = inspect_graph(built / "model.onnx")
    unknown = [name for name in facts.inputs if not name.startswith(INPUTS)]
    # The builder exports only parts of some models, and quantizes others by default.
    if unknown or facts.precision != "fp32":
        problem = f"asks for {', '.join(unknown)}" if unknown else f"is {facts.precision}, not fp32"
        raise UsageError(f"the builder's graph of {folder} {problem}; {ALTERNATIVE}")
    model = open_graph(built / "model.onnx")
    head_size = json.loads((built / CONFIG).read_text("utf-8"))["model"]["decoder"]["head_size"]
    _check_rotary(folder, model, head_size)
    _set_cache_width(model, head_size)
    untie_weights(model)
    tie_weights(model)
    return model


def _check_rotary(folder: Path, model: onnx.ModelProto, head_size: int) -> None:
    from onnx import helper

    halves = {t.name: t.dims[1] for t in model.graph.initializer if len(t.dims) == 2}
    for node in model.graph.node:
        if node.op_type != "GroupQueryAttention" or not helper.get_node_attr_value(
            node, "do_rotary"
        ):
            continue
        half = halves.get(node.input[7], 0)  # 0: chosen by the length, of two
        if head_size % HEAD_STEP or half % ANGLE_STEP:
            raise UsageError(
                f"the runtime's fused attention cannot rotate {2 * half or head_size} of the "
                f"{head_size} numbers of a head of {folder}: heads are multiples of {HEAD_STEP}, "
                f"their rotated parts of {2 * ANGLE_STEP}; {ALTERNATIVE}"
            )


def _set_cache_width(model: onnx.ModelProto, head_size: int) -> None:
    """Set the width of keys and values, which the builder leaves open for quantized caches.

    Without it no empty cache could be made.
    """
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == CACHE_WIDTH:
                dimension.dim_value = head_size
