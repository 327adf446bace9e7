"""Exact code lengths as text: beside those of the encoder's tokens, and where these cost most."""

from __future__ import annotations

import click

from edgecap.meters.exact.texts import ExactBytesTotals
from edgecap.names import printable
from edgecap.record import Estimate
from edgecap.report.cells import shortened
from edgecap.report.format import table, wrapped
from edgecap.units import counted

WORST = 5  # texts that are told one by one


def exact_text(found: ExactBytesTotals, width: int) -> str:
    """The three code lengths, and the texts in which the encoder's tokens cost most over them."""
    head = (
        f"{click.style(printable(found.model), bold=True)} {found.precision} on {found.provider}: the first "
        f"{counted(found.most_bytes, 'byte')} or fewer of {counted(found.documents, 'document')} of "
        f"{printable(found.corpus)}, {counted(found.bytes, 'byte')}"
    )
    rows = [
        ["the encoder's own tokens", f"{found.single:.4f}", ""],
        [
            "all tokenizations of the text",
            f"{found.tokenizations:.4f}",
            _saved(found.saved_by_tokenizations),
        ],
        ["all that begins with the text", f"{found.covers:.4f}", _saved(found.saved_by_covers)],
    ]
    note = (
        f"the last lets the last token run past the end, which counts once a text; it is exact to {found.undecided:.1g} "
        "bits/byte"
    )
    left = (
        f"left out: {counted(found.left_out, 'document')} without text, or with a first character of more than "
        f"{counted(found.most_bytes, 'byte')}"
    )
    worst = sorted(found.texts, key=lambda t: t.covers_bits - t.single_bits)[:WORST]
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
            *([wrapped(left, width, "yellow")] if found.left_out else []),
            "",
            "Where the encoder's tokens cost most",
            table(header, texts, width),
        ]
    )


def _saved(found: Estimate) -> str:
    span = (
        "" if found.low is None or found.high is None else f" ({found.low:.4f}..{found.high:.4f})"
    )
    return f"{found.value:.4f}{span}"
