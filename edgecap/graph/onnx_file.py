"""Open, inspect and write ONNX files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgecap.errors import Unreadable, UsageError
from edgecap.graph.cost.tensors import attribute
from edgecap.graph.external_data import parse_without_weights
from edgecap.graph.last_logits import KEEP, answers_last_only
from edgecap.graph.weight_formats import precision_of
from edgecap.graph.weight_locations import InMemoryGraph, check_weights, in_memory, read_weights

if TYPE_CHECKING:
    import onnx

WEIGHTS = "model.onnx.data"
INPUTS = ("input_ids", "attention_mask", "position_ids", "token_type_ids", *KEEP)
LARGEST_PROTO = 1_900_000_000  # protobuf ends at 2 GiB; the graph itself needs room
BESIDE = 32_000_000  # bytes of weights from which memory and seconds of loading count


class GraphFacts(msgspec.Struct, frozen=True):
    """Properties of a language model's graph.

    `precision` is that of its weights, `vocabulary` its size if the graph has it. `matrix_weights`
    counts the numbers of all matrices that activations are multiplied with. `positions` are those
    of a learned table. `predicts` means that there are logits, which a decoder needs and an encoder
    may have.
    """

    precision: str
    inputs: tuple[str, ...]
    vocabulary: int | None
    has_cache: bool
    files: tuple[str, ...]
    matrix_weights: int
    positions: int | None = None
    predicts: bool = True


def open_graph(path: Path, weights: bool = True) -> onnx.ModelProto:
    """Parse an ONNX file with its weights, or with references to where they lie.

    Raise Unreadable if it is not an ONNX file, or weights are missing or cut short. Raise
    MemoryError if the weights do not fit.
    """
    import onnx

    try:
        model = (
            onnx.load(str(path), load_external_data=False)
            if weights
            else parse_without_weights(path)
        )
    except OSError as error:
        raise Unreadable(f"cannot read {path}: {error.strerror}") from error
    except MemoryError:
        raise  # says nothing about the file
    except Exception as error:  # protobuf's DecodeError is not exported in a stable place
        raise Unreadable(
            f"{path} is not an ONNX file, or it is damaged ({type(error).__name__})"
        ) from error
    if not model.graph.node or not model.graph.output:
        raise Unreadable(f"{path} is not an ONNX file, or it is damaged (no nodes or no outputs)")
    check_weights(model, path)
    if weights:
        read_weights(model, path)
    return model


def open_in_memory(path: Path) -> InMemoryGraph:
    """Open a graph whose weights lie behind links. Raise Unreadable if they are missing."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    check_weights(model, path)
    return in_memory(model, path)


def inspect_graph(path: Path) -> GraphFacts:
    """Describe the graph of a decoder or encoder.

    Raise UsageError if it is neither or damaged, or gives logits of the last position only.
    """
    model = open_graph(path, weights=False)
    graph = model.graph
    stored = {t.name for t in graph.initializer}  # old files list these as inputs, too
    names = tuple(i.name for i in graph.input if i.name not in stored)
    outputs = {o.name: o for o in graph.output}
    cached = any(n.startswith("past_key_values") for n in names)
    if "input_ids" not in names or (cached and "logits" not in outputs):
        raise UsageError(
            f"{path} is not a decoder: it needs an input 'input_ids' and an output 'logits'"
        )
    if cached and answers_last_only(graph):
        raise UsageError(
            f"{path} gives logits of the last position only, so that text cannot be scored; "
            "export the model with all of them (onnxruntime-genai: without prune_lm_head)"
        )
    last = list(outputs["logits"].type.tensor_type.shape.dim)[-1:] if "logits" in outputs else []
    return GraphFacts(
        precision=precision_of(model),
        inputs=names,
        vocabulary=last[0].dim_value or None if last else table_rows(model),
        has_cache=cached and any(n.startswith("present") for n in outputs),
        files=tuple(dict.fromkeys((path.name, *check_weights(model, path)))),
        matrix_weights=_matrix_weights(model),
        positions=_learned_positions(model),
        predicts="logits" in outputs,
    )


def unknown_inputs(names: Iterable[str]) -> list[str]:
    """Return the inputs of a graph that are not ids, masks, a cache or a number of logits."""
    return sorted(n for n in names if n not in INPUTS and not n.startswith("past_key_values"))


def table_rows(model: onnx.ModelProto) -> int | None:
    """Return the rows of the table that token ids are looked up in, or None."""
    rows = {t.name: t.dims[0] for t in model.graph.initializer if len(t.dims) >= 2}
    for node in model.graph.node:  # a quantized table has the shape that its product needs
        if node.op_type in ("Reshape", "Cast") and node.input[0] in rows:
            rows[node.output[0]] = rows[node.input[0]]
    gathers = (
        n for n in model.graph.node if n.op_type.startswith("Gather") and "input_ids" in n.input[1:]
    )
    return next((rows[n.input[0]] for n in gathers if n.input[0] in rows), None)


def _learned_positions(model: onnx.ModelProto) -> int | None:
    """Return the rows of the position table, found by name, or None.

    If positions are counted up from the mask, two rows are for padding.
    """
    tables = [
        t for t in model.graph.initializer if "position_embedding" in t.name and len(t.dims) == 2
    ]
    counts_up = any(n.op_type == "CumSum" for n in model.graph.node)
    return max(1, min(t.dims[0] for t in tables) - 2 * counts_up) if tables else None


def _matrix_weights(model: onnx.ModelProto) -> int:
    """Count the numbers of stored matrices behind MatMul, Gemm and their quantized forms."""
    sizes = {t.name: math.prod(t.dims) for t in model.graph.initializer if len(t.dims) == 2}
    for node in model.graph.node:
        if node.op_type in ("Transpose", "DequantizeLinear") and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
    total = 0
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            total += attribute(node, "K", 0) * attribute(node, "N", 0)
        elif node.op_type in ("MatMul", "Gemm", "MatMulInteger", "DynamicQuantizeMatMul"):
            total += sizes.get(node.input[1], 0)
    return total


def weight_bytes(model: Any) -> int:
    """Return the bytes of the stored tensors; protobuf cannot size what it cannot serialize."""
    return sum(len(t.raw_data) for t in model.graph.initializer)


def import_contrib(model: Any) -> None:
    """Declare the domain of ONNX Runtime's own operators, once."""
    from onnx import helper

    if not any(o.domain == "com.microsoft" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def write_graph(model: Any, folder: Path) -> list[str]:
    """Write `model.onnx` into a folder, and return the names of the files.

    Weights from `BESIDE` bytes go beside it: the runtime maps them, and frees what it has packed.
    Those inside are parsed into memory and copied.
    """
    import onnx

    path = folder / "model.onnx"
    if weight_bytes(model) < BESIDE:
        onnx.save(model, str(path))
        return [path.name]
    onnx.save(
        model,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=WEIGHTS,
        size_threshold=1024,
    )
    return [path.name, WEIGHTS]
