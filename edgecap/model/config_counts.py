"""What a config tells without a model: FLOPs, parameters, cache and weight bytes, and how they grow.

Puts the counts of `flops` side by side as one value for `edgecap flops`; nothing is counted here.
"""

from __future__ import annotations

import msgspec

from edgecap.model import flops
from edgecap.record import Architecture, FlopParts
from edgecap.spec import DEFAULT_PRECISIONS

KV_BYTES = {"fp32": 4.0, "fp16": 2.0}  # of a number in the cache


class ContextCounts(msgspec.Struct, frozen=True):
    """One context of a sweep: FLOPs of the token at that position and of a prompt that long, bytes of the fp16 cache.

    Windows and chunks keep no more positions than they see, as engines do; graphs of Optimum keep them all.
    """

    context: int
    token_flops: float
    attention_share: float
    prefill_flops: float
    kv_bytes: float


class LatentForms(msgspec.Struct, frozen=True):
    """Latent attention in both forms: FLOPs of a decoded token, and numbers kept a token."""

    executed: str
    expanded_flops: float
    absorbed_flops: float
    expanded_kv_numbers: float
    absorbed_kv_numbers: float


class ConfigCounts(msgspec.Struct, frozen=True, kw_only=True):
    """All counts of one architecture; FLOPs and bytes are of `batch` sequences.

    `token` is the mean over `context` steps from an empty cache, `prefill` a prompt of `prompt` tokens,
    `published_flops` what the scripts of arXiv 2511.08066 call N, for one sequence.
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
    """Counts an architecture; see `ConfigCounts`."""
    token, prefill = flops.token_parts(model, context), flops.token_parts(model, prompt)
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
        token=_times(token, batch),
        prefill_flops=batch * prompt * flops.total(prefill),
        prefill=_times(prefill, batch * prompt),
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
        latent=_latents(model, context),
        sweep=tuple(_grown(model, at, batch) for at in sweep),
    )


def _times(parts: FlopParts, factor: int) -> FlopParts:
    return FlopParts(
        **{name: factor * getattr(parts, name) for name in FlopParts.__struct_fields__}
    )


def _grown(model: Architecture, context: int, batch: int) -> ContextCounts:
    parts = flops.token_parts_at(model, context)
    return ContextCounts(
        context=context,
        token_flops=batch * flops.total(parts),
        attention_share=parts.attention_core / flops.total(parts),
        prefill_flops=batch * context * flops.total(flops.token_parts(model, context)),
        kv_bytes=batch * flops.kv_bytes(model, context, KV_BYTES["fp16"]),
    )


def _latents(model: Architecture, context: int) -> LatentForms | None:
    if not any(getattr(layer.attention, "latent", None) for layer in model.layers):
        return None
    forms = [
        flops.total(flops.token_parts(model, context, absorbed=form)) for form in (False, True)
    ]
    kept = [flops.kv_bytes_per_token(model, 1.0, absorbed=form) for form in (False, True)]
    return LatentForms("expanded", *forms, *kept)
