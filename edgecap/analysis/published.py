"""Information capacity of 39 published models, as context beside measured cells.

Read off the figure of arXiv 2511.08066 (marker centroids): about +-0.0002 in capacity and 2 % in
FLOPs. FLOPs are those of the published script, which takes hidden size / heads as head dimension
and counts a mixture of experts as dense. Compare only with cells that were scored alike
(`is_comparable`).
"""

from __future__ import annotations

import csv
import math
from importlib import resources
from typing import NamedTuple

from edgecap.record import Cell, Compression, Measurement, Profile

SOURCE = "arXiv 2511.08066"
CORPUS, PROTOCOL, CONTEXT, BIAS = "mixed_text", "paper", 1024, -24.0
CAPACITY_ERROR, FLOPS_ERROR = 0.0002, 0.02  # absolute, relative: how well a figure can be read


class PublishedModel(NamedTuple):
    """A published model: FLOPs per token and information capacity."""

    model: str
    flops_per_token: float
    information_capacity: float

    @property
    def gain_bits_per_token(self) -> float:
        """Return the bits gained per token, recovered from capacity and bias."""
        return self.information_capacity * math.log2(self.flops_per_token) - BIAS


# Dense models of one series, by the start of their names; the figure counts experts as dense.
SERIES = (
    "Qwen3",
    "Qwen1.5",
    "Llama-3",
    "InternLM2.5",
    "GLM-4-",
    "Gemma-3",
    "Hunyuan",
    "Ministral-3",
)
_EXPERTS = "MoE"


def published_series() -> dict[str, list[PublishedModel]]:
    """Return the published models of each series, by rising FLOPs."""
    points = [p for p in read_published() if _EXPERTS not in p.model]
    return {
        name.rstrip("-"): sorted(
            (p for p in points if p.model.startswith(name)), key=lambda p: p.flops_per_token
        )
        for name in SERIES
    }


def read_published() -> list[PublishedModel]:
    """Read the 39 points, in the order of the figure's legend."""
    text = resources.files("edgecap").joinpath("data", "published.csv").read_text("utf-8")
    return [
        PublishedModel(name, float(flops), float(capacity))
        for name, flops, capacity in list(csv.reader(text.split()))[1:]
    ]


def is_comparable(record: Profile, cell: Cell) -> bool:
    """Check that a cell was scored alike: protocol, window, name of the text, and bias."""
    outcome = cell.outcome
    compression = outcome.compression if isinstance(outcome, Measurement) else None
    return (
        isinstance(compression, Compression)
        and (compression.protocol, compression.context) == (PROTOCOL, CONTEXT)
        and (record.corpus.name, record.corpus.bias_bits) == (CORPUS, BIAS)
    )
