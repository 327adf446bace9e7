"""Estimates of a sweep from earlier measurements: seconds per cell, bytes of graphs and records.

A cell unlike all earlier cells has no estimate. Estimates never enter a record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from edgecap import stats
from edgecap.errors import EdgecapError
from edgecap.model.flops import STORED, storage_precision, weight_bytes
from edgecap.model.locate import is_hub_model, locate
from edgecap.pipeline.capabilities import read_model
from edgecap.record import Absent
from edgecap.storage.jsonl_log import JsonlLog
from edgecap.sweep.plan import PlannedCell
from edgecap.sweep.state import StateRow

HISTORY = "sweeps.jsonl"


class TimeEstimate(NamedTuple):
    """Estimated seconds of a cell and their basis; None if no similar cell was measured."""

    seconds: float | None
    basis: str


class DiskEstimate(NamedTuple):
    """Upper bound of bytes: all graphs, the graphs of the largest model, and the records.

    `unknown` lists models of unknown size.
    """

    graphs: int
    largest: int
    records: int
    unknown: tuple[str, ...]


# --- history ----------------------------------------------------------------------------------


class History:
    """Cells that sweeps measured on this machine, stored in the cache."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / HISTORY
        self._journal: JsonlLog[StateRow] | None = None

    @property
    def rows(self) -> list[StateRow]:
        """Read the measured cells; [] if the file cannot be read."""
        with contextlib.suppress(EdgecapError):
            return JsonlLog(self._path, StateRow).readable
        return []

    def add(self, row: StateRow) -> None:
        """Store a row for later estimates; ignore errors, which only cost precision."""
        if row.failure is None:
            with contextlib.suppress(EdgecapError):
                self._journal = self._journal or JsonlLog(self._path, StateRow)
                self._journal.add(row)


# --- time -------------------------------------------------------------------------------------


def estimate_times(cells: Sequence[PlannedCell], rows: Iterable[StateRow]) -> list[TimeEstimate]:
    """Estimate each cell by a median: of the same cell, else of its variant, else of its model.

    Only cells with the same corpus and options count.
    """
    known: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row.failure is None and row.seconds > 0:
            like = (row.model, row.provider, row.like)
            for name in ((row.measured,), (*like, row.precision), like):
                known.setdefault(name, []).append(row.seconds)
    medians = {name: stats.median(seconds) for name, seconds in known.items()}
    return [_seconds_of(cell, medians) for cell in cells]


def _seconds_of(cell: PlannedCell, medians: dict[tuple[str, ...], float]) -> TimeEstimate:
    model, precision, provider = (
        Path(cell.spec.model).name,
        cell.spec.precisions[0],
        cell.spec.providers[0],
    )
    like = (model, provider, cell.like)
    for name, basis in (
        ((cell.measured,), "measured before"),
        ((*like, precision), f"from other cells of {precision}"),
        (like, "from other variants"),
    ):
        if name in medians:
            return TimeEstimate(medians[name], basis)
    return TimeEstimate(None, "never measured")


class RemainingTime:
    """Remaining seconds of a running sweep, corrected by its finished cells."""

    def __init__(self, cells: Sequence[PlannedCell], times: Sequence[TimeEstimate]) -> None:
        self._expected = {cell.key: time.seconds for cell, time in zip(cells, times, strict=True)}
        self._took: list[tuple[float, float | None]] = []  # seconds, and what was expected

    def finished(self, row: StateRow) -> None:
        """Record a finished cell; a failed one does not change the estimates."""
        expected = self._expected.pop(row.key, None)
        if row.failure is None:
            self._took.append((row.seconds, expected))

    def seconds(self, running: Mapping[str, float]) -> float | None:
        """Return the remaining seconds; `running` holds elapsed seconds by key. None if unknown."""
        mean, pace = self._mean_time(), self._pace()
        if mean is None or not self._expected:
            return None
        whole = {
            key: mean if expected is None else expected * pace
            for key, expected in self._expected.items()
        }
        rest = sum(max(0.0, seconds - running.get(key, 0.0)) for key, seconds in whole.items())
        return rest / max(1, len(running))

    def _mean_time(self) -> float | None:
        """Return the mean time of finished cells, else of the expected times, for unknown cells."""
        known = [took for took, _ in self._took] or [
            e for e in self._expected.values() if e is not None
        ]
        return sum(known) / len(known) if known else None

    def _pace(self) -> float:
        """Return the ratio of actual to expected time of the finished cells."""
        known = [(took, expected) for took, expected in self._took if expected]
        return (
            sum(took for took, _ in known) / sum(expected for _, expected in known)
            if known
            else 1.0
        )


# --- disk -------------------------------------------------------------------------------------


def estimate_disk(cells: Sequence[PlannedCell], rows: Sequence[StateRow]) -> DiskEstimate:
    """Sum the graphs that the cells need, with their fp32 graphs, whether cached or not."""
    known = {(row.model, row.precision): row.graph_bytes for row in rows if row.graph_bytes}
    records = [row.bytes for row in rows if row.bytes]
    precisions_by_model: dict[str, set[str]] = {}
    for cell in cells:
        precisions_by_model.setdefault(cell.spec.model, {"fp32"}).add(cell.spec.precisions[0])
    sizes = {
        model: [known.get((Path(model).name, p)) or graph_bytes(model, p) for p in precisions]
        for model, precisions in precisions_by_model.items()
    }
    sums = [sum(size or 0 for size in values) for values in sizes.values()]
    return DiskEstimate(
        graphs=sum(sums),
        largest=max(sums, default=0),
        records=len(cells) * int(stats.median(records)) if records else 0,
        unknown=tuple(
            sorted({Path(model).name for model, values in sizes.items() if None in values})
        ),
    )


@cache
def graph_bytes(model: str, precision: str) -> int | None:
    """Return the bytes of the weights in a precision from the config; download nothing."""
    with contextlib.suppress(EdgecapError):
        if not is_hub_model(model):
            architecture = read_model(locate(model)).architecture
            stored = storage_precision(precision)
            if not isinstance(architecture, Absent) and stored in STORED:
                return weight_bytes(architecture, stored)
    return None
