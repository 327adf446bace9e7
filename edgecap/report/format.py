"""How text for people is set: columns by hand, wrapped notes, names that cannot command a terminal.

Loading a library for it would take longer than reading a record. Colours are ANSI codes, which whoever
prints takes out where nobody sees them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import zip_longest

import click

from edgecap.record import Cell


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Columns two spaces apart, the first to the left, the others to the right; cells may have several lines.

    What is wider than `width` is cut between columns into tables below each other, each with the first column.
    """
    lines = [
        header,
        *[
            line
            for row in rows
            for line in zip_longest(*[c.split("\n") for c in row], fillvalue="")
        ],
    ]
    widths = [max(len(click.unstyle(line[i])) for line in lines) for i in range(len(header))]
    if sum(widths) + 2 * (len(widths) - 1) > width and len(header) > 2:
        cut = len(header) // 2 + 1
        left = table(header[:cut], [row[:cut] for row in rows], width)
        right = table([header[0], *header[cut:]], [[row[0], *row[cut:]] for row in rows], width)
        return f"{left}\n\n{right}"
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        _pad(c, w, i) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()


def _pad(cell: str, width: int, column: int) -> str:
    space = " " * (width - len(click.unstyle(cell)))
    return cell + space if column == 0 else space + cell


def wrapped(text: str, width: int, colour: str | None) -> str:
    """A paragraph of at most `width` columns."""
    return click.style(textwrap.fill(text, width, break_on_hyphens=False), fg=colour)


def name_of(cell: Cell, cells: Sequence[Cell]) -> str:
    """The precision, with the provider where the record has several."""
    several = len({c.provider for c in cells}) > 1
    return f"{cell.precision} {cell.provider}" if several else cell.precision
