"""KL divergence of a graph from itself when some of its matrices are replaced, in bits a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgecap.meters.divergence import divergence_rows
from edgecap.protocols import Floats, Ids, OverridableEngine


class SensitivityMeter:
    """Compares predictions with replaced matrices to those of the stored ones.

    `samples` are token ids, each of shape (n,).
    """

    def __init__(self, engine: OverridableEngine, samples: Sequence[Ids]) -> None:
        self._engine, self._samples = engine, samples
        self._expected: list[Floats] = [engine.log_probabilities(ids) for ids in samples]

    def divergence_bits(self, matrices: Mapping[str, np.ndarray]) -> float:
        """Return the mean divergence over all positions with these tensors in place."""
        self._engine.overrides = dict(matrices)
        try:
            rows = [
                divergence_rows(expected, self._engine.log_probabilities(ids))[0]
                for expected, ids in zip(self._expected, self._samples, strict=True)
            ]
        finally:
            self._engine.overrides = {}
        return float(np.concatenate(rows).mean())
