"""Parse an ONNX file and leave its large weights on disk, even if they are inside the file itself.

onnx's own parser reads 500 MB of weights to look at 8,000 nodes, and holds them twice. This one
walks the fields of the file, skips the bytes of large tensors, and notes in each where they lie, as
if the file were its own external data: the runtime then maps them and reads no more than it needs.

Field numbers: onnx.proto, messages ModelProto, GraphProto and TensorProto; protobuf's encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    import onnx

# Smaller tensors stay inside: they need an alignment that a file does not guarantee.
MIN_EXTERNAL_BYTES = 65_536
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    """A field: its number, and the offsets of its begin, its content and its end."""

    number: int
    begin: int
    content: int
    end: int


def parse_without_weights(path: Path) -> onnx.ModelProto:
    """Parse a model whose large tensors become external data, in other files or in this one.

    Raise ValueError or protobuf's DecodeError if the file is not ONNX or is cut short.
    """
    import onnx

    size = path.stat().st_size
    with path.open("rb") as file:
        rest, graphs = _split(file, 0, size, _GRAPH)
        model = onnx.ModelProto.FromString(rest)
        for graph in graphs[-1:]:
            rest, tensors = _split(file, graph.content, graph.end, _INITIALIZER)
            model.graph.ParseFromString(rest)
            model.graph.initializer.extend(_tensor(file, t, path.name) for t in tensors)
    return model


def _tensor(file: BinaryIO, field: _Field, name: str) -> onnx.TensorProto:
    import onnx

    if field.end - field.content < MIN_EXTERNAL_BYTES:
        return onnx.TensorProto.FromString(_read(file, field.content, field.end))
    rest, raw = _split(file, field.content, field.end, _RAW_DATA)
    tensor = onnx.TensorProto.FromString(rest)
    for data in raw:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        location = {"location": name, "offset": data.content, "length": data.end - data.content}
        tensor.external_data.extend(
            onnx.StringStringEntryProto(key=k, value=str(v)) for k, v in location.items()
        )
    return tensor


def _split(file: BinaryIO, at: int, end: int, number: int) -> tuple[bytes, list[_Field]]:
    """Return the encoding without the fields of one number, and those fields."""
    rest, matching = [], []
    for field in _fields(file, at, end):
        if field.number == number:
            matching.append(field)
        else:
            rest.append(_read(file, field.begin, field.end))
    return b"".join(rest), matching


def _fields(file: BinaryIO, at: int, end: int) -> Iterator[_Field]:
    while at < end:
        begin = at
        key, at = _varint(file, at)
        content = at
        if key & 7 == _BYTES:
            size, content = _varint(file, at)
            at = content + size
        elif key & 7 == _VARINT:
            _, at = _varint(file, at)
        elif key & 7 in (_FIXED64, _FIXED32):
            at += 8 if key & 7 == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {key & 7}")
        if at > end:
            raise ValueError("cut short")
        yield _Field(key >> 3, begin, content, at)


def _varint(file: BinaryIO, at: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(_read(file, at, at + 10)):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    raise ValueError("varint of more than 10 bytes")


def _read(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(end - begin)
