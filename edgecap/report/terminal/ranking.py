"""Ranked documents: the hardest, and those that a larger model improves most."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.analysis.ranking import RankedDocument, Ranking
from edgecap.names import printable, shortened
from edgecap.report.format import table, wrapped
from edgecap.report.terminal.tokenizers import NAME
from edgecap.units import counted

SHOWN = 3  # documents of each kind


def ranked_text(ranking: Ranking, width: int) -> str:
    """Return the hardest documents and, of several sizes, those that size improves most."""
    where = f"{ranking.precision} on {ranking.provider}"
    head = (
        f"{counted(len(ranking.documents), 'document')} of {printable(ranking.corpus)}, the "
        "hardest under "
        f"{shortened(ranking.models[-1], 40)} ({where})"
    )
    hardest = [_row(d, ranking.models[-1:]) for d in ranking.documents[:SHOWN]]
    parts = [f"{wrapped(head, width, None)}\n{table([*_HEADER, 'bits/byte'], hardest, width)}"]
    slope = ranking.bits_per_doubling
    return "\n\n".join(parts if slope is None else [*parts, _eased(ranking, slope, width)])


_HEADER = ["document", "domain", "bytes"]


def _eased(ranking: Ranking, slope: float, width: int) -> str:
    eased = ranking.eased[:SHOWN]
    what = (
        "Most taken off by size, in bits/byte" if eased else "Size takes nothing off any document"
    )
    head = (
        f"{what}; with each doubling of the parameters the median document changes by {slope:+.3f} "
        "bits/byte"
    )
    rows = [[*_row(d, ranking.models), f"{d.bits_per_doubling:+.3f}"] for d in eased]
    header = [*_HEADER, *[shortened(name, NAME) for name in ranking.models], "a doubling"]
    return "\n".join([wrapped(head, width, None), *([table(header, rows, width)] if rows else [])])


def _row(one: RankedDocument, models: Sequence[str]) -> list[str]:
    about = [shortened(one.id, NAME), shortened(one.domain, NAME), f"{one.bytes:,}"]
    return [*about, *[f"{one.bits_per_byte[name]:.3f}" for name in models]]
