"""Counts of a model from its config alone: FLOPs, parameters, cache and weight bytes.

Puts the results of `flops` side by side as one value for `edgecap flops`; nothing is counted here.
"""

from __future__ import annotations

import msgspec

from edgecap.model import flops
from edgecap.record import Architecture, FlopParts
from edgecap.spec import DEFAULT_PRECISIONS

KV_BYTES = {"fp32": 4.0, "fp16": 2.0}  # of a number in the cache


class ContextCounts(msgspec.Struct, frozen=True):
    """Counts at one context of a sweep; bytes are those of an fp16 cache.

    `token_flops` are those of the token at position `context`, `prefill_flops` those of a prompt of
    that length. Windows and chunks keep no more positions than they attend to, as engines do;
    graphs of Optimum keep all.
    """

    context: int
    token_flops: float
    attention_share: float
    prefill_flops: float
    kv_bytes: float


class LatentForms(msgspec.Struct, frozen=True):
    """Latent attention in both forms: FLOPs of a decoded token, and cached numbers per token."""

    executed: str
    expanded_flops: float
    absorbed_flops: float
    expanded_kv_numbers: float
    absorbed_kv_numbers: float


class ConfigCounts(msgspec.Struct, frozen=True, kw_only=True):
    """All counts of one architecture; FLOPs and cache bytes are those of `batch` sequences.

    `token` is the mean over `context` steps from an empty cache, `prefill` a prompt of `prompt`
    tokens. `published_flops` is what the scripts of arXiv 2511.08066 call N, for one sequence.
    `overtakes` is the context from which attention costs more than the weights.
    """

    name: str
    model_type: str
    assumed: bool
    batch: int
    context: int
    prompt: int
    parameters: int
    active_parameters: int
    token_flops: float
    token: FlopParts
    prefill_flops: float
    prefill: FlopParts
    published_flops: float
    kv_bytes_per_token: dict[str, float]
    state_bytes: float
    weight_bytes: dict[str, int]
    windowed: bool
    overtakes: int | None
    latent: LatentForms | None
    sweep: tuple[ContextCounts, ...] = ()


def count_config(
    model: Architecture,
    name: str,
    context: int,
    prompt: int,
    batch: int = 1,
    sweep: tuple[int, ...] = (),
) -> ConfigCounts:
    """Count one architecture: FLOPs of a token and a prompt, parameters, cache and weight bytes.

    `context`, `prompt` and the contexts in `sweep` are in tokens. See `ConfigCounts` for the
    result.
    """
    token, prefill = flops.token_parts(model, context), flops.prefill_parts(model, prompt)
    sizes = flops.parameters(model)
    return ConfigCounts(
        name=name,
        model_type=model.model_type,
        assumed=model.assumed,
        batch=batch,
        context=context,
        prompt=prompt,
        parameters=sizes.total,
        active_parameters=sizes.active,
        token_flops=batch * flops.total(token),
        token=_scaled(token, batch),
        prefill_flops=batch * flops.total(prefill),
        prefill=_scaled(prefill, batch),
        published_flops=flops.published_flops(model, context),
        kv_bytes_per_token={
            name: batch * flops.kv_bytes_per_token(model, width) for name, width in KV_BYTES.items()
        },
        state_bytes=batch * flops.state_bytes(model, KV_BYTES["fp32"]),
        weight_bytes={
            precision: flops.weight_bytes(model, precision) for precision in DEFAULT_PRECISIONS
        },
        windowed=any(
            getattr(layer.attention, "window", None) or getattr(layer.attention, "chunk", None)
            for layer in model.layers
        ),
        overtakes=flops.crossover_context(model),
        latent=_latent_forms(model, context),
        sweep=tuple(_context_counts(model, at, batch) for at in sweep),
    )


def _scaled(parts: FlopParts, factor: int) -> FlopParts:
    return FlopParts(
        **{name: factor * getattr(parts, name) for name in FlopParts.__struct_fields__}
    )


def _context_counts(model: Architecture, context: int, batch: int) -> ContextCounts:
    parts = flops.token_parts_at(model, context)
    return ContextCounts(
        context=context,
        token_flops=batch * flops.total(parts),
        attention_share=parts.attention_core / flops.total(parts),
        prefill_flops=batch * flops.total(flops.prefill_parts(model, context)),
        kv_bytes=batch * flops.kv_bytes(model, context, KV_BYTES["fp16"]),
    )


def _latent_forms(model: Architecture, context: int) -> LatentForms | None:
    if not any(getattr(layer.attention, "latent", None) for layer in model.layers):
        return None
    forms = [
        flops.total(flops.token_parts(model, context, absorbed=absorbed))
        for absorbed in (False, True)
    ]
    cached = [flops.kv_bytes_per_token(model, 1.0, absorbed=absorbed) for absorbed in (False, True)]
    return LatentForms("expanded", *forms, *cached)
