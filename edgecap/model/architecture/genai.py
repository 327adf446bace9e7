"""Read a `genai_config.json` of the onnxruntime-genai builder; the graph gives the rest."""

from __future__ import annotations

from edgecap.model.architecture.families import Family
from edgecap.model.architecture.fields import Config, Fields
from edgecap.model.architecture.layers import read_attention
from edgecap.record import Absent, Architecture, Layer, Mlp


def read_genai(genai: Config, matrix_weights: int, where: str) -> Architecture | Absent:
    """Read the architecture of a `genai_config.json`.

    The file leaves out the feed-forward: its width is what remains of the graph's `matrix_weights`
    after attention and LM head. Return Absent if that is not a whole number (experts, other
    blocks). Norms and biases are not in the file either, so only matrices are counted.
    """
    model = genai.get("model") or {}
    flat = {**(model.get("decoder") or {}), "vocab_size": model.get("vocab_size"), "head_dim": None}
    fields = Fields({**flat, "head_dim": flat.get("head_size")}, where)
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
        positions=model.get("context_length"),
        tied=False,
        layers=(Layer(count=layers, attention=attention, feed_forward=block),),
        assumed=True,
    )
