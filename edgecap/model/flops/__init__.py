"""FLOPs, numbers and bytes of a model, counted from `Architecture`; pure functions, nothing is measured.

A layer is a list of `matrices`; `work` sums what a token costs, `weights` how many numbers and bytes
there are. Definitions: docs/method.md, section FLOPs.
"""

from edgecap.model.flops.weights import (
    Parameters,
    kv_bytes,
    kv_bytes_per_token,
    parameters,
    read_bytes,
    state_bytes,
    stored_as,
    weight_bytes,
)
from edgecap.model.flops.work import (
    attention_core,
    count_flops,
    executed_prefill,
    latent_form,
    mean_positions,
    overtakes,
    parts_at,
    published_flops,
    seen_at,
    token_parts,
    total,
)

__all__ = [
    "Parameters",
    "attention_core",
    "count_flops",
    "executed_prefill",
    "kv_bytes",
    "kv_bytes_per_token",
    "latent_form",
    "mean_positions",
    "overtakes",
    "parameters",
    "parts_at",
    "published_flops",
    "read_bytes",
    "seen_at",
    "state_bytes",
    "stored_as",
    "token_parts",
    "total",
    "weight_bytes",
]
