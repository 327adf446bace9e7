"""Names of cells and devices: short enough to read, long enough to tell each from the others.

A device is called by its board or processor, and its GPUs: many a host is called `vm`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edgecap.names import shortened_unique
from edgecap.provider_options import parse_provider
from edgecap.record import Cell, Gpu, Machine, Profile

LONGEST_TAG = 12  # characters of a model's or device's name within a short name
# What a processor's or board's name can do without.
_FILLER = re.compile(
    r"\((R|TM|C)\)|@.*|\b(with|w/) .* Graphics|\b\d+-Core\b|\b(CPU|Processor)\b|\bRev \S+$", re.I
)


def labels(records: Sequence[Profile]) -> list[list[str]]:
    """Return a full label for each cell of each record.

    A label is the precision, then the provider where the cells have several. Of several records, it
    also holds the model and, where they differ, the device and the time of the record.
    """
    return _names(records, _record_labels(records))


def short_names(records: Sequence[Profile]) -> list[list[str]]:
    """Return a short name for each cell of each record, for legends and axes.

    A name is the precision, then the provider where the cells have several. Of several records, it
    ends in the model or the device if that is short and tells them apart, else in `#1`, `#2`, ...
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
    devices = record_devices(records)
    pairs = [(record.source.name, device) for record, device in zip(records, devices, strict=True)]
    counts, several_devices = Counter(pairs), len(set(devices)) > 1
    return [
        _bracketed(
            model,
            *([device] if several_devices else []),
            *([record.created_utc] if counts[model, device] > 1 else []),
        )
        for record, (model, device) in zip(records, pairs, strict=True)
    ]


def _bracketed(*words: str) -> str:
    return f"({', '.join(words)})"


def _record_tags(records: Sequence[Profile]) -> list[str]:
    """Return the model, device or number of each record; empty for a single one."""
    if len(records) < 2:
        return [""] * len(records)
    devices = record_devices(records)
    for names in ([r.source.name for r in records], devices):
        if len(set(names)) == len(names) and max(map(len, names)) <= LONGEST_TAG:
            return names
    return [f"#{place + 1}" for place in range(len(records))]


# --- devices ----------------------------------------------------------------------------------


class Hardware(NamedTuple):
    """Tell one device from another; `kind` is its board, else its processor."""

    host: str
    kind: str
    processor: str
    cores: int
    gpus: tuple[str, ...]

    @property
    def details(self) -> str:
        """Return everything but the host: `AMD EPYC, 2 cores + NVIDIA L4`."""
        return " + ".join([f"{self.processor}, {self._cores}", *self._gpus])

    @property
    def names(self) -> tuple[str, ...]:
        """Return names from the shortest to one that no other hardware has."""
        short = " ".join(_FILLER.sub(" ", self.kind).split()) or self.kind
        return (
            " + ".join([short, *self._gpus]),
            " + ".join([f"{short}, {self._cores}", *self._gpus]),
            self.details,
            f"{' + '.join([short, *self._gpus])} ({self.host})",
            f"{self.details} ({self.host})",
        )

    @property
    def _cores(self) -> str:
        return f"{self.cores} core{'s' * (self.cores != 1)}"

    @property
    def _gpus(self) -> list[str]:
        return [f"{n} x {name}" if n > 1 else name for name, n in Counter(self.gpus).items()]


def hardware_of(machine: Machine) -> Hardware:
    """Return the hardware of a machine, in printable words."""
    return Hardware(
        host=shortened_unique(machine.name),
        kind=shortened_unique(machine.board or machine.cpu),
        processor=shortened_unique(machine.processor),
        cores=machine.physical_cores or machine.logical_cores,
        gpus=tuple(shortened_unique(gpu.name) for gpu in machine.usable_gpus),
    )


def gpus_of(machine: Machine, provider: str) -> tuple[Gpu, ...]:
    """Return the board that a cell ran on, or those that it may have run on; none for the CPU."""
    parsed = parse_provider(provider)
    if parsed.name == "cpu":
        return ()
    own = machine.gpu(parsed.device) if parsed.place[0] == "cuda" else None
    return (own,) if own else machine.usable_gpus


def device_names(devices: Sequence[Hardware]) -> list[str]:
    """Return a name for each device; equal ones have equal names, all others different ones.

    A name is the board or processor without trademarks and clock, with the GPUs. Devices that share
    it are told apart by cores, by the full names, and at last by the host.
    """
    candidates = {device: device.names for device in devices}
    counts = Counter(name for names in candidates.values() for name in set(names))
    chosen = {
        device: next((name for name in names if counts[name] == 1), names[-1])
        for device, names in candidates.items()
    }
    return [chosen[device] for device in devices]


def record_devices(records: Iterable[Profile]) -> list[str]:
    """Return the name of the device of each record."""
    return device_names([hardware_of(record.machine) for record in records])
