"""What an ONNX file is: opened without its weights, checked, described."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgecap.errors import Unreadable, UsageError
from edgecap.graph.external_data import parse_without_weights

if TYPE_CHECKING:
    import onnx

WEIGHTS = "model.onnx.data"
LARGEST_PROTO = 1_900_000_000  # protobuf ends at 2 GiB; keep room for the graph itself


class GraphFacts(msgspec.Struct, frozen=True):
    """A graph of a language model: `precision` of its weights as found, `vocabulary` if it tells it.

    `matrix_weights` counts the numbers of all matrices that activations are multiplied with. `positions` are those of
    a learned table. `predicts` says that there are logits, which a decoder needs and an encoder may have.
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
    """Parses an ONNX file with its weights, or with a note of where they lie.

    Raises Unreadable where it is no ONNX file, or weights are missing or cut short, and MemoryError.
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
    for name, end in _external(model).items():
        _check_external(path, name, end)
    if weights:
        onnx.load_external_data_for_model(model, str(path.parent))
    return model


def inspect_graph(path: Path) -> GraphFacts:
    """Describes the graph of a decoder or an encoder. Raises UsageError where it is damaged or neither."""
    model = open_graph(path, weights=False)
    graph = model.graph
    names = tuple(i.name for i in graph.input)
    outputs = {o.name: o for o in graph.output}
    cached = any(n.startswith("past_key_values") for n in names)
    if "input_ids" not in names or (cached and "logits" not in outputs):
        raise UsageError(
            f"{path} is not a decoder: it needs an input 'input_ids' and an output 'logits'"
        )
    last = list(outputs["logits"].type.tensor_type.shape.dim)[-1:] if "logits" in outputs else []
    return GraphFacts(
        precision=_precision(model),
        inputs=names,
        vocabulary=last[0].dim_value or None if last else table_rows(model),
        has_cache=cached and any(n.startswith("present") for n in outputs),
        files=tuple(dict.fromkeys((path.name, *_external(model)))),
        matrix_weights=_matrix_weights(model),
        positions=_learned_positions(model),
        predicts="logits" in outputs,
    )


def table_rows(model: onnx.ModelProto) -> int | None:
    """Rows of the table that token ids are looked up in."""
    rows = {t.name: t.dims[0] for t in model.graph.initializer if len(t.dims) >= 2}
    gathers = (
        n for n in model.graph.node if n.op_type.startswith("Gather") and "input_ids" in n.input[1:]
    )
    return next((rows[n.input[0]] for n in gathers if n.input[0] in rows), None)


def _learned_positions(model: onnx.ModelProto) -> int | None:
    """Rows of a table of positions by its name; where they are counted up from the mask, two are for padding."""
    tables = [
        t for t in model.graph.initializer if "position_embedding" in t.name and len(t.dims) == 2
    ]
    counted = any(n.op_type == "CumSum" for n in model.graph.node)
    return max(1, min(t.dims[0] for t in tables) - 2 * counted) if tables else None


def _matrix_weights(model: onnx.ModelProto) -> int:
    """Numbers in stored matrices behind MatMul, Gemm and their quantised forms."""
    sizes = {t.name: math.prod(t.dims) for t in model.graph.initializer if len(t.dims) == 2}
    for node in model.graph.node:
        if node.op_type == "Transpose" and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
    total = 0
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            total += _attribute(node, "K", 0) * _attribute(node, "N", 0)
        elif node.op_type in ("MatMul", "Gemm", "MatMulInteger", "DynamicQuantizeMatMul"):
            total += sizes.get(node.input[1], 0)
    return total


def _external(model: onnx.ModelProto) -> dict[str, int]:
    """Files beside the graph that hold weights -> the byte up to which they are needed."""
    ends: dict[str, int] = {}
    for tensor in _stored(model.graph):
        if tensor.data_location == 1:
            entry = {e.key: e.value for e in tensor.external_data}
            end = int(entry.get("offset") or 0) + int(entry.get("length") or 0)
            name = entry.get("location", "")
            ends[name] = max(end, ends.get(name, 0))
    return ends


def _stored(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph: its weights, its constants, and those of branches and loops."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _stored(inner)


def _check_external(path: Path, name: str, end: int) -> None:
    file = (
        path.parent / name
    )  # may be a link, as in the Hub's cache; what counts is what the graph says
    if not Path(os.path.normpath(file.absolute())).is_relative_to(
        os.path.normpath(path.parent.absolute())
    ):
        raise Unreadable(f"{path} points to weights outside its folder: {name}")
    if not file.is_file():
        raise Unreadable(f"{path} needs its weights in {name}, which is missing")
    if file.stat().st_size < end:
        raise Unreadable(f"{file} is cut short: {file.stat().st_size} bytes of {end}")


def _precision(model: onnx.ModelProto) -> str:
    """int4, int8 and their kin by their operators, the others by the type that most weights have."""
    blocks = [n for n in model.graph.node if n.op_type == "MatMulNBits"]
    if blocks:
        return _in_blocks(model, blocks)
    operators = {n.op_type for n in model.graph.node}
    if {"MatMulInteger", "DynamicQuantizeMatMul"} & operators:
        return "int8"
    if "QLinearMatMul" in operators or {"QuantizeLinear", "DequantizeLinear"} <= operators:
        return "int8s"
    sizes: dict[int, int] = {}
    for tensor in model.graph.initializer:
        sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + math.prod(tensor.dims)
    names = {1: "fp32", 10: "fp16", 16: "bf16", 11: "fp64"}
    known = {t: n for t, n in sizes.items() if t in names}
    return names[max(known, key=lambda t: known[t])] if known else "fp32"


def _in_blocks(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> str:
    """int4 or int8w by the fewest bits; the block only where all share one that edgecap makes; HQQ by its zero points."""
    bits, sizes = (
        {_attribute(n, name, default) for n in nodes}
        for name, default in (("bits", 4), ("block_size", 32))
    )
    floats = {t.name for t in model.graph.initializer if t.data_type in (1, 10, 16)}
    if min(bits) <= 4 and any(name in floats for n in nodes for name in n.input[3:4]):
        return "int4hqq"
    family, made = ("int4", (16, 64, 128)) if min(bits) <= 4 else ("int8w", (128,))
    block = sizes.pop() if len(sizes) == 1 else 0
    return f"{family}b{block}" if block in made else family


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def weight_bytes(model: Any) -> int:
    """Bytes of the stored tensors; protobuf cannot tell the size of what it cannot serialise."""
    return sum(len(t.raw_data) for t in model.graph.initializer)


def import_contrib(model: Any) -> None:
    """Declares the runtime's own operators, once."""
    from onnx import helper

    if not any(o.domain == "com.microsoft" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def write_graph(model: Any, folder: Path) -> list[str]:
    """Writes `model.onnx`, its weights beside it where they are too large for one file; names of files."""
    import onnx

    path = folder / "model.onnx"
    if weight_bytes(model) <= LARGEST_PROTO:
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
