"""Count FLOPs, parameters and bytes of an `Architecture`: pure functions, nothing is measured.

    matrices    The matrices of a model, from which all counts are summed.
    operations  FLOPs of a decoded token, of a prompt, and of their parts.
    weights     Parameters, weight bytes, and bytes of the KV cache and recurrent states.

Definitions: docs/method.md, section FLOPs.
"""

from edgecap.model.flops.operations import (
    attended_positions,
    attention_core,
    count_flops,
    crossover_context,
    executed_prefill,
    latent_form,
    mean_positions,
    prefill_parts,
    published_flops,
    token_parts,
    token_parts_at,
    total,
)
from edgecap.model.flops.weights import (
    STORED,
    Parameters,
    kv_bytes,
    kv_bytes_per_token,
    parameters,
    read_bytes,
    state_bytes,
    storage_precision,
    weight_bytes,
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
    "crossover_context",
    "parameters",
    "prefill_parts",
    "token_parts_at",
    "published_flops",
    "read_bytes",
    "attended_positions",
    "state_bytes",
    "STORED",
    "storage_precision",
    "token_parts",
    "total",
    "weight_bytes",
]
