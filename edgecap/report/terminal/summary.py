"""A record in at most 24 lines: what was measured, the table, and the decisive cautions.

With up to four variants it takes 22, so that the command and its last message fit on a terminal of
24. Tables that the run requested are added.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import click

from edgecap.names import shortened
from edgecap.record import Profile
from edgecap.report.cautions import CautionGroup, full_message, grouped_cautions
from edgecap.report.data import measured_cells
from edgecap.report.format import name_of
from edgecap.report.terminal.decisive import DECISIVE, GRAVITY, ShortCaution
from edgecap.report.terminal.extra_tables import EXTRA_TABLES
from edgecap.report.terminal.failures import INCOMPLETE, failures
from edgecap.report.terminal.measured import compact_table, machine_line, model_line, text_line
from edgecap.report.terminal.verdict import PROSE, opening
from edgecap.units import counted

LINES, MOST_LINES = 22, 23  # of the summary, and of one with many variants
MOST_TOP = 20  # lines before the notes
_LEAST_FOR_NOTES = 6  # lines, as far as there are so many
NOTE = 160  # characters of a note at most: two lines of 80


class NoteLines(NamedTuple):
    """Lines of a failure or a caution, and their colour."""

    lines: list[str]
    colour: str


def summary(record: Profile, width: int = 80) -> str:
    """Return verdict, heading, measured values, failures and the decisive cautions.

    Of many variants the measured values are left to the details.
    """
    first = opening(record, width)
    measured = compact_table(record, width, first.shown).splitlines()
    top = [*first.lines, *_heading(record, width)]
    hidden = bool(first.shown) and len(top) + len(measured) > MOST_TOP
    top += [""] if hidden else [*([] if first.shown else [""]), *measured, ""]
    room = min(max(LINES - len(top) - 1, _LEAST_FOR_NOTES), MOST_LINES - len(top) - 1)
    notes = _notes(record, min(width, PROSE), room, hidden)
    return "\n".join([*top, *_requested(record, width), *notes]).rstrip("\n")


def _heading(record: Profile, width: int) -> list[str]:
    lines = [machine_line(record, width), text_line(record, width, bias=False)]
    return [model_line(record, width), *[shortened(line, width) for line in lines]]


def _requested(record: Profile, width: int) -> list[str]:
    """Return the tables that the run requested, each with its title and an empty line after it."""
    texts = [(s.title, s.text(record, width)) for s in EXTRA_TABLES if s.requested(record.spec)]
    return [
        line for title, text in texts if text for line in (click.style(title, bold=True), text, "")
    ]


# --- notes ------------------------------------------------------------------------------------


def _notes(record: Profile, width: int, room: int, hidden: bool) -> list[str]:
    """Return failures and decisive cautions in at most `room` lines, and one line on the rest."""
    cells = [(cell, name_of(cell, record.cells)) for cell in record.cells]
    groups, measured = grouped_cautions(cells), len(measured_cells(record))
    decisive = sorted(
        (group for group in groups if group.code in GRAVITY), key=lambda g: GRAVITY[g.code]
    )
    failed = _failed(record, width)
    for write, cautions in ((_caution_lines, decisive), (_short_lines, _merged(decisive))):
        notes = [*failed, *[NoteLines(write(g, measured, width), "yellow") for g in cautions]]
        shown = _fitting(notes, room)
        if shown == len(notes):
            break
    rest = _rest(record, len(notes) - shown, len(groups) - len(decisive), width, hidden)
    return [*[click.style(x, fg=n.colour) for n in notes[:shown] for x in n.lines], *rest]


def _merged(groups: Sequence[CautionGroup]) -> list[CautionGroup]:
    """Join the cautions that have the same short words."""
    merged: dict[ShortCaution, CautionGroup] = {}
    for group in groups:
        short = _short_words(group)
        same = merged.get(short, group._replace(names_by_message={}))
        names = dict(same.names_by_message)
        for message, own in group.names_by_message.items():
            names[message] = [*names.get(message, []), *own]
        merged[short] = same._replace(names_by_message=names)
    return list(merged.values())


def _failed(record: Profile, width: int) -> list[NoteLines]:
    texts = [*([] if record.complete else [INCOMPLETE]), *failures(record)]
    return [NoteLines(_cut(text, width), "red") for text in texts]


def _fitting(notes: Sequence[NoteLines], room: int) -> int:
    """Return how many of the first notes fit into `room` lines."""
    for number in range(len(notes)):
        if sum(len(note.lines) for note in notes[: number + 1]) > room:
            return number
    return len(notes)


def _rest(record: Profile, hidden: int, others: int, width: int, measured: bool) -> list[str]:
    """Return the line on what `--details` adds; `measured` if it has the measured values."""
    cautions = [
        *([f"{hidden} more such caution{'s' * (hidden > 1)}"] if hidden else []),
        *([counted(others, "other caution" if hidden else "caution")] if others else []),
    ]
    tables = ["measured values"] * measured + [
        extra.name
        for extra in EXTRA_TABLES
        if not extra.requested(record.spec) and extra.text(record, width)
    ]
    in_short = ["more tables"] if tables else []
    for parts in ([*cautions, *tables], [*cautions, *in_short], ["more cautions and tables"]):
        line = f"--details adds {', '.join(parts)}"
        if len(line) <= width:
            break
    return [line] if cautions or tables else []


# --- a caution in few lines -------------------------------------------------------------------


def _caution_lines(group: CautionGroup, measured: int, width: int) -> list[str]:
    """Return a caution in the record's words, with short advice, or in short words."""
    full, short = full_message(group, measured), _short_words(group)
    for text in (f"caution: {full}; {group.advice}", f"caution: {full}; {short.advice}"):
        lines = _wrap(text, width)
        if len(lines) <= _most_lines(width):
            return lines
    return _short_lines(group, measured, width)


def _short_lines(group: CautionGroup, measured: int, width: int) -> list[str]:
    """Return a caution in short words, with the names of its cells where they fit."""
    short = _short_words(group)
    names = [name for group_names in group.names_by_message.values() for name in group_names]
    text = f"caution: {', '.join(names)}: {short.message}; {short.advice}"
    lines = _wrap(text, width)
    if len(lines) <= _most_lines(width):
        return lines
    text = f"caution: {names[0]} and {len(names) - 1} more: {short.message}; {short.advice}"
    return _cut(text, width)


def _short_words(group: CautionGroup) -> ShortCaution:
    """Return the short words of a caution, with the record's advice where they have none."""
    short = DECISIVE[group.code]
    return short if short.advice else short._replace(advice=group.advice)


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _cut(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, break_on_hyphens=False, max_lines=_most_lines(width), placeholder=" …"
    )


def _most_lines(width: int) -> int:
    """Return two from 80 columns on, more below."""
    return max(2, math.ceil(NOTE / width))
