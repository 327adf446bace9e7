"""What `edgecap doctor` finds, as frozen values: counters, remedies, and the whole diagnosis."""

from __future__ import annotations

import msgspec

from edgecap.record import Absent, LeftOut, Machine, Peaks


class CounterCheck(msgspec.Struct, frozen=True, kw_only=True):
    """An energy counter: watts by domain while nothing runs, and under load."""

    name: str
    scope: str
    provenance: str
    idle_w: dict[str, float]
    load_w: dict[str, float]


class EnergyTotal(msgspec.Struct, frozen=True, kw_only=True):
    """What makes up the energy of a run on a provider: counter and domains, or why there is none."""

    counter: str
    domains: tuple[str, ...]
    reason: str
    left_out: tuple[LeftOut, ...]


class FolderSpace(msgspec.Struct, frozen=True):
    """A folder: what edgecap keeps there, and the room that is left on its disk."""

    path: str
    bytes: int
    free_bytes: int
    writable: bool


class Remedy(msgspec.Struct, frozen=True):
    """What is wrong and the command or step that would help; `fatal` where the main job cannot run."""

    problem: str
    advice: str
    fatal: bool = False


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found. `providers` that do not work have a reason, those that do an empty one."""

    machine: Machine
    providers: dict[str, str]
    exporter: str | Absent
    counters: tuple[CounterCheck, ...]
    refused: tuple[LeftOut, ...]
    totals: dict[str, EnergyTotal]
    peaks: dict[str, Peaks | Absent]
    cache: FolderSpace
    remedies: tuple[Remedy, ...]

    @property
    def can_run(self) -> bool:
        """Whether `edgecap profile` can do its main job here."""
        return not any(r.fatal for r in self.remedies)
