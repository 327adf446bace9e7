"""The information capacity of 39 models as published, to stand as context beside measured cells.

Read off the figure of arXiv 2511.08066 (marker centroids): about +-0.0002 in capacity and 2 % in FLOPs. The FLOPs
are those of the published script, which takes hidden size / heads for the head dimension and a mixture of experts
as dense. They compare only with cells that were scored as they were.
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
    """A published model: FLOPs a token and information capacity."""

    model: str
    flops_per_token: float
    information_capacity: float

    @property
    def gain_bits_per_token(self) -> float:
        """Bits gained a token that the capacity stands for, the bias of the text taken out."""
        return self.information_capacity * math.log2(self.flops_per_token) - BIAS


# Dense models of one series, by the beginning of their names; mixtures of experts were counted as dense.
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
    """The published models of each series, by rising FLOPs."""
    points = [p for p in read_published() if _EXPERTS not in p.model]
    return {
        name.rstrip("-"): sorted(
            (p for p in points if p.model.startswith(name)), key=lambda p: p.flops_per_token
        )
        for name in SERIES
    }


def read_published() -> list[PublishedModel]:
    """The 39 points in the order of the figure's legend."""
    text = resources.files("edgecap").joinpath("data", "published.csv").read_text("utf-8")
    return [
        PublishedModel(name, float(flops), float(capacity))
        for name, flops, capacity in list(csv.reader(text.split()))[1:]
    ]


def is_comparable(record: Profile, cell: Cell) -> bool:
    """Whether a cell was scored as the published models were: protocol, window, text by its name, and bias."""
    outcome = cell.outcome
    found = outcome.compression if isinstance(outcome, Measurement) else None
    return (
        isinstance(found, Compression)
        and (found.protocol, found.context) == (PROTOCOL, CONTEXT)
        and (record.corpus.name, record.corpus.bias_bits) == (CORPUS, BIAS)
    )
