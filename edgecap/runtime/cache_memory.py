"""Allocate keys and values on a provider's device, in the shapes that a graph declares."""

from __future__ import annotations

import math
import mmap
import random
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgecap.errors import UsageError
from edgecap.runtime.state import KvCache

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
BFLOAT16 = "tensor(bfloat16)"  # numpy has no such type
_BFLOAT16_KIND, _BFLOAT16_BYTES = 16, 2  # TensorProto's number of the type
_PAGE, _CACHE_LINE = 4096, 64  # bytes


class CacheMemory:
    """Allocates the past of one session.

    `inputs` are the session's past inputs by name, `place` the kind and number of its device,
    `head_dim` the width of cached keys where the graph leaves it open.
    """

    def __init__(
        self, inputs: Mapping[str, Any], place: tuple[str, int], head_dim: int | None
    ) -> None:
        self._inputs, self._place, self._head_dim = inputs, place, head_dim

    def values(self, rows: int, positions: int) -> dict[str, Any]:
        """Return zeros of so many positions as runtime values by input name."""
        if self._is_bfloat16:
            return self._allocate_bfloat16(rows, positions)
        return {name: self._value(self._zeros(name, rows, positions)) for name in self._inputs}

    def allocate(self, rows: int, positions: int) -> dict[str, Any]:
        """Allocate values of so many positions; on the CPU, in pages of their own each time."""
        import onnxruntime

        if self._is_bfloat16:
            return self._allocate_bfloat16(rows, positions)
        specs = {
            name: (self._shape(name, rows, positions), self.dtype(name)) for name in self._inputs
        }
        if self._place[0] != "cpu":
            make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
            return {name: make(*spec, *self._place) for name, spec in specs.items()}
        return {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(_fresh_pages(*spec))
            for name, spec in specs.items()
        }

    def copy(self, cache: KvCache, rows: int, capacity: int) -> dict[str, Any]:
        """Allocate values of `capacity` positions that hold the content of `cache`.

        Raises UsageError for bfloat16, which the runtime copies to no host.
        """
        if self._is_bfloat16:
            raise UsageError("a cache in bf16 cannot be moved; decode fewer tokens behind a prompt")
        values = self.allocate(rows, capacity)
        for name, value in cache.values.items():
            axis = self._inputs[name].shape.index(self._position_dim(name))
            part = (*[slice(None)] * axis, slice(0, cache.length))
            array = self._zeros(name, rows, capacity)
            array[part] = value.numpy()[part]
            values[name].update_inplace(array)
        return values

    def bytes(self, cache: KvCache) -> int:
        """Return the bytes of all keys and values, without those of free positions."""
        total = sum(
            math.prod(v.shape())
            * (_BFLOAT16_BYTES if self._is_bfloat16 else np.dtype(self.dtype(name)).itemsize)
            for name, v in cache.values.items()
        )
        buffer = cache.buffer
        return int(total if buffer is None else total * cache.length // buffer.capacity)

    @property
    def can_move(self) -> bool:
        """True if content can be copied to other memory."""
        return not self._is_bfloat16

    @property
    def _is_bfloat16(self) -> bool:
        return any(i.type == BFLOAT16 for i in self._inputs.values())

    def _allocate_bfloat16(self, rows: int, positions: int) -> dict[str, Any]:
        import onnxruntime

        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        return {
            name: make(self._shape(name, rows, positions), _BFLOAT16_KIND, *self._place)
            for name in self._inputs
        }

    def dtype(self, name: str) -> type:
        """Return the NumPy type of an input."""
        return DTYPES[self._inputs[name].type]

    def _zeros(self, name: str, rows: int, positions: int) -> np.ndarray:
        return np.zeros(self._shape(name, rows, positions), self.dtype(name))

    def _shape(self, name: str, rows: int, positions: int) -> list[int]:
        dims = self._inputs[name].shape
        return [d if isinstance(d, int) else self._open_dim(str(d), rows, positions) for d in dims]

    def _open_dim(self, dimension: str, rows: int, positions: int) -> int:
        """Return the size of a symbolic dimension: rows, positions, or else the head dimension."""
        if "batch" in dimension:
            return rows
        if "sequence" in dimension or "past" in dimension or "length" in dimension:
            return positions
        if self._head_dim is None:
            raise UsageError(
                f"the graph leaves the cache's dimension '{dimension}' open and no config tells "
                "it: put the model's config.json beside the graph"
            )
        return self._head_dim

    def _position_dim(self, name: str) -> Any:
        return next(d for d in self._inputs[name].shape if isinstance(d, str) and "batch" not in d)

    def _value(self, array: np.ndarray) -> Any:
        import onnxruntime

        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), *self._place)


def present_of(past: str) -> str:
    """Return the name of the output that continues a past input."""
    return re.sub(r"^past_key_values", "present", past)


def _fresh_pages(shape: list[int], dtype: type) -> np.ndarray:
    """Return an array in new pages that starts at a random cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    offset = _CACHE_LINE * random.randrange(_PAGE // _CACHE_LINE)
    memory = mmap.mmap(-1, size + _PAGE)
    return np.frombuffer(memory, dtype, math.prod(shape), offset).reshape(shape)
