"""Arrays of a run: what goes in beside the cache, and log2 p of the logits that come out."""

from __future__ import annotations

import math

import numpy as np

from edgecap.protocols import Floats, Ids

_CHUNK = 1 << 18  # numbers that a core's cache holds


def feeds(ids: Ids, past: int, total: int) -> dict[str, np.ndarray]:
    """Return the inputs beside the cache of a run of ids, shape (rows, n), behind `past` positions.

    The mask has `total` positions, with zeros behind those so far.
    """
    rows, n = ids.shape
    mask = np.zeros((rows, total), np.int64)
    mask[:, : past + n] = 1
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": np.tile(np.arange(past, past + n, dtype=np.int64), (rows, 1)),
        "token_type_ids": np.zeros((rows, n), np.int64),
    }


def log2_softmax(logits: np.ndarray) -> Floats:
    """Return log2 of the softmax over the last axis in float64, a few rows at a time."""
    rows = logits.reshape(-1, logits.shape[-1])
    result = np.empty(rows.shape, np.float64)
    step = max(1, _CHUNK // rows.shape[-1])
    for begin in range(0, len(rows), step):
        part = result[begin : begin + step]
        part[...] = rows[begin : begin + step]
        part -= part.max(axis=-1, keepdims=True)
        part -= np.log(np.exp(part).sum(axis=-1, keepdims=True))
        part /= math.log(2)
    return result.reshape(logits.shape)
