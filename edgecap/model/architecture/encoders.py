"""Tell encoders of text from decoders, and read their input sizes.

The cost of an encoder is counted from its graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edgecap.model.architecture.fields import Config, Fields

DECODER, ENCODER = "decoder", "encoder"
# Positions begin behind the padding id: a table of 514 with padding id 1 takes 512 positions.
PADDED = {
    *("camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
}
ENCODERS = {
    *PADDED,
    *("albert", "bert", "big_bird", "convbert", "deberta", "deberta-v2", "distilbert", "electra"),
    *("ernie", "eurobert", "flaubert", "funnel", "megatron-bert", "mobilebert", "modernbert"),
    *("mra", "neobert", "nomic_bert", "nystromformer", "rembert", "roformer", "splinter"),
    *("squeezebert", "xlm", "yoso"),
}


class Sizes(NamedTuple):
    """Positions that a model takes at once, and size of its vocabulary; None if not known."""

    positions: int | None = None
    vocabulary: int | None = None


def task_of(config: Config) -> str | None:
    """Return the task of a model by its config: decoder or encoder; None for an empty config.

    Other models count as decoders here; `read_architecture` refuses them.
    """
    if not config:
        return None
    architectures = config.get("architectures")
    classes = [str(name) for name in architectures] if isinstance(architectures, list) else []
    if (
        config.get("is_encoder_decoder")
        or config.get("is_decoder") is True
        or any(map(_is_causal, classes))
    ):
        return DECODER
    masked = any(name.endswith("ForMaskedLM") for name in classes)
    return ENCODER if masked or config.get("model_type") in ENCODERS else DECODER


def _is_causal(name: str) -> bool:
    return name.endswith("ForCausalLM") or (
        name.endswith("LMHeadModel") and not name.endswith("WithLMHeadModel")
    )


def encoder_sizes(config: Config, where: str) -> Sizes:
    """Read the input sizes of an encoder. Raise UsageError if a field is not a number."""
    fields = Fields(config, where)
    positions, padding = fields.maybe("positions"), config.get("pad_token_id")
    if positions and config.get("model_type") in PADDED:
        positions = max(1, positions - 1 - (padding if isinstance(padding, int) else 1))
    return Sizes(positions, fields.maybe("vocabulary"))


def encoder_task(config: Mapping[str, object]) -> str:
    """Return Optimum's task for the export: fill-mask if there is such a head, else features."""
    architectures = config.get("architectures")
    masked = isinstance(architectures, list) and any(
        str(name).endswith("ForMaskedLM") for name in architectures
    )
    return "fill-mask" if masked else "feature-extraction"
