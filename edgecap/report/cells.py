"""Cells under names that a page can show.

Names come from outside: they are cut, and hold no character that could command a browser's or a
terminal's text (control and bidirectional characters).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgecap.analysis.cell_view import CellView, cell_views
from edgecap.names import shortened
from edgecap.record import Profile

SHORT, LONG = 18, 90  # characters of a name beside a bar, and in a sentence or table


def display_views(records: Sequence[Profile]) -> list[CellView]:
    """Return a view of every cell, in order, with its label and name safe to show."""
    return [
        replace(view, label=shortened(view.label, LONG), name=shortened(view.name, SHORT))
        for view in cell_views(records)
    ]
