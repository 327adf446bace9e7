"""Quality of decoded tokens, where it differs from that of a text that is read in one run. Pure.

Bits of the corpus are those of texts read in runs of many positions. Divergence from fp32 is the
expected extra code length of text that fp32 predicts, so that decoding gains what fp32 gains on the
text less the divergence of decoded tokens.
"""

from __future__ import annotations

from edgecap.analysis.outcomes import compression_of
from edgecap.record import Absent, Cell, Graph, Profile


def decoding_shift(record: Profile, cell: Cell) -> float:
    """Return the bits a token that decoding gains less than reading in one run.

    0 unless the divergences differ clearly. Without an fp32 cell in the record, no bits are added:
    the text may not be as far from fp32 as the samples.
    """
    graph, text = cell.graph, compression_of(cell)
    if not isinstance(graph, Graph) or not graph.decoding_shift_bits or text is None:
        return 0.0
    fp32 = _gain_of_fp32(record, cell.provider)
    if fp32 is None or isinstance(graph.decoded_divergence_bits, Absent):
        return max(0.0, graph.decoding_shift_bits)
    return text.gain_bits_per_token - (fp32 - graph.decoded_divergence_bits)


def _gain_of_fp32(record: Profile, provider: str) -> float | None:
    """Return the bits that fp32 gains a token on the text, on this provider if it ran there."""
    texts = (
        compression_of(cell)
        for here in (True, False)
        for cell in record.cells
        if cell.precision == "fp32" and (cell.provider == provider) is here
    )
    return next((text.gain_bits_per_token for text in texts if text), None)


def worst_divergence(graph: Graph | Absent) -> float | None:
    """Return the larger of the divergences in bits a token, None if none was measured.

    Decoding counts if it differs clearly from reading in one run.
    """
    if isinstance(graph, Absent) or isinstance(graph.divergence_bits, Absent):
        return None
    decoded = graph.decoded_divergence_bits if graph.decoding_shift_bits else 0.0
    return max(graph.divergence_bits, 0.0 if isinstance(decoded, Absent) else decoded)
