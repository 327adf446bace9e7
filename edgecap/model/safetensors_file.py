"""Read and check the header of a safetensors file; its tensors are not read.

Format: 8 bytes of little-endian length, a JSON header of that length, then the tensors, which fill
the rest without gaps. https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import msgspec

from edgecap.errors import UsageError
from edgecap.names import is_buffer

LONGEST_HEADER = 100_000_000  # bytes; the library reads no longer ones
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


class StoredTensor(msgspec.Struct, frozen=True):
    """A tensor of a safetensors file: type as the format names it, shape, first and last byte."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    @property
    def count(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)


class SafetensorsHeader(msgspec.Struct, frozen=True):
    """The tensors of a safetensors file by name, and its `format`, the framework that saved it."""

    tensors: dict[str, StoredTensor]
    format: str | None


def read_header(path: Path) -> SafetensorsHeader:
    """Read the header of a safetensors file.

    Raise UsageError if the file is none, is cut short, or if its tensors overlap or leave gaps.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
            if not 0 < length <= min(size, LONGEST_HEADER):
                raise _invalid(path, _kind_of(head))
            header = json.loads(file.read(length), object_pairs_hook=_without_repeats)
        if not isinstance(header, dict):
            raise _invalid(path, "its header is not a JSON object")
        metadata = header.pop("__metadata__", None) or {}
        tensors = msgspec.convert(header, dict[str, StoredTensor])
        _check_places(path, tensors, size - 8 - length)
        return SafetensorsHeader(tensors, metadata.get("format"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, AttributeError, RecursionError, msgspec.ValidationError) as error:
        raise _invalid(path, str(error)) from error


def is_parameter(name: str) -> bool:
    """Return True if a tensor is no buffer that old checkpoints store beside the weights."""
    return not is_buffer(name)


def _invalid(path: Path, reason: str) -> UsageError:
    return UsageError(f"{path} is not a safetensors file, or cut short: {reason}")


def _kind_of(head: bytes) -> str:
    if head == b"version ":
        return "it is a pointer of Git LFS; run `git lfs pull`"
    return "it is empty" if not head else "it has no header"


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)} is there twice")
    return found


def _check_places(path: Path, tensors: dict[str, StoredTensor], size: int) -> None:
    """Raise UsageError if tensors do not fill the `size` bytes behind the header one by one."""
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        begin, end = tensor.data_offsets
        bits = _BITS.get(tensor.dtype)
        if bits is None:
            raise _invalid(path, f"{name} has the unknown type {tensor.dtype}")
        if begin != at or min(tensor.shape, default=0) < 0:
            raise _invalid(path, f"{name} lies over another tensor, or behind a gap")
        if 8 * (end - begin) != bits * tensor.count:
            raise _invalid(path, f"{name} has {end - begin} bytes for a shape of {tensor.shape}")
        at = end
    if at != size:
        problem = "is cut short" if at > size else "has more than its tensors"
        raise UsageError(f"{path} {problem}: {size} bytes of {at} behind the header")
