"""Warnings about divergence from fp32, and about the text: size, tokens, bias, machines. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgecap.analysis.decoding import worst_divergence
from edgecap.record import Absent, Caution, Compression, Graph, WidestActivation
from edgecap.text.bias_card import BiasCard
from edgecap.units import significant

DIVERGENT = 0.1  # bits per token from fp32
FEW_DOCUMENTS = 30
DECODED, NOT_SCORED = "decoded-divergence", "decoded-not-scored"
_AROUND = re.compile(r"^/?(model/)?|/MatMul$")  # parts of a node's name that say nothing
FOREIGN_BIAS = "bias-of-another-protocol"


def check_divergence(graph: Graph, closer: str) -> Iterator[Caution]:
    """Warn about predictions far from fp32; `closer` is advice to use another variant, or ""."""
    bits = worst_divergence(graph)
    if bits is not None and bits > DIVERGENT:
        yield Caution(
            code="divergent",
            message=f"predictions diverge from fp32 by {bits:.2f} bits per token",
            advice=closer or "check the quality of generated text before shipping this variant",
        )


def check_decoding(graph: Graph, text: Compression, shift_bits: float) -> Iterator[Caution]:
    """Warn if decoded tokens are closer to fp32 than the same ones read in one run, or further.

    `shift_bits` is what a decoded token gains less than one of the text, as the scores take it.
    """
    decoded, prefilled = graph.decoded_divergence_bits, graph.prefilled_divergence_bits
    if graph.decoding_shift_bits and isinstance(decoded, float) and isinstance(prefilled, float):
        far = f"{decoded:.2f} bits from fp32 if decoded, {prefilled:.2f} prefilled"
        cause = f": {_describe_widest(graph.widest_activation)}" if graph.widest_activation else ""
        gain = text.gain_bits_per_token
        yield Caution(
            code=DECODED if shift_bits else NOT_SCORED,
            message=f"{far}{cause}",
            advice=f"scores of decoding take {gain - shift_bits:.2f} bits gained a token, "
            f"{gain:.2f} were measured on the text"
            if shift_bits
            else f"scores of decoding take the {gain:.2f} bits gained a token of the text, which "
            "are too few: measure fp32 in the same run",
        )


def _describe_widest(widest: WidestActivation) -> str:
    """Say where the widest activation is: `layers.2/mlp/down_proj reads 90, typically 1.3`."""
    largest, typical = significant(widest.largest), significant(widest.typical)
    return f"{_AROUND.sub('', widest.node)} reads {largest}, typically {typical}"


def check_compression(compression: Compression, quick: bool = False) -> Iterator[Caution]:
    """Warn about few documents, a lossy tokenizer, and text that other machines scored."""
    if compression.documents < FEW_DOCUMENTS:
        yield Caution(
            code="few-documents",
            message=f"few documents ({compression.documents}) give wide intervals for the gain",
            advice=f"{'leave out --quick and ' * quick}use a corpus of at least {FEW_DOCUMENTS} "
            "documents",
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
