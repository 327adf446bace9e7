"""Set text for a terminal: tables by hand and wrapped notes.

A library for this would take longer to load than a record to read. Colours are ANSI codes, which
the command line strips where they cannot be shown.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from operator import add

import click

from edgecap.record import Cell


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Set columns two spaces apart, the first to the left, the others to the right.

    Cells may have several lines. A table wider than `width` is cut between columns into several
    tables, each with the first column.
    """
    lines = _single_lines([header, *rows])
    return _cut(lines, _lengths(lines), width)


def _cut(lines: Sequence[Sequence[str]], lengths: Sequence[Sequence[int]], width: int) -> str:
    """Set columns, each with the lengths of its cells, in as many tables as they need."""
    widths = [max(column) for column in lengths]
    if total_width(widths) > width and len(widths) > 2:
        cut = len(widths) // 2 + 1
        left = _cut([line[:cut] for line in lines], lengths[:cut], width)
        rest = [[line[0], *line[cut:]] for line in lines]
        return f"{left}\n\n{_cut(rest, [lengths[0], *lengths[cut:]], width)}"
    gaps = [
        [" " * (most - n) for n in column] for most, column in zip(widths, lengths, strict=True)
    ]
    return "\n".join(
        "  ".join([first + gap, *map(add, spaces, cells)]).rstrip()
        for (first, *cells), (gap, *spaces) in zip(lines, zip(*gaps, strict=True), strict=True)
    )


def table_width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return the columns of a terminal that `table` takes where it is not cut."""
    return total_width(column_widths(header, rows))


def column_widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of each column of a table."""
    return [max(column) for column in _lengths(_single_lines([header, *rows]))]


def total_width(widths: Sequence[int]) -> int:
    """Return the width of columns that are set two spaces apart."""
    return sum(widths) + 2 * (len(widths) - 1)


def _single_lines(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Split rows whose cells have several lines."""
    return [
        line
        for row in rows
        for line in (
            zip_longest(*[c.split("\n") for c in row], fillvalue="")
            if "\n" in "".join(row)
            else [row]
        )
    ]


def _lengths(lines: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return the length of each cell on the terminal, column by column."""
    columns = ("\n".join(column) for column in zip(*lines, strict=True))
    return [
        [len(cell) for cell in (click.unstyle(c) if "\x1b" in c else c).split("\n")]
        for c in columns
    ]


def wrapped(text: str, width: int, colour: str | None) -> str:
    """Wrap a paragraph at `width` columns and colour it."""
    if len(click.unstyle(text)) <= width and "\n" not in text:
        return click.style(text, fg=colour)
    return click.style(textwrap.fill(text, width, break_on_hyphens=False), fg=colour)


def name_of(cell: Cell, cells: Sequence[Cell]) -> str:
    """Return the precision, with the provider where the record has several."""
    several = len({c.provider for c in cells}) > 1
    return f"{cell.precision} {cell.provider}" if several else cell.precision
