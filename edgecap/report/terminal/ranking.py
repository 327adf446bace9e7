"""Ranked documents as text: the hardest, and those that a larger model takes most off."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.analysis.ranking import RankedDocument, Ranking
from edgecap.names import printable
from edgecap.report.cells import shortened
from edgecap.report.format import table, wrapped
from edgecap.report.terminal.tokenizers import NAME
from edgecap.units import counted

SHOWN = 3  # documents of each kind


def ranked_text(found: Ranking, width: int) -> str:
    """A few lines; of several sizes also what size takes off."""
    where = f"{found.precision} on {found.provider}"
    head = (
        f"{counted(len(found.documents), 'document')} of {printable(found.corpus)}, the hardest under "
        f"{shortened(found.models[-1], 40)} ({where})"
    )
    hardest = [_row(d, found.models[-1:]) for d in found.documents[:SHOWN]]
    parts = [f"{wrapped(head, width, None)}\n{table([*_HEADER, 'bits/byte'], hardest, width)}"]
    slope = found.bits_per_doubling
    return "\n\n".join(parts if slope is None else [*parts, _eased(found, slope, width)])


_HEADER = ["document", "domain", "bytes"]


def _eased(found: Ranking, slope: float, width: int) -> str:
    eased = found.eased[:SHOWN]
    what = (
        "Most taken off by size, in bits/byte" if eased else "Size takes nothing off any document"
    )
    head = f"{what}; with each doubling of the parameters the median document changes by {slope:+.3f} bits/byte"
    rows = [[*_row(d, found.models), f"{d.bits_per_doubling:+.3f}"] for d in eased]
    header = [*_HEADER, *[shortened(name, NAME) for name in found.models], "a doubling"]
    return "\n".join([wrapped(head, width, None), *([table(header, rows, width)] if rows else [])])


def _row(one: RankedDocument, models: Sequence[str]) -> list[str]:
    about = [shortened(one.id, NAME), shortened(one.domain, NAME), f"{one.bytes:,}"]
    return [*about, *[f"{one.bits_per_byte[name]:.3f}" for name in models]]
