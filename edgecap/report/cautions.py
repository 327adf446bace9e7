"""Cautions of many cells, each kind once with the cells that it concerns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from edgecap.record import Cell


class CautionGroup(NamedTuple):
    """One kind of caution: its code and advice, and the names of the cells by message."""

    code: str
    advice: str
    names_by_message: dict[str, list[str]]


def grouped_cautions(cells: Iterable[tuple[Cell, str]]) -> list[CautionGroup]:
    """Group the cautions of named cells by code and advice, in the order of their first cell."""
    groups: dict[tuple[str, str], CautionGroup] = {}
    for cell, name in cells:
        for caution in cell.cautions:
            key = (caution.code, caution.advice)
            group = groups.setdefault(key, CautionGroup(*key, {}))
            group.names_by_message.setdefault(caution.message, []).append(name)
    return list(groups.values())


def full_message(group: CautionGroup, measured: int) -> str:
    """Join the messages of a group; name the cells unless it concerns all of several `measured`."""
    return "; ".join(
        message if len(names) == measured > 1 else f"{', '.join(names)}: {message}"
        for message, names in group.names_by_message.items()
    )
