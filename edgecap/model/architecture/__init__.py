"""Read a Hugging Face `config.json` into `Architecture`: one table of data, no branching on names.

    families   Table of model types, and the names that configs use for each field.
    defaults   Sizes that the config of a type may leave out.
    fields     Look up a field and check its value.
    layers     Read one layer: attention, feed-forward, norms and biases.
    encoders   Tell encoders from decoders; read the input sizes of an encoder.
    unsupported  Tell models with other layers, which cannot be counted.
    genai      Read a `genai_config.json` of the onnxruntime-genai builder.

A model type that is not in the table is read by standard field names and marked `assumed`: its
norms and biases are then a guess (two norms a layer; biases if `attention_bias` or `mlp_bias` say
so). A missing or impossible field is an error that names it, and a model with recurrent or other
layers is one that cannot be counted. Counting is left to `flops`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import msgspec

from edgecap.errors import UsageError
from edgecap.model.architecture.defaults import DEFAULTS
from edgecap.model.architecture.encoders import (
    DECODER,
    ENCODER,
    ENCODERS,
    Sizes,
    encoder_sizes,
    encoder_task,
    task_of,
)
from edgecap.model.architecture.families import FAMILIES, FIELDS, TEXT_TYPES, Family
from edgecap.model.architecture.fields import Config, Fields
from edgecap.model.architecture.genai import genai_sizes, read_genai
from edgecap.model.architecture.layers import norm_size, read_layer
from edgecap.model.architecture.unsupported import ENCODER_DECODERS, obstacle
from edgecap.record import Architecture, Layer

__all__ = [
    "DECODER",
    "ENCODER",
    "FAMILIES",
    "Sizes",
    "decoder_sizes",
    "encoder_sizes",
    "encoder_task",
    "gives_shape",
    "genai_sizes",
    "read_architecture",
    "read_genai",
    "task_of",
]


def read_architecture(config: Config, where: str = "config.json") -> Architecture:
    """Read the architecture of a parsed `config.json`.

    `where` names the config in errors. Raise Uncountable if the model is a decoder that edgecap
    cannot count, and UsageError if it is no decoder, or a field is impossible.
    """
    fields, model_type = _fields(config, where)
    rules = FAMILIES.get(model_type, Family())
    _check_fields(fields, rules)
    layers = [read_layer(i, fields, rules) for i in range(fields.need("layers"))]
    return Architecture(
        model_type=model_type,
        hidden=fields.need("hidden"),
        vocabulary=fields.need("vocabulary"),
        positions=fields.maybe("positions"),
        tied=fields.flag(("tie_word_embeddings", rules.tied)),
        layers=tuple(_merge_equal(layers)),
        embedding_dim=fields.maybe("embedding_dim"),
        assumed=model_type not in FAMILIES,
        other=_weights_outside_layers(fields),
        tables=_tables(fields, rules),
        vectors=_vectors(fields, rules),
    )


def decoder_sizes(config: Config, where: str) -> Sizes:
    """Read positions and vocabulary of a decoder that edgecap cannot count.

    Raise UsageError if it is no decoder, or one of its sizes is impossible.
    """
    fields, _ = _fields(config, where)
    _check_sizes(fields)
    return Sizes(fields.maybe("positions"), fields.maybe("vocabulary"))


def gives_shape(config: Config) -> bool:
    """Return True if a config gives depth and width, or is of a type with names of its own.

    transformers would fill what is left out with the sizes of another model.
    """
    text = _text_part(config)
    model_type = str(text.get("model_type") or "")
    own_names = model_type not in FAMILIES and bool(model_type)
    return own_names or all(
        any(text.get(name) is not None for name in FIELDS[field]) for field in ("hidden", "layers")
    )


def _fields(config: Config, where: str) -> tuple[Fields, str]:
    """Return the fields of the language model and its type.

    Raise UsageError if it is no decoder.
    """
    if not isinstance(config, Mapping):
        raise UsageError(f"{where}: not an object with the fields of a model")
    text = _text_part(config)
    model_type = str(text.get("model_type") or "")
    for part in (config, text):
        _check_decoder(part, str(part.get("model_type") or ""), where)
    defaults = DEFAULTS.get(model_type, {})
    return Fields(text, where, defaults, nested_part=text is not config), model_type


def _text_part(config: Config) -> Config:
    """Return the config of the language model if several models share one config.

    `architectures` and `tie_word_embeddings` may stand outside of it. Its type is that of the whole
    if it names none.
    """
    inner = config.get("text_config")
    if not isinstance(inner, Mapping) or config.get("num_hidden_layers") is not None:
        return config
    outside = {n: config[n] for n in ("architectures", "tie_word_embeddings") if n in config}
    text = {**outside, **{n: v for n, v in inner.items() if v is not None or n not in outside}}
    if not text.get("model_type"):
        text["model_type"] = TEXT_TYPES.get(str(config.get("model_type")), "")
    return text


def _check_decoder(config: Config, model_type: str, where: str) -> None:
    """Raise UsageError if the model is no causal decoder."""
    if config.get("is_encoder_decoder") or model_type in ENCODER_DECODERS:
        raise UsageError(
            f"{where}: an encoder-decoder model; "
            "edgecap measures causal language models and encoders of text"
        )
    if model_type in ENCODERS:
        raise UsageError(
            f"{where}: model type '{model_type}': an encoder; "
            "count it from its graph (flops --onnx)"
        )
    if model_type not in FAMILIES and not _may_be_causal(config):
        raise UsageError(
            f"{where}: model type '{model_type}' is not a causal language model that edgecap knows"
        )


def _check_fields(fields: Fields, rules: Family) -> None:
    """Raise an error that names the first impossible value, all missing fields, or an obstacle."""
    _check_sizes(fields)
    reason = obstacle(fields.config, str(fields.config.get("model_type") or ""))
    if reason:
        raise fields.uncountable(f"{reason}; edgecap cannot count it")
    for field in ("kv_heads", "head_dim", "window", "width"):
        fields.maybe(field, 0)
    width = (
        ()
        if rules.width_factor or fields.maybe("width_factor") or fields.maybe("routed")
        else ("width",)
    )
    fields.require("hidden", "layers", "heads", "vocabulary", *width, *_left_out(fields))


def _left_out(fields: Fields) -> tuple[str, ...]:
    """Return what must be given for an unknown type inside of another config.

    Such a part leaves out what equals defaults, here unknown ones.
    """
    unknown = fields.nested_part and fields.config.get("model_type") not in DEFAULTS
    return ("kv_heads", "head_dim") if unknown else ()


def _check_sizes(fields: Fields) -> None:
    """Raise UsageError if a size that all decoders have is impossible."""
    for field in ("hidden", "layers", "heads", "vocabulary", "positions"):
        fields.maybe(field)


def _may_be_causal(config: Config) -> bool:
    """Return True if a causal class is named, or if the config names no class at all."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names:
        return True
    return any(
        str(name).endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
        for name in names
    )


def _weights_outside_layers(fields: Fields) -> int:
    """Return the weights of Gemma 3n outside of its layers: stream and layer-input projections."""
    n, hidden = fields.maybe("altup"), fields.need("hidden")
    return 0 if n is None else 2 * (n - 1) * hidden**2 + hidden * _layer_inputs(fields)


def _layer_inputs(fields: Fields) -> int:
    """Return the width of the layer inputs of Gemma 3n, summed over layers."""
    return fields.need("layers") * fields.need("layer_input")


def _tables(fields: Fields, rules: Family) -> int:
    """Return the numbers of all tables but that of tokens: positions, layer inputs."""
    learned = 0
    if rules.positions is not None:
        learned = ((fields.maybe("positions") or 0) + rules.positions) * fields.need("hidden")
    if fields.maybe("altup") is None:
        return learned
    return learned + fields.need("layer_input_vocabulary") * _layer_inputs(fields)


def _vectors(fields: Fields, rules: Family) -> int:
    """Return the numbers of the vectors outside of layers: norms, LM head bias."""
    norms = fields.flag(rules.final_norm) + rules.embedding_norm
    bias = fields.flag(rules.head_bias) * fields.need("vocabulary")
    return norms * norm_size(fields, rules) + bias + (fields.maybe("layer_input") or 0)


def _merge_equal(layers: list[Layer]) -> list[Layer]:
    """Merge equal layers into one entry with their number, in the order of first appearance."""
    total: dict[str, tuple[Layer, int]] = {}
    for layer, group in groupby(layers):
        key = repr(layer)
        total[key] = (layer, total.get(key, (layer, 0))[1] + len(list(group)))
    return [msgspec.structs.replace(layer, count=n) for layer, n in total.values()]
