"""A tensor of a graph in one run: its type, its shape, and its values if they are few."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

# Tensors of up to this many values are evaluated: shapes, masks and positions of one run.
MAX_VALUES = 4096
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64}
_BITS |= {14: 64, 15: 128, 16: 16}
_NARROW = {17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}
BITS = _BITS | _NARROW  # onnx.proto, TensorProto.DataType; strings have no fixed width
FLOATS = frozenset({1, 10, 11, 14, 15, 16, 17, 18, 19, 20, 23, 24})
_EXTERNAL = 1

Shape = tuple[int, ...]


class Tensor(NamedTuple):
    """A tensor; `kind` is onnx's element type, `shape` and `value` are None if not known.

    `constant` tensors exist when the model is loaded and cost a run nothing but their reading.
    `roots` are the stored tensors that they consist of, `cache` the past input whose bytes these
    are.
    """

    kind: int
    shape: Shape | None
    value: Any = None
    constant: bool = False
    roots: tuple[str, ...] = ()
    cache: str | None = None

    @property
    def numbers(self) -> int:
        """Return the number of elements; 0 if the shape is not known."""
        return math.prod(self.shape) if self.shape is not None else 0

    @property
    def bytes(self) -> int:
        """Return the bytes of all elements: half a byte for 4-bit types, 1 for a string."""
        return -(-self.numbers * BITS.get(self.kind, 8) // 8)


Inputs = Sequence[Tensor | None]  # of a node; None is an input that is left out


def of_value(value: Any, constant: bool = False) -> Tensor:
    """Return a tensor of known values."""
    from onnx import helper

    array = np.asarray(value)
    return Tensor(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array, constant)


def of_proto(proto: Any, name: str) -> Tensor:
    """Return a stored tensor, with its values if they are few and inside the graph."""
    shape = tuple(proto.dims)
    if any(n < 0 for n in shape):
        return Tensor(proto.data_type, None, None, True, (name,))
    few = (
        math.prod(shape) <= MAX_VALUES
        and proto.data_location != _EXTERNAL
        and proto.data_type in _BITS
    )
    return Tensor(proto.data_type, shape, _array(proto) if few else None, True, (name,))


def _array(proto: Any) -> Any:
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(proto)
    except Exception:  # of many kinds if the tensor is damaged; the runtime reports it
        return None


def attributes(node: Any) -> dict[str, Any]:
    """Return the attributes of a node as Python values."""
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def attribute(node: Any, name: str, default: Any) -> Any:
    """Return one attribute of a node as a Python value."""
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


# --- onnx's types -----------------------------------------------------------------------------


def stored_in(graph: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the stored tensors of a graph by name."""
    for proto in graph.initializer:
        yield proto.name, of_proto(proto, proto.name)
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, Tensor(sparse.values.data_type, tuple(sparse.dims))


def constant_of(node: Any) -> Tensor | None:
    """Return the tensor of a Constant node."""
    from onnx import TensorProto

    for part in node.attribute:
        if part.name == "value":
            return of_proto(part.t, node.output[0])
        if part.name in ("value_int", "value_ints", "value_float", "value_floats"):
            return of_value(
                np.array(
                    attribute(node, part.name, 0), np.int64 if "int" in part.name else np.float32
                )
            )
        if part.name == "sparse_value":
            return Tensor(part.sparse_tensor.values.data_type, tuple(part.sparse_tensor.dims))
        if part.name in ("value_string", "value_strings"):
            return Tensor(TensorProto.STRING, (len(part.strings),) if part.strings else ())
    return None


@lru_cache(maxsize=4096)
def type_of(kind: int, shape: Shape | None) -> Any:
    """Return onnx's type of a tensor."""
    from onnx import helper

    return helper.make_tensor_type_proto(kind, shape)


def of_type(info: Any) -> Tensor | None:
    """Return an inferred tensor, or None if it is not a tensor.

    A shape with an open dimension is not known.
    """
    if not info.HasField("tensor_type") or info.tensor_type.elem_type not in (*BITS, 8):
        return None
    dims = info.tensor_type.shape.dim
    known = info.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims)
    return Tensor(info.tensor_type.elem_type, tuple(d.dim_value for d in dims) if known else None)
