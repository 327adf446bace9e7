"""Makes the fp32 graph of a Hugging Face folder with onnxruntime-genai's model builder. Owns onnxruntime_genai.

One graph with KV cache, attention fused by the builder. It stores a tied embedding as the LM head's matrix, which
is turned into the table that is gathered from, as elsewhere; `optimize` finishes it. Fetches nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecap.errors import UsageError
from edgecap.graph.export.optimum import TASK
from edgecap.graph.export.transformers_check import check_known
from edgecap.graph.onnx_file import inspect_graph, open_graph, write_graph
from edgecap.graph.tied_weights import tie_weights, untie_weights
from edgecap.machine.info import package_versions

if TYPE_CHECKING:
    import onnx

WHEELS = (
    "onnxruntime-genai-cuda",
    "onnxruntime-genai",
    "onnxruntime-genai-directml",
)  # one module, one at a time
TOOLS = ("transformers", "torch", "onnx", "onnx-ir")
INSTALL = "pip install 'edgecap[genai]'"
ALTERNATIVE = "try --exporter optimum"

CONFIG = "genai_config.json"
CACHE_WIDTH = "kv_cache_dim"
INPUTS = ("input_ids", "attention_mask", "position_ids", "past_key_values.")  # of a decoder of text
HEAD_STEP, ANGLE_STEP = (
    16,
    8,
)  # GroupQueryAttention rotates heads, and halves of what is turned, by these multiples

# What the builder makes of it answers otherwise than transformers does. Seen with 0.15.2: 0.01 bits a token apart.
MISCONVERTED = {"OlmoForCausalLM": "it leaves the mean out of OLMo's norms"}
# What it ends with on a config that is not as it expects: KeyError on SmolLM3's layers without rotary.
CRASHES = (AssertionError, AttributeError, KeyError, TypeError, ValueError)


def recipe(task: str = TASK) -> str:
    """The builder and its versions, which decide what comes out.

    Raises UsageError where it is not installed.
    """
    builder, tools = package_versions(WHEELS), package_versions(TOOLS)
    missing = [*([] if builder else ["onnxruntime-genai"]), *(n for n in TOOLS if n not in tools)]
    if missing:
        raise UsageError(
            f"--exporter genai needs {', '.join(missing)}: {INSTALL}, or {ALTERNATIVE}"
        )
    return f"genai builder fp32, v1; {', '.join(f'{n} {v}' for n, v in (builder | tools).items())}"


def export_fp32(folder: Path, out: Path, trust_remote_code: bool, task: str = TASK) -> Path:
    """Writes `model.onnx`, which is returned, `genai_config.json` and the tokenizer's files into `out`.

    Raises UsageError where transformers or the builder does not know the model, or the graph is no fp32 decoder
    of text that the runtime can run.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    check_known(folder, trust_remote_code)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        built = Path(scratch) / "built"
        _build(folder, built, Path(scratch) / "cache", trust_remote_code)
        model = _finished(folder, built)
        for file in [f for f in built.iterdir() if not f.name.startswith("model.onnx")]:
            shutil.move(file, out / file.name)
    return out / write_graph(model, out)[0]


# --- the builder ------------------------------------------------------------------------------


def _build(folder: Path, built: Path, cache: Path, trust_remote_code: bool) -> None:
    library = _library()
    asked = (None, str(folder), str(built), "fp32", "cpu", str(cache))
    options = library.parse_extra_options(
        *asked, ["hf_token=false", f"hf_remote={str(trust_remote_code).lower()}"]
    )
    config = options["hf_details"]["hf_config"]
    named = _named(folder, config)
    try:
        library.create_model(*asked, **options)
    except NotImplementedError as error:
        raise UsageError(
            f"onnxruntime-genai's builder does not know {named}; {ALTERNATIVE}"
        ) from error
    except CRASHES as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise UsageError(
            f"onnxruntime-genai's builder fails on {named}: {reason}; {ALTERNATIVE}"
        ) from error


def _library() -> Any:
    try:
        from onnxruntime_genai.models import builder
    except ImportError as error:
        raise UsageError(
            f"--exporter genai cannot load {error.name or error}: {INSTALL}, or {ALTERNATIVE}"
        ) from error
    return builder


def _named(folder: Path, config: Any) -> str:
    """The model in words. Raises UsageError where the builder could not tell what it is, or gets it wrong."""
    name = next(iter(config.architectures or ()), None)  # what the builder goes by
    if name is None:
        raise UsageError(f"{folder / 'config.json'} names no 'architectures'; {ALTERNATIVE}")
    if name in MISCONVERTED:
        raise UsageError(
            f"onnxruntime-genai's builder gets {name} wrong: {MISCONVERTED[name]}; {ALTERNATIVE}"
        )
    return f"model_type '{config.model_type}' ({name} in {folder})"


# --- its graph --------------------------------------------------------------------------------


def _finished(folder: Path, built: Path) -> onnx.ModelProto:
    """The graph with the cache's width told and a tied embedding as a table. Raises UsageError where it is none."""
    facts = inspect_graph(built / "model.onnx")
    strange = [name for name in facts.inputs if not name.startswith(INPUTS)]
    if (
        strange or facts.precision != "fp32"
    ):  # the builder makes parts of some models, and quantises others unasked
        what = f"asks for {', '.join(strange)}" if strange else f"is {facts.precision}, not fp32"
        raise UsageError(f"the builder's graph of {folder} {what}; {ALTERNATIVE}")
    model = open_graph(built / "model.onnx")
    head_size = json.loads((built / CONFIG).read_text("utf-8"))["model"]["decoder"]["head_size"]
    _check_rotary(folder, model, head_size)
    _tell_width(model, head_size)
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
                f"the runtime's fused attention cannot rotate {2 * half or head_size} of the {head_size} numbers of a "
                f"head of {folder}: heads are multiples of {HEAD_STEP}, what is rotated of {2 * ANGLE_STEP}; {ALTERNATIVE}"
            )


def _tell_width(model: onnx.ModelProto, head_size: int) -> None:
    """The builder leaves it open for caches that are quantised; an empty cache could not be made."""
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == CACHE_WIDTH:
                dimension.dim_value = head_size
