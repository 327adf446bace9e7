"""Read a `genai_config.json` of the onnxruntime-genai builder; the graph gives the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgecap.errors import Uncountable
from edgecap.model.architecture.defaults import DEFAULTS
from edgecap.model.architecture.encoders import Sizes
from edgecap.model.architecture.families import FAMILIES, TEXT_TYPES, Family
from edgecap.model.architecture.fields import Config, Fields
from edgecap.model.architecture.layers import read_attention
from edgecap.model.architecture.unsupported import REFUSED, obstacle
from edgecap.record import Absent, Architecture, Layer, Mlp

PARTS = ("embedding", "encoder", "speech", "vision")  # of models that have more than a decoder
_EVEN = {"full", "sliding", "qwen", "flagged", "from_layer", "unrotated"}  # all layers alike

_STATE = re.compile(r"conv|recurrent|ssm|state", re.IGNORECASE)


def read_genai(genai: Config, matrix_weights: int, where: str) -> Architecture | Absent:
    """Read the architecture of a `genai_config.json`.

    The file leaves out the feed-forward: its width is what remains of the graph's `matrix_weights`
    after attention and LM head. Return Absent if that is not a whole number, or the layers are not
    all alike (experts, windows in some layers, recurrent layers, several graphs). Norms and biases
    are not in the file either, so only matrices are counted. Raise UsageError if a size is
    impossible.
    """
    model = _part(genai, "model")
    reason = _obstacle(model)
    if reason:
        return Absent(reason=f"genai_config.json: {reason}; edgecap cannot count it")
    try:
        return _read_plain(model, matrix_weights, where)
    except Uncountable as error:
        return Absent(reason=str(error))


def genai_sizes(genai: Config, where: str) -> Sizes:
    """Read positions and vocabulary. Raise UsageError if one is impossible."""
    model = _part(genai, "model")
    fields = Fields(_outer_sizes(model), where)
    return Sizes(fields.maybe("positions"), fields.maybe("vocabulary"))


def _outer_sizes(model: Config) -> dict[str, object]:
    return {
        "vocab_size": model.get("vocab_size"),
        "max_position_embeddings": model.get("context_length"),
    }


def _part(config: Config, name: str) -> Config:
    value = config.get(name)
    return value if isinstance(value, Mapping) else {}


def _obstacle(model: Config) -> str | None:
    """Return why the matrices of the graph and the file do not say what a token costs, or None."""
    decoder = _part(model, "decoder")
    several = [name for name in PARTS if _part(model, name)]
    if several:
        return f"the model has a part {several[0]!r} beside the decoder"
    if decoder.get("pipeline"):
        return "the decoder is split into several graphs"
    name = str(model.get("type") or "")
    model_type = _config_type(name)
    rules = FAMILIES.get(model_type)
    if rules and (rules.kinds not in _EVEN or "routed" in DEFAULTS.get(model_type, {})):
        return f"the layers of type '{name}' differ, or have experts"
    sizes = {n: v for n, v in decoder.items() if n not in ("inputs", "outputs", "session_options")}
    return _recurrent_input(decoder) or obstacle(sizes, model_type or name)


def _config_type(name: str) -> str:
    """Return the model type of config.json for the builder's name, which has no underscores."""
    plain = name.replace("_", "").replace("-", "").lower()
    types = {t.replace("_", "").replace("-", ""): t for t in (*REFUSED, *FAMILIES)}
    nested = {t.replace("_", "").replace("-", ""): text for t, text in TEXT_TYPES.items()}
    return types.get(plain) or nested.get(plain) or name


def _recurrent_input(decoder: Config) -> str | None:
    named = [f"{n} {v}" for n, v in _part(decoder, "inputs").items() if isinstance(v, str)]
    return next((f"its graph keeps a state: {n}" for n in named if _STATE.search(n)), None)


def _read_plain(model: Config, matrix_weights: int, where: str) -> Architecture | Absent:
    decoder = _part(model, "decoder")
    flat = {**decoder, **_outer_sizes(model), "head_dim": decoder.get("head_size")}
    flat.pop("sliding_window", None)  # an object with the settings of a provider
    fields = Fields(flat, where)
    hidden, layers = fields.need("hidden"), fields.need("layers")
    attention = read_attention(0, "full", fields, Family())
    q_and_o = 2 * hidden * attention.heads * attention.head_dim
    k_and_v = 2 * hidden * attention.kv_heads * attention.head_dim
    rest = matrix_weights - layers * (q_and_o + k_and_v) - hidden * fields.need("vocabulary")
    if rest <= 0 or rest % (3 * hidden * layers):
        return Absent(
            reason="genai_config.json leaves out the feed-forward, "
            "and the sizes of the graph's matrices do not determine it"
        )
    block = Mlp(width=rest // (3 * hidden * layers), gated=True)
    return Architecture(
        model_type=str(model.get("type") or ""),
        hidden=hidden,
        vocabulary=fields.need("vocabulary"),
        positions=fields.maybe("positions"),
        tied=False,
        layers=(Layer(count=layers, attention=attention, feed_forward=block),),
        assumed=True,
    )
