"""Weights that a graph keeps in other files: list them, check them, read them, follow their links.

The Hub's cache is made of symbolic links, `snapshots/REVISION/NAME` to `blobs/HASH`. onnx reads no
weights through links, nor from files with several hard links. The runtime reads weights beside the
path of a graph, if no link leads out of that folder or the one that the graph itself lies in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgecap.errors import Unreadable
from edgecap.storage.files import link_note

if TYPE_CHECKING:
    import onnx

_EXTERNAL = 1  # TensorProto.EXTERNAL


class InMemoryGraph(NamedTuple):
    """A serialized graph without its weights, and the folder that their locations relate to."""

    model: bytes
    folder: Path


class _Place(NamedTuple):
    """Locate the weights of a tensor: file relative to the graph's folder, begin, length."""

    location: str
    offset: int
    length: int | None


def check_weights(model: onnx.ModelProto, path: Path) -> tuple[str, ...]:
    """Return the files with weights of a graph, relative to its folder.

    Raise Unreadable if one lies outside the folder, is missing or cut short.
    """
    ends: dict[str, int] = {}
    for tensor in _external(model):
        place = _place(tensor, path)
        ends[place.location] = max(place.offset + (place.length or 0), ends.get(place.location, 0))
    for name, end in ends.items():
        _check_file(path, name, end)
    return tuple(ends)


def read_weights(model: onnx.ModelProto, path: Path) -> None:
    """Read the weights of a graph into its tensors, also through links. See `check_weights`."""
    for tensor in _external(model):
        place = _place(tensor, path)
        with (path.parent / place.location).open("rb") as file:
            file.seek(place.offset)
            tensor.raw_data = file.read(-1 if place.length is None else place.length)
        tensor.data_location = 0
        del tensor.external_data[:]


def in_memory(model: onnx.ModelProto, path: Path) -> InMemoryGraph:
    """Serialize a graph for the runtime, with locations behind all links."""
    entries = [e for t in _external(model) for e in t.external_data if e.key == "location"]
    files = [(path.parent / e.value).resolve() for e in entries]
    folder = path.parent.resolve()
    if not all(file.is_relative_to(folder) for file in files):
        folder = Path(os.path.commonpath([file.parent for file in files]))
    for entry, file in zip(entries, files, strict=True):
        entry.value = file.relative_to(folder).as_posix()
    return InMemoryGraph(bytes(model.SerializeToString()), folder)


def _external(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    graphs = (model.graph, *model.functions)
    return (t for graph in graphs for t in _tensors(graph) if t.data_location == _EXTERNAL)


def _tensors(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a graph: weights, constants, and those of branches and loops."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)


def _place(tensor: onnx.TensorProto, path: Path) -> _Place:
    """Read where the weights of a tensor lie. Raise Unreadable if that is no place in a file."""
    entry = {e.key: e.value for e in tensor.external_data}
    try:
        offset = int(entry.get("offset") or 0)
        length = int(entry["length"]) if entry.get("length") else None
    except ValueError as error:
        raise Unreadable(f"{path}: the weights of {tensor.name} have no place: {error}") from error
    if offset < 0 or (length or 0) < 0 or not entry.get("location"):
        raise Unreadable(f"{path}: the weights of {tensor.name} have no place in a file")
    return _Place(os.path.normpath(entry["location"]), offset, length)


def _check_file(path: Path, name: str, end: int) -> None:
    """Raise Unreadable if weights lie outside the folder, are missing or cut short."""
    file = path.parent / name
    if os.path.isabs(name) or name.split(os.sep)[0] == os.pardir:
        raise Unreadable(f"{path} points to weights outside its folder: {name}")
    if not file.is_file():
        raise Unreadable(f"{path} needs its weights in {name}, which is missing{link_note(file)}")
    if file.stat().st_size < end:
        raise Unreadable(f"{file} is cut short: {file.stat().st_size} bytes of {end}")
