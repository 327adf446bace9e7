"""Which models are encoders of text, and how many positions and ids they take. What an encoder costs is counted from its graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edgecap.model.architecture.fields import Config, Fields

DECODER, ENCODER = "decoder", "encoder"
# Their positions begin behind the padding id: a table of 514 with padding id 1 is one of 512.
PADDED = {
    *(
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
    ),
    *("xlm-roberta", "xlm-roberta-xl", "xmod"),
}
ENCODERS = {
    *PADDED,
    *(
        "albert",
        "bert",
        "big_bird",
        "convbert",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "ernie",
        "eurobert",
    ),
    *(
        "flaubert",
        "funnel",
        "megatron-bert",
        "mobilebert",
        "modernbert",
        "mra",
        "neobert",
        "nomic_bert",
        "nystromformer",
    ),
    *("rembert", "roformer", "splinter", "squeezebert", "xlm", "yoso"),
}


class Sizes(NamedTuple):
    """Positions that a model takes at once, and ids that it tells apart; None where nothing tells."""

    positions: int | None = None
    vocabulary: int | None = None


def task_of(config: Config) -> str | None:
    """What a config says that the model does; None where there is no config. `read_architecture` refuses other models."""
    if not config:
        return None
    names = config.get("architectures")
    named = [str(name) for name in names] if isinstance(names, list) else []
    if (
        config.get("is_encoder_decoder")
        or config.get("is_decoder") is True
        or any(map(_is_causal, named))
    ):
        return DECODER
    masked = any(name.endswith("ForMaskedLM") for name in named)
    return ENCODER if masked or config.get("model_type") in ENCODERS else DECODER


def _is_causal(name: str) -> bool:
    return name.endswith("ForCausalLM") or (
        name.endswith("LMHeadModel") and not name.endswith("WithLMHeadModel")
    )


def encoder_sizes(config: Config, where: str) -> Sizes:
    """What a config tells of an encoder's inputs. Raises UsageError where a field is no number."""
    fields = Fields(config, where)
    positions, padding = fields.maybe("positions"), config.get("pad_token_id")
    if positions and config.get("model_type") in PADDED:
        positions = max(1, positions - 1 - (padding if isinstance(padding, int) else 1))
    return Sizes(positions, fields.maybe("vocabulary"))


def encoder_task(config: Mapping[str, object]) -> str:
    """What an encoder is exported for: its predictions of masked tokens where it has such a head, else its states."""
    names = config.get("architectures")
    masked = isinstance(names, list) and any(str(name).endswith("ForMaskedLM") for name in names)
    return "fill-mask" if masked else "feature-extraction"
