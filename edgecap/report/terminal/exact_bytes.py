"""Exact code lengths compared with the encoder's tokens, and the texts that differ most."""

from __future__ import annotations

import click

from edgecap.meters.exact.texts import ExactBytesTotals
from edgecap.names import printable, shortened
from edgecap.record import Estimate
from edgecap.report.format import table, wrapped
from edgecap.units import counted

WORST = 5  # texts that are listed


def exact_text(totals: ExactBytesTotals, width: int) -> str:
    """Return the three code lengths, and the texts whose own tokens cost most over them."""
    head = (
        f"{click.style(printable(totals.model), bold=True)} {totals.precision} on "
        f"{totals.provider}: the first "
        f"{counted(totals.most_bytes, 'byte')} or fewer of "
        f"{counted(totals.documents, 'document')} of "
        f"{printable(totals.corpus)}, {counted(totals.bytes, 'byte')}"
    )
    rows = [
        ["the encoder's own tokens", f"{totals.single:.4f}", ""],
        [
            "all tokenizations of the text",
            f"{totals.tokenizations:.4f}",
            _saved(totals.saved_by_tokenizations),
        ],
        ["all that begins with the text", f"{totals.covers:.4f}", _saved(totals.saved_by_covers)],
    ]
    note = (
        "in the last row the final token may run past the end, which counts once a text; exact to "
        f"{totals.undecided:.1g} bits/byte"
    )
    left = (
        f"left out: {counted(totals.left_out, 'document')} without text, or with a first "
        f"character of more than {counted(totals.most_bytes, 'byte')}"
    )
    worst = sorted(totals.texts, key=lambda t: t.covers_bits - t.single_bits)[:WORST]
    texts = [
        [shortened(t.id, 24), shortened(t.domain, 24), str(t.bytes), str(t.tokens)]
        + [f"{bits:.2f}" for bits in (t.single_bits, t.tokenizations_bits, t.covers_bits)]
        for t in worst
    ]
    header = [
        "document",
        "domain",
        "bytes",
        "tokens",
        "own tokens, bits",
        "tokenizations",
        "covers",
    ]
    return "\n".join(
        [
            wrapped(head, width, None),
            table(["", "bits/byte", "less by"], rows, width),
            wrapped(note, width, None),
            *([wrapped(left, width, "yellow")] if totals.left_out else []),
            "",
            "Where the encoder's tokens cost most",
            table(header, texts, width),
        ]
    )


def _saved(estimate: Estimate) -> str:
    span = (
        ""
        if estimate.low is None or estimate.high is None
        else f" ({estimate.low:.4f}..{estimate.high:.4f})"
    )
    return f"{estimate.value:.4f}{span}"
