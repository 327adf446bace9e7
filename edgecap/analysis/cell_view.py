"""A cell in its context: its record, its names and its metrics, computed once.

compare, recommend, route, the report and the board all read cells through this one type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from edgecap import stats
from edgecap.analysis.cell_labels import labels, record_devices, short_names
from edgecap.analysis.metrics import estimates
from edgecap.analysis.outcomes import compression_of, energy_of, latency_of
from edgecap.analysis.run_conditions import conditions
from edgecap.record import (
    Absent,
    Cell,
    Compression,
    Decode,
    Energy,
    Estimate,
    Latency,
    Measurement,
    Prefill,
    Profile,
)


@dataclass(frozen=True, eq=False)
class CellView:
    """A cell of one of several records; two views are equal only if they are the same object.

    `place` is the position of its record among those given. `label` tells the cell from all others;
    `name` is a short form of it, for legends and axes. `device` names the machine of the record.
    """

    record: Profile
    cell: Cell
    place: int
    label: str
    name: str
    device: str

    @property
    def measured(self) -> Measurement | None:
        """Return the measurement, or None if the cell failed."""
        return self.cell.outcome if isinstance(self.cell.outcome, Measurement) else None

    @property
    def compression(self) -> Compression | None:
        """Return the scored text, or None if there is none."""
        return compression_of(self.cell)

    @property
    def latency(self) -> Latency | None:
        """Return the latency of prefill and decode, or None if there is none."""
        return latency_of(self.cell)

    @property
    def energy(self) -> Energy | None:
        """Return the energy, or None if there is none."""
        return energy_of(self.cell)

    @cached_property
    def metrics(self) -> dict[str, Estimate | Absent]:
        """Return every metric by name, with its 95 % interval or the reason of its absence."""
        return estimates(self.record, self.cell)

    def value(self, metric: str) -> float | None:
        """Return the value of a metric, or None if it is absent."""
        estimate = self.metrics[metric]
        return estimate.value if isinstance(estimate, Estimate) else None

    @cached_property
    def rounds(self) -> dict[str, dict[int, float]]:
        """Return the median seconds of each round of `prefill_s` and `decode_s`, by its number."""
        latency = self.latency
        return {
            "prefill_s": _rounds(latency.prefill) if latency else {},
            "decode_s": _rounds(latency.decode) if latency else {},
        }

    @cached_property
    def spreads(self) -> dict[str, float]:
        """Return the relative spread of those rounds, which bounds the drift between two runs."""
        return {
            name: stats.spread_of_medians(list(rounds.values())) if rounds else 0.0
            for name, rounds in self.rounds.items()
        }

    @cached_property
    def conditions(self) -> dict[str, object]:
        """Return the conditions of the run that a fair comparison holds equal, by name."""
        return conditions(self.record, self.cell)


def _rounds(part: Prefill | Decode | Absent) -> dict[int, float]:
    if isinstance(part, Absent):
        return {}
    return stats.medians_by_round(part.samples_s, part.rounds)


def cell_views(records: Sequence[Profile]) -> list[CellView]:
    """Return a view of every cell of the records, in order."""
    return [
        CellView(record, cell, place, label, name, device)
        for place, (record, of_labels, of_names, device) in enumerate(
            zip(
                records, labels(records), short_names(records), record_devices(records), strict=True
            )
        )
        for cell, label, name in zip(record.cells, of_labels, of_names, strict=True)
    ]
