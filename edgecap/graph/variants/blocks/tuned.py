"""Make a graph whose groups of matrices have formats of their own, from roundings on the disk.

TUNING/smoothed/model.onnx   the fp32 graph with the scales of its activations moved
TUNING/rounded/N-4b64z.npz   matrix N in a format
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from edgecap.graph.last_logits import keep_last_logits
from edgecap.graph.onnx_file import open_graph, write_graph
from edgecap.graph.variants.blocks.formats import BY_CODE, FORMATS, Format
from edgecap.graph.variants.blocks.moments import Observe
from edgecap.graph.variants.blocks.nodes import pack, unpack
from edgecap.graph.variants.blocks.rounding import BlockWeights
from edgecap.graph.variants.blocks.weights import GraphWeights
from edgecap.protocols import Ids
from edgecap.provider_options import CONTRIB
from edgecap.storage.files import new_folder, write_atomically


class MatrixGroup(NamedTuple):
    """Matrices that get one format: those that read the same activations, or one table."""

    name: str
    matrices: tuple[str, ...]
    formats: tuple[Format, ...]


class TuningFolder:
    """The folder of a tuning: the smoothed graph and the matrices that were rounded so far."""

    def __init__(self, folder: Path) -> None:
        self.graph = folder / "smoothed" / "model.onnx"
        self._rounded = folder / "rounded"

    def open(self) -> GraphWeights:
        """Return the weights of the smoothed graph, without what was measured on samples."""
        return GraphWeights(open_graph(self.graph))

    def holds(self, weights: GraphWeights, group: MatrixGroup) -> bool:
        """Test whether all roundings of a group are there that take long."""
        kept = [f for f in group.formats if f.zero_points]
        return all(self._path(weights, n, f).is_file() for n in group.matrices for f in kept)

    def calibrate(self, source: Path, samples: Sequence[Ids], observe: Observe) -> GraphWeights:
        """Measure activations of an fp32 graph, and write the smoothed graph if it is not there.

        Returns its weights, which can be rounded as the samples allow.
        """
        weights = GraphWeights(open_graph(source))
        if samples:
            weights.calibrate(samples, observe)
        if not self.graph.is_file():
            with new_folder(self.graph.parent) as scratch:
                copy = type(weights.model)()
                copy.CopyFrom(weights.model)
                keep_last_logits(copy)
                write_graph(copy, scratch)
        return weights

    def round(self, weights: GraphWeights, name: str, chosen: Format) -> BlockWeights:
        """Return a matrix in a format, and keep it if rounding it takes long."""
        path = self._path(weights, name, chosen)
        if path.is_file():
            with contextlib.suppress(OSError, ValueError, KeyError, BadZipFile):
                return _read(path, chosen)
        rounded = weights.round(name, chosen)
        if chosen.zero_points:
            _write(path, rounded)
        return rounded

    def make(self, formats: Mapping[str, str], out: Path, operators: str = CONTRIB) -> list[str]:
        """Write a graph to `out` with a format, by its code, for each matrix, by its name.

        Returns the names of the files. Raises FileNotFoundError if a matrix was not rounded yet.
        """
        weights = self.open()
        rounded = {}
        for name, code in formats.items():
            chosen = BY_CODE[code]
            rounded[name] = (
                _read(self._path(weights, name, chosen), chosen)
                if chosen.zero_points
                else weights.round(name, chosen)
            )
        made: Any = weights.write(rounded, operators)
        return write_graph(made, out)

    def _path(self, weights: GraphWeights, name: str, chosen: Format) -> Path:
        return self._rounded / f"{weights.names.index(name)}-{chosen.code}.npz"


def find_groups(weights: GraphWeights) -> list[MatrixGroup]:
    """Return the groups of a graph's matrices, in the order of its nodes, with their formats."""
    members: dict[str, list[str]] = {}
    for name in weights.names:
        key = name if weights.is_table(name) else weights.source(name)
        members.setdefault(key, []).append(name)
    return [MatrixGroup(m[0], tuple(m), _formats(weights, m)) for m in members.values()]


def _formats(weights: GraphWeights, names: Sequence[str]) -> tuple[Format, ...]:
    return tuple(f for f in FORMATS if all(weights.may_have(name, f) for name in names))


def _write(path: Path, rounded: BlockWeights) -> None:
    buffer = io.BytesIO()
    codes = pack(rounded.codes, rounded.bits)
    np.savez(buffer, codes=codes, scales=rounded.scales, zeros=rounded.zeros)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def _read(path: Path, chosen: Format) -> BlockWeights:
    with np.load(path) as arrays:
        codes, scales, zeros = (arrays[name] for name in ("codes", "scales", "zeros"))
    return BlockWeights(unpack(codes, chosen.bits), scales, zeros, chosen.bits, chosen.block)
