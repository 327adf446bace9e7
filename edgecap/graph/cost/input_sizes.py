"""Sizes and small values of a graph's inputs in one run.

Names of dimensions and inputs are those that Optimum, onnxruntime-genai and transformers.js write.
Sizes that the graph itself fixes stay. How shapes follow from the inputs is left to `shapes`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgecap.errors import UsageError
from edgecap.graph.cost.tensors import MAX_VALUES, Tensor, attribute


class RunSize(NamedTuple):
    """Size of one run: `sequence` new positions of `batch` rows after `past` cached ones."""

    batch: int
    sequence: int
    past: int

    @property
    def total(self) -> int:
        """Return the positions that the new ones attend to, themselves included."""
        return self.past + self.sequence


_ROLES: dict[tuple[str, int], tuple[str | None, ...]] = {
    ("input_ids", 2): ("batch", "sequence"),
    ("inputs_embeds", 3): ("batch", "sequence", None),
    ("token_type_ids", 2): ("batch", "sequence"),
    ("position_ids", 2): ("batch", "sequence"),
    ("position_ids", 3): (None, "batch", "sequence"),
    ("cache_position", 1): ("sequence",),
    ("attention_mask", 2): ("batch", "total"),
    ("attention_mask", 4): ("batch", None, "sequence", "total"),
}
_CACHE_ROLES: dict[int, tuple[str | None, ...]] = {
    4: ("batch", None, "past", None),
    5: (None, "batch", None, "past", None),  # key and value in one
}
_WORDS = {
    "batch": "batch",
    "total": "total",
    "past": "past",
    "seq": "sequence",
    "length": "sequence",
    "token": "sequence",
}
_WIDTH_WORDS = ("dim", "head", "hidden")  # "kv_cache_dim", "past_key_values.0.key_dim_3"
_VALUES: dict[str, Any] = {
    "attention_mask": lambda run, shape: np.ones(shape),
    "position_ids": lambda run, shape: np.broadcast_to(np.arange(run.past, run.total), shape),
    "cache_position": lambda run, shape: np.arange(run.past, run.total),
    "past_sequence_length": lambda run, shape: np.full(shape, run.past),
    "total_sequence_length": lambda run, shape: np.full(shape, run.total),
    "seqlens_k": lambda run, shape: np.full(shape, run.total - 1),
    "use_cache_branch": lambda run, shape: np.full(shape, run.past > 0),
}


def size_of(name: str, run: RunSize) -> int | None:
    """Return the size of a dimension named like `past_sequence_length + 1`; None if not known."""
    terms = [_term(t.strip().lower(), run) for t in name.split("+")]
    known = [t for t in terms if t is not None]
    return sum(known) if len(known) == len(terms) else None


def _term(term: str, run: RunSize) -> int | None:
    if term.isdigit():
        return int(term)
    if set(term) & set("*/-()") or any(word in term for word in _WIDTH_WORDS):
        return None
    role = next((role for word, role in _WORDS.items() if word in term), None)
    return int(getattr(run, role)) if role else None


def is_cache(name: str) -> bool:
    """Return True if a graph input holds past keys or values."""
    return name.startswith("past") and name not in _VALUES


def concrete_inputs(model: Any, run: RunSize, path: Path) -> dict[str, Tensor]:
    """Return the graph inputs by name, with their shapes and small values in the run.

    Raise UsageError if the graph fixes other sizes, has no cache for a past, or leaves a dimension
    of its cache open that nothing else determines.
    """
    stored = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in stored]
    if run.past and not any(is_cache(i.name) or "past" in str(_names(i)) for i in inputs):
        raise UsageError(f"{path} has no cache: use past=0 and all positions as the sequence")
    return {i.name: _input(model, i, run, path) for i in inputs}


def _input(model: Any, info: Any, run: RunSize, path: Path) -> Tensor:
    kind, tensor = info.type.tensor_type.elem_type, info.type.tensor_type
    if not info.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return Tensor(kind, None)
    dims = list(tensor.shape.dim)
    if is_cache(info.name):
        shape = tuple(
            _cache_size(model, info, axis, dim, run, path) for axis, dim in enumerate(dims)
        )
        return Tensor(kind, shape, cache=info.name)
    shape = tuple(
        _size(info.name, axis, len(dims), dim, run, path) for axis, dim in enumerate(dims)
    )
    return Tensor(kind, shape, _value(info.name, kind, shape, run))


def _names(info: Any) -> list[str]:
    return [d.dim_param for d in info.type.tensor_type.shape.dim]


def _size(name: str, axis: int, rank: int, dim: Any, run: RunSize, path: Path) -> int:
    role = _ROLES.get((name, rank), (None,) * rank)[axis]
    requested = int(getattr(run, role)) if role else None
    if _is_fixed(dim):
        if (
            requested is not None
            and name in ("input_ids", "inputs_embeds")
            and dim.dim_value != requested
        ):
            raise UsageError(
                f"{path} fixes {role}={dim.dim_value} in '{name}': "
                f"{role}={requested} cannot be counted"
            )
        return int(dim.dim_value)
    named = size_of(dim.dim_param, run) if dim.dim_param else None
    nameless = run.batch if not dim.dim_param and axis == 0 and rank > 1 else run.sequence
    return next(size for size in (requested, named, nameless) if size is not None)


def _is_fixed(dim: Any) -> bool:
    # Some exporters write -1 for an open dimension.
    return bool(dim.HasField("dim_value") and dim.dim_value >= 0)


def _cache_size(model: Any, info: Any, axis: int, dim: Any, run: RunSize, path: Path) -> int:
    if _is_fixed(dim):
        return int(dim.dim_value)
    role = _CACHE_ROLES.get(len(info.type.tensor_type.shape.dim), (None,) * 9)[axis]
    named = size_of(dim.dim_param, RunSize(run.batch, run.past, 0)) if dim.dim_param else None
    if named is not None:
        role = "batch" if "batch" in dim.dim_param.lower() else "past"  # any other name
    size = getattr(run, role) if role else _dimension_from_graph(model, info.name, axis)
    if size is None:
        raise UsageError(
            f"{path} leaves dimension {dim.dim_param or axis!r} of '{info.name}' open, "
            "and nothing else in the graph fixes it; export the model with that dimension fixed"
        )
    return int(size)


def _value(name: str, kind: int, shape: tuple[int, ...], run: RunSize) -> Any:
    from onnx import helper

    if name not in _VALUES or math.prod(shape) > MAX_VALUES:
        return None
    try:
        return _VALUES[name](run, shape).astype(helper.tensor_dtype_to_np_dtype(kind))
    except (ValueError, KeyError):  # fixed to another length, or of a type without numbers
        return None


# --- a dimension that the input leaves open ---------------------------------------------------


def present_of(name: str) -> tuple[str, ...]:
    """Return the names that exporters give to the output of a past input."""
    rest = name.removeprefix("past_key_values").removeprefix("past")
    return f"present{rest}", f"present_key_values{rest}", name.replace("past", "present", 1)


def _dimension_from_graph(model: Any, name: str, axis: int) -> int | None:
    """Find an open dimension in the output that grows from the input, a Concat, or attention."""
    import onnx

    try:
        known = _fixed_dimensions(onnx.shape_inference.infer_shapes(model, data_prop=True).graph)
    except Exception:  # InferenceError and others: fall back to declared shapes
        known = _fixed_dimensions(model.graph)
    for node in model.graph.node:
        if name in node.input:
            joined = [*node.input, *node.output] if node.op_type == "Concat" else []
            size = next((known[j][axis] for j in joined if known.get(j, {}).get(axis)), None)
            size = size or _head_size(model, node, known, axis)
            if size:
                return size
    return next((known[p][axis] for p in present_of(name) if known.get(p, {}).get(axis)), None)


def _fixed_dimensions(graph: Any) -> dict[str, dict[int, int]]:
    infos = (*graph.value_info, *graph.output)
    return {
        v.name: {a: d.dim_value for a, d in enumerate(v.type.tensor_type.shape.dim)} for v in infos
    }


def _head_size(model: Any, node: Any, known: dict[str, dict[int, int]], axis: int) -> int | None:
    """Return the width of a head from the queries and their number, packed or not."""
    heads, kv_heads = attribute(node, "num_heads", 0), attribute(node, "kv_num_heads", 0)
    if axis == 1:
        return kv_heads or heads or None
    columns = {
        n.output[0]: attribute(n, "N", 0) for n in model.graph.node if n.op_type == "MatMulNBits"
    }
    width = columns.get(node.input[0]) or known.get(node.input[0], {}).get(2)
    packed = node.op_type == "GroupQueryAttention" and not "".join(node.input[1:2])
    return width // (heads + 2 * kv_heads * packed) if heads and width and axis == 3 else None
