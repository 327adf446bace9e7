"""Warnings about the text: corpus size, tokenization, bias, and where it was scored. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edgecap.record import Absent, Caution, Compression
from edgecap.text.bias_card import BiasCard

FEW_DOCUMENTS = 30
FOREIGN_BIAS = "bias-of-another-protocol"


def check_compression(compression: Compression) -> Iterator[Caution]:
    """Warn about few documents, a lossy tokenizer, and text that other machines scored."""
    if compression.documents < FEW_DOCUMENTS:
        yield Caution(
            code="few-documents",
            message=f"few documents ({compression.documents}) give wide intervals for the gain",
            advice=f"use a corpus of at least {FEW_DOCUMENTS} documents",
        )
    if not compression.lossless_tokens:
        yield Caution(
            code="not-lossless",
            message="the tokenizer changes some texts: its ids do not decode to the same bytes",
            advice="bits per byte divides by all bytes of the text, also by those that are lost: "
            "compare it with no other model",
        )
    if compression.scored_on:
        yield Caution(
            code="scored-elsewhere",
            message=f"the text was scored in parts on {', '.join(compression.scored_on)}",
            advice="bits are those of the graph; on different processors "
            "the last digits may differ too",
        )


def foreign_bias(card: BiasCard | None, text: Compression | Absent) -> Iterator[Caution]:
    """Warn about a bias that was fitted under another protocol, window or stride than the score."""
    if card is None or isinstance(text, Absent):
        return
    fitted, scored = ((x.protocol, x.context, x.stride) for x in (card, text))
    if fitted != scored:
        yield Caution(
            code=FOREIGN_BIAS,
            message=(
                f"the bias {card.bias_bits:.2f} was fitted under {_describe_scoring(*fitted)}; "
                f"this text was scored under {_describe_scoring(*scored)}"
            ),
            advice="fit a bias for this protocol (edgecap fit) or give --bias",
        )


def _describe_scoring(protocol: str, context: int, stride: int | None) -> str:
    return f"protocol {protocol}, window {context}{f', stride {stride}' if stride else ''}"
