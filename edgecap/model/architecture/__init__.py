"""Reads a Hugging Face `config.json` into `Architecture`: one table of data, no branching on names.

A field is looked up under the names that published configs use for it; what differs between model
types beyond that stands in `families`. A type that is not in the table is taken by standard field
names and marked `assumed` (its norms and biases are then a guess: two norms a layer, biases where
`attention_bias` or `mlp_bias` say so); what is missing or impossible is refused, naming the field.
Counting is left to `flops`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import msgspec

from edgecap.errors import UsageError
from edgecap.model.architecture.encoders import (
    DECODER,
    ENCODER,
    ENCODERS,
    Sizes,
    encoder_sizes,
    encoder_task,
    task_of,
)
from edgecap.model.architecture.families import FAMILIES, REFUSED, UNSUPPORTED_FIELDS, Family
from edgecap.model.architecture.fields import Config, Fields
from edgecap.model.architecture.genai import read_genai
from edgecap.model.architecture.layers import norm_size, read_layer
from edgecap.record import Architecture, Layer

__all__ = [
    "DECODER",
    "ENCODER",
    "FAMILIES",
    "Sizes",
    "encoder_sizes",
    "encoder_task",
    "read_architecture",
    "read_genai",
    "task_of",
]


def read_architecture(config: Config, where: str = "config.json") -> Architecture:
    """The architecture of a parsed `config.json`.

    Raises UsageError naming the missing or impossible field, `where` it stands.
    """
    if not isinstance(config, Mapping):
        raise UsageError(f"{where}: not an object with the fields of a model")
    config = _text_part(config, where)
    model_type = str(config.get("model_type") or "")
    _refuse(config, model_type, where)
    fields, rules = Fields(config, where), FAMILIES.get(model_type, Family())
    _check(fields, rules)
    layers = [read_layer(i, fields, rules) for i in range(fields.need("layers"))]
    return Architecture(
        model_type=model_type,
        hidden=fields.need("hidden"),
        vocabulary=fields.need("vocabulary"),
        positions=fields.maybe("positions"),
        tied=fields.flag(("tie_word_embeddings", rules.tied)),
        layers=tuple(_count(layers)),
        embedding_dim=fields.maybe("embedding_dim"),
        assumed=model_type not in FAMILIES,
        other=_beside_layers(fields),
        tables=_tables(fields, rules),
        vectors=_vectors(fields, rules),
    )


def _text_part(config: Config, where: str) -> Config:
    """The language model within a model of several; whether its embeddings are tied may stand outside."""
    inner = config.get("text_config")
    if isinstance(inner, Mapping) and "num_hidden_layers" not in config:
        outside = {n: config[n] for n in ("architectures", "tie_word_embeddings") if n in config}
        return {**outside, **{n: v for n, v in inner.items() if v is not None or n not in outside}}
    if config.get("is_encoder_decoder"):
        raise UsageError(
            f"{where}: an encoder-decoder model; edgecap measures causal language models and encoders of text"
        )
    return config


def _refuse(config: Config, model_type: str, where: str) -> None:
    """Refuses what would be counted wrongly: no decoder, or other blocks than attention and feed-forward."""
    if model_type in REFUSED:
        raise UsageError(
            f"{where}: model type '{model_type}': {REFUSED[model_type]}; edgecap cannot count it"
        )
    if model_type in ENCODERS:
        raise UsageError(
            f"{where}: model type '{model_type}': an encoder; it is counted from its graph (flops --onnx)"
        )
    if model_type not in FAMILIES and not _may_be_causal(config):
        raise UsageError(
            f"{where}: model type '{model_type}' is not a causal language model that edgecap knows"
        )
    found = [name for name in UNSUPPORTED_FIELDS if config.get(name)]
    feed_forward = Fields(config, where).nested("ffn_config").get("ffn_type", "mptmlp")
    if feed_forward != "mptmlp":
        found.append(f"ffn_type {feed_forward}")
    if found:
        raise UsageError(
            f"{where}: {found[0]} says that this is no plain decoder; edgecap cannot count it yet"
        )


def _check(fields: Fields, rules: Family) -> None:
    """All missing fields in one error; impossible values of fields that this type may not even use."""
    width = (
        ()
        if rules.width_factor or fields.maybe("width_factor") or fields.maybe("routed")
        else ("width",)
    )
    fields.require("hidden", "layers", "heads", "vocabulary", *width)
    for field in ("kv_heads", "head_dim", "positions", "window", "width"):
        fields.maybe(field, 0)


def _may_be_causal(config: Config) -> bool:
    """Whether a class of a causal model is named; without any named class, standard fields are believed."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names:
        return True
    return any(
        str(name).endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
        for name in names
    )


def _beside_layers(fields: Fields) -> int:
    """Gemma 3n: projections of the streams in and out, and of every layer's own input."""
    n, hidden = fields.maybe("altup"), fields.need("hidden")
    return 0 if n is None else 2 * (n - 1) * hidden**2 + hidden * _layer_inputs(fields)


def _layer_inputs(fields: Fields) -> int:
    return fields.need("layers") * fields.need("layer_input")


def _tables(fields: Fields, rules: Family) -> int:
    learned = 0
    if rules.positions is not None:
        learned = ((fields.maybe("positions") or 0) + rules.positions) * fields.need("hidden")
    if fields.maybe("altup") is None:
        return learned
    return learned + fields.need("layer_input_vocabulary") * _layer_inputs(fields)


def _vectors(fields: Fields, rules: Family) -> int:
    norms = fields.flag(rules.final_norm) + rules.embedding_norm
    bias = fields.flag(rules.head_bias) * fields.need("vocabulary")
    return norms * norm_size(fields, rules) + bias + (fields.maybe("layer_input") or 0)


def _count(layers: list[Layer]) -> list[Layer]:
    """Equal layers as one entry with their number; neighbours first, so that the order stays readable."""
    total: dict[str, tuple[Layer, int]] = {}
    for layer, group in groupby(layers):
        key = repr(layer)
        total[key] = (layer, total.get(key, (layer, 0))[1] + len(list(group)))
    return [msgspec.structs.replace(layer, count=n) for layer, n in total.values()]
