"""Values of small tensors: the arithmetic on shapes that graphs do while they run.

The commonest operators are a line of numpy each, because a graph has thousands of them; the others
are left to onnx's own reference evaluator. Nothing here raises: values that cannot be computed are
None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgecap.graph.cost.tensors import MAX_VALUES, Tensor, attributes

_FLOAT = 1
_DATA_DEPENDENT = frozenset({"NonZero", "Unique", "Compress"})  # output shape depends on the values
_RANDOM = frozenset(
    {
        "RandomNormal",
        "RandomUniform",
        "RandomNormalLike",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
    }
)


def values_of(
    node: Any, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor | None], version: int
) -> list[Any]:
    """Return the values of a node's outputs if all inputs are known, else None for each.

    Outputs of more than `MAX_VALUES` numbers are None too. `version` is that of the opset.
    """
    unknown: list[Any] = [None] * len(node.output)
    if any(t is not None and t.value is None for t in inputs) or not _is_small(node, outputs):
        return unknown
    arrays = [None if t is None else t.value for t in inputs]
    try:
        with np.errstate(all="ignore"):
            results = _evaluate(node, arrays, version)
    except Exception:  # of many kinds, from numpy and the evaluator: the values stay unknown
        return unknown
    return (
        [None if a is None or np.size(a) > MAX_VALUES else np.asarray(a) for a in results]
        if results
        else unknown
    )


def shape_value(node: Any, tensor: Tensor | None) -> Any:
    """Return the result of Shape or Size, which need a known shape and no values."""
    if tensor is None or tensor.shape is None:
        return None
    if node.op_type == "Size":
        return np.array(tensor.numbers, np.int64)
    part = attributes(node)
    return np.array(
        tensor.shape[part.get("start", 0) : part.get("end", len(tensor.shape))], np.int64
    )


def _is_small(node: Any, outputs: Sequence[Tensor | None]) -> bool:
    """Return True if the outputs are few, or the operator cannot make many."""
    if node.domain not in ("", "ai.onnx") or node.op_type in _RANDOM:
        return False
    if node.op_type in _DATA_DEPENDENT:
        return True
    return all(t is None or (t.shape is not None and t.numbers <= MAX_VALUES) for t in outputs)


def _evaluate(node: Any, arrays: list[Any], version: int) -> list[Any]:
    compute = _QUICK.get(node.op_type)
    result = compute(attributes(node), *arrays) if compute else None
    return [result] if result is not None else _reference(node, arrays, version)


def _reference(node: Any, arrays: list[Any], version: int) -> list[Any]:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    names = [name for name in node.input if name]
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
             for n, a in zip(node.input, arrays, strict=True) if n]  # fmt: skip
    ends = [helper.make_tensor_value_info(n, _FLOAT, None) for n in node.output if n]
    graph = helper.make_graph([node], "one", infos, ends)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    feeds = dict(zip(names, [a for a in arrays if a is not None], strict=True))
    results = iter(ReferenceEvaluator(model).run(None, feeds))
    return [next(results) if n else None for n in node.output]


def _reduce(how: Callable[..., Any]) -> Callable[..., Any]:
    def run(part: dict[str, Any], data: Any, axes: Any = None) -> Any:
        chosen = part.get("axes") if axes is None else axes.tolist()
        if not chosen and part.get("noop_with_empty_axes"):
            return data
        return how(
            data, axis=tuple(chosen) if chosen else None, keepdims=bool(part.get("keepdims", 1))
        ).astype(data.dtype)

    return run


def _slice(part: dict[str, Any], data: Any, *limits: Any) -> Any:
    if len(limits) < 2:  # the attributes of old opsets
        limits = tuple(np.array(part[n]) for n in ("starts", "ends", "axes") if n in part)
    starts, ends = limits[:2]
    axes = limits[2] if len(limits) > 2 and limits[2] is not None else range(len(starts))
    steps = limits[3] if len(limits) > 3 else [1] * len(starts)
    index = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 0:
            return None
        index[int(axis)] = slice(int(start), int(end), int(step))
    return data[tuple(index)]


def _unsqueeze(part: dict[str, Any], data: Any, axes: Any = None) -> Any:
    return np.expand_dims(data, tuple(part["axes"] if axes is None else axes.tolist()))


def _squeeze(part: dict[str, Any], data: Any, axes: Any = None) -> Any:
    chosen = part.get("axes") if axes is None else axes.tolist()
    return np.squeeze(data, tuple(chosen) if chosen else None)


def _reshape(part: dict[str, Any], data: Any, shape: Any = None) -> Any:
    sizes = part.get("shape") if shape is None else shape.tolist()
    resolved = [
        data.shape[i] if n == 0 and not part.get("allowzero") else n
        for i, n in enumerate(sizes or ())
    ]
    return data.reshape(resolved)


def _cast(part: dict[str, Any], data: Any) -> Any:
    from onnx import helper

    return data.astype(helper.tensor_dtype_to_np_dtype(part["to"]))


def _divide_toward_zero(part: dict[str, Any], a: Any, b: Any) -> Any:
    if a.dtype.kind == "f":
        return a / b
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


def _constant_of_shape(part: dict[str, Any], shape: Any) -> Any:
    from onnx import numpy_helper

    fill = numpy_helper.to_array(part["value"]) if "value" in part else np.zeros(1, np.float32)
    return np.full(shape.tolist(), fill[0], fill.dtype)


def _range(part: dict[str, Any], start: Any, limit: Any, delta: Any) -> Any:
    count = max(0, math.ceil((limit - start) / delta))
    return (start + np.arange(count) * delta).astype(start.dtype)


def _expand(part: dict[str, Any], data: Any, shape: Any) -> Any:
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(shape.tolist())))


def _plain(how: Callable[..., Any]) -> Callable[..., Any]:
    return lambda part, *arrays: how(*arrays)


_PLAIN: dict[str, Callable[..., Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Neg": np.negative,
    "Not": np.logical_not, "And": np.logical_and, "Or": np.logical_or,
    "Equal": np.equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal,
    "Less": np.less, "LessOrEqual": np.less_equal, "Where": np.where,
    "Floor": np.floor, "Ceil": np.ceil, "Sqrt": np.sqrt, "Identity": lambda data: data,
}  # fmt: skip
_QUICK: dict[str, Callable[..., Any]] = {
    **{name: _plain(how) for name, how in _PLAIN.items()},
    "Concat": lambda part, *arrays: np.concatenate(arrays, part["axis"]),
    "Gather": lambda part, data, at: np.take(data, at, part.get("axis", 0)),
    "Transpose": lambda part, data: np.transpose(data, part.get("perm")),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "Slice": _slice,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Cast": _cast,
    "Div": _divide_toward_zero,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Range": _range,
}
