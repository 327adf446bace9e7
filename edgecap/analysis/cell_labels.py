"""Names of cells and machines: short enough to read, long enough to tell each from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from edgecap.record import Cell, Machine, Profile

LONGEST_TAG = 12  # characters of a model's or machine's name within a short name


def labels(records: Sequence[Profile]) -> list[list[str]]:
    """Return a full label for each cell of each record.

    A label is the precision, then the provider where the cells have several. Of several records, it
    also holds the model and, where they differ, the machine and the time of the record.
    """
    return _names(records, _record_labels(records))


def short_names(records: Sequence[Profile]) -> list[list[str]]:
    """Return a short name for each cell of each record, for legends and axes.

    A name is the precision, then the provider where the cells have several. Of several records, it
    ends in the model or the machine if that is short and tells them apart, else in `#1`, `#2`, ...
    """
    return _names(records, _record_tags(records))


def _names(records: Sequence[Profile], endings: Sequence[str]) -> list[list[str]]:
    providers = {cell.provider for record in records for cell in record.cells}
    return [
        [_joined(cell, len(providers) > 1, ending) for cell in record.cells]
        for record, ending in zip(records, endings, strict=True)
    ]


def _joined(cell: Cell, with_provider: bool, ending: str) -> str:
    return " ".join(
        [cell.precision, *([cell.provider] if with_provider else []), *([ending] if ending else [])]
    )


def _record_labels(records: Sequence[Profile]) -> list[str]:
    """Return words in brackets that tell each record from the others; empty for a single one."""
    if len(records) < 2:
        return [""] * len(records)
    counts = Counter(_model_and_machine(record) for record in records)
    several_machines = len({record.machine.name for record in records}) > 1
    return [_record_label(r, several_machines, counts[_model_and_machine(r)] > 1) for r in records]


def _record_label(record: Profile, with_machine: bool, with_time: bool) -> str:
    model, machine = _model_and_machine(record)
    words = [model, *([machine] if with_machine else [])]
    return f"({', '.join([*words, *([record.created_utc] if with_time else [])])})"


def _model_and_machine(record: Profile) -> tuple[str, str]:
    return record.source.name, record.machine.name


def _record_tags(records: Sequence[Profile]) -> list[str]:
    """Return the model, machine or number of each record; empty for a single one."""
    if len(records) < 2:
        return [""] * len(records)
    for names in ([r.source.name for r in records], [r.machine.name for r in records]):
        if len(set(names)) == len(names) and max(map(len, names)) <= LONGEST_TAG:
            return names
    return [f"#{place + 1}" for place in range(len(records))]


def machine_names(records: Iterable[Profile]) -> list[str]:
    """Return the name of each machine once.

    Machines that share a name are told apart by processor, cores and GPUs: many a host is called
    `vm` or `localhost`.
    """
    machines = list({_hardware(r.machine): r.machine for r in records}.values())
    counts = Counter(machine.name for machine in machines)
    return [_hardware(m) if counts[m.name] > 1 else m.name for m in machines]


def _hardware(machine: Machine) -> str:
    cores = machine.physical_cores or machine.logical_cores
    gpus = (gpu.name for gpu in machine.gpus)
    return f"{machine.name} with {' + '.join([f'{machine.processor} ({cores} cores)', *gpus])}"
