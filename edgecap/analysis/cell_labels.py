"""Cells of one or more records, each named so that it can be told from the others; and the machines of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edgecap.record import Cell, Machine, Profile


class CellView(NamedTuple):
    """A cell with its record, that record's place among those given, and the cell's name among all."""

    record: Profile
    cell: Cell
    place: int
    label: str


def choices(records: Sequence[Profile]) -> list[CellView]:
    """Every cell of the records, in order.

    The name is the precision; with the provider, the model, the machine and the time of the record where
    those differ.
    """
    cells = [cell for record in records for cell in record.cells]
    several = len({cell.provider for cell in cells}) > 1
    return [
        CellView(
            record,
            cell,
            place,
            " ".join([cell.precision, *([cell.provider] if several else []), *words]),
        )
        for place, (record, words) in enumerate(zip(records, _told_apart(records), strict=True))
        for cell in record.cells
    ]


def _told_apart(records: Sequence[Profile]) -> list[list[str]]:
    """What tells each record from the others, in brackets; nothing of a single one."""
    if len(records) < 2:
        return [[] for _ in records]
    known = Counter(_whose(record) for record in records)
    machines = len({record.machine.name for record in records})
    return [
        [f"({', '.join(_words(record, machines > 1, known[_whose(record)] > 1))})"]
        for record in records
    ]


def _whose(record: Profile) -> tuple[str, str]:
    return record.source.name, record.machine.name


def _words(record: Profile, machines: bool, times: bool) -> list[str]:
    model, machine = _whose(record)
    return [model, *([machine] if machines else []), *([record.created_utc] if times else [])]


def machines_of(records: Iterable[Profile]) -> list[str]:
    """The machines of the records, each once, by name; where one name is of several, with processor, cores and boards."""
    found = list({_of_what(r.machine): r.machine for r in records}.values())
    names = Counter(m.name for m in found)
    return [_of_what(m) if names[m.name] > 1 else m.name for m in found]


def _of_what(machine: Machine) -> str:
    """A machine by what is built into it: many a host is called vm or localhost."""
    cores = machine.physical_cores or machine.logical_cores
    boards = (gpu.name for gpu in machine.gpus)
    return f"{machine.name} with {' + '.join([f'{machine.cpu} ({cores} cores)', *boards])}"
