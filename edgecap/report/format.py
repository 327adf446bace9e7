"""Set text for a terminal: tables by hand and wrapped notes.

A library for this would take longer to load than a record to read. Colours are ANSI codes, which
the command line strips where they cannot be shown.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import zip_longest

import click

from edgecap.record import Cell


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Set columns two spaces apart, the first to the left, the others to the right.

    Cells may have several lines. A table wider than `width` is cut between columns into several
    tables, each with the first column.
    """
    lines = _single_lines([header, *rows])
    widths = _widths(lines)
    if _total(widths) > width and len(header) > 2:
        cut = len(header) // 2 + 1
        left = table(header[:cut], [row[:cut] for row in rows], width)
        right = table([header[0], *header[cut:]], [[row[0], *row[cut:]] for row in rows], width)
        return f"{left}\n\n{right}"
    return "\n".join(_line(line, widths) for line in lines)


def table_width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return the columns of a terminal that `table` takes where it is not cut."""
    return _total(_widths(_single_lines([header, *rows])))


def _single_lines(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Split rows whose cells have several lines."""
    return [
        line for row in rows for line in zip_longest(*[c.split("\n") for c in row], fillvalue="")
    ]


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(click.unstyle(cell)) for cell in column) for column in zip(*lines, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        _pad(c, w, i) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()


def _pad(cell: str, width: int, column: int) -> str:
    space = " " * (width - len(click.unstyle(cell)))
    return cell + space if column == 0 else space + cell


def wrapped(text: str, width: int, colour: str | None) -> str:
    """Wrap a paragraph at `width` columns and colour it."""
    if len(click.unstyle(text)) <= width and "\n" not in text:
        return click.style(text, fg=colour)
    return click.style(textwrap.fill(text, width, break_on_hyphens=False), fg=colour)


def name_of(cell: Cell, cells: Sequence[Cell]) -> str:
    """Return the precision, with the provider where the record has several."""
    several = len({c.provider for c in cells}) > 1
    return f"{cell.precision} {cell.provider}" if several else cell.precision
