"""Results of `edgecap doctor` as frozen values."""

from __future__ import annotations

import msgspec

from edgecap.record import Absent, LeftOut, Machine, Peaks


class CounterCheck(msgspec.Struct, frozen=True, kw_only=True):
    """An energy counter: watts by domain, idle and under load."""

    name: str
    scope: str
    provenance: str
    idle_w: dict[str, float]
    load_w: dict[str, float]


class EnergyTotal(msgspec.Struct, frozen=True, kw_only=True):
    """The counter and domains of a run on a provider, or the reason why there is none."""

    counter: str
    domains: tuple[str, ...]
    reason: str
    left_out: tuple[LeftOut, ...]


class FolderSpace(msgspec.Struct, frozen=True):
    """A folder: the bytes that edgecap uses there, and the free bytes of its disk."""

    path: str
    bytes: int
    free_bytes: int
    writable: bool


class Remedy(msgspec.Struct, frozen=True):
    """A problem and the command or step that solves it; `fatal` if `profile` cannot run."""

    problem: str
    advice: str
    fatal: bool = False


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All results. `providers` maps each provider to the reason why it fails, "" if it works."""

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
        """Return whether `edgecap profile` can measure on this machine."""
        return not any(r.fatal for r in self.remedies)
