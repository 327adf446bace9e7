"""Read tensors inside a graph while it runs: the activations that matrices are multiplied with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgecap.graph.activations import graph_with_outputs
from edgecap.protocols import Ids
from edgecap.runtime.engine import OrtEngine


class ActivationReader:
    """Runs a graph on the CPU and returns tensors by name. Weights stay on the disk."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._engine: OrtEngine | None = None
        self._names: tuple[str, ...] = ()

    def __call__(self, names: Sequence[str], ids: Ids) -> list[np.ndarray]:
        """Return float32 tensors of shape (1, n, width) of a prefill of ids, shape (n,)."""
        if self._engine is None or self._names != tuple(names):
            self._names, self._engine = tuple(names), None
            graph = graph_with_outputs(self._path, names)
            self._engine = OrtEngine(self._path, "cpu", self._threads, scoring=graph)
        return self._engine.tensors(ids, list(names))
