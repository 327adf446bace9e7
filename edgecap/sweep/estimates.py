"""What a sweep will take, from what was measured before: seconds of a cell, bytes of graphs and records.

What is like nothing that was measured has no estimate; nothing here enters a record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from edgecap import stats
from edgecap.errors import EdgecapError
from edgecap.model.flops import storage_precision, weight_bytes
from edgecap.model.locate import is_hub_model, locate
from edgecap.pipeline.capabilities import read_model
from edgecap.record import Absent
from edgecap.storage.jsonl_log import JsonlLog
from edgecap.sweep.plan import PlannedCell
from edgecap.sweep.state import StateRow

HISTORY = "sweeps.jsonl"


class TimeEstimate(NamedTuple):
    """Seconds of a cell, and what they were taken from; None where nothing like it was measured."""

    seconds: float | None
    basis: str


class DiskEstimate(NamedTuple):
    """Bytes that a sweep will take at most: its graphs, those of the largest model alone, its records.

    Models of unknown size are named.
    """

    graphs: int
    largest: int
    records: int
    unknown: tuple[str, ...]


# --- what was measured before -----------------------------------------------------------------


class History:
    """Cells that were measured by sweeps on this machine, kept in a cache."""

    def __init__(self, kept_in: Path) -> None:
        self._path = kept_in / HISTORY
        self._journal: JsonlLog[StateRow] | None = None

    @property
    def rows(self) -> list[StateRow]:
        """What was measured; nothing where that cannot be read."""
        with contextlib.suppress(EdgecapError):
            return JsonlLog(self._path, StateRow).readable
        return []

    def remember(self, row: StateRow) -> None:
        """Keeps a row for the next estimate; where that cannot be done, the next one knows less."""
        if row.failure is None:
            with contextlib.suppress(EdgecapError):
                self._journal = self._journal or JsonlLog(self._path, StateRow)
                self._journal.add(row)


# --- time -------------------------------------------------------------------------------------


def estimate_times(cells: Sequence[PlannedCell], rows: Iterable[StateRow]) -> list[TimeEstimate]:
    """Of each cell: the median of the same one, else of that variant with another window or batch, else of that model.

    Cells of other texts or options say nothing.
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
    """The seconds that the cells of a sweep still take, as it goes: corrected by those that it has finished."""

    def __init__(self, cells: Sequence[PlannedCell], times: Sequence[TimeEstimate]) -> None:
        self._expected = {cell.key: time.seconds for cell, time in zip(cells, times, strict=True)}
        self._took: list[tuple[float, float | None]] = []  # seconds, and what was expected

    def finished(self, row: StateRow) -> None:
        """A cell is done with; one that failed tells nothing about the time of others."""
        expected = self._expected.pop(row.key, None)
        if row.failure is None:
            self._took.append((row.seconds, expected))

    def seconds(self, running: Mapping[str, float]) -> float | None:
        """Of all that is left, `running` (seconds by key) at once; None where nothing is known."""
        usual, pace = self._usual(), self._pace()
        if usual is None or not self._expected:
            return None
        whole = {
            key: usual if expected is None else expected * pace
            for key, expected in self._expected.items()
        }
        rest = sum(max(0.0, seconds - running.get(key, 0.0)) for key, seconds in whole.items())
        return rest / max(1, len(running))

    def _usual(self) -> float | None:
        """Of a cell that is like nothing that was measured: the mean of this sweep's, else of what is expected."""
        known = [took for took, _ in self._took] or [
            e for e in self._expected.values() if e is not None
        ]
        return sum(known) / len(known) if known else None

    def _pace(self) -> float:
        """How much longer cells take than they were expected to."""
        known = [(took, expected) for took, expected in self._took if expected]
        return (
            sum(took for took, _ in known) / sum(expected for _, expected in known)
            if known
            else 1.0
        )


# --- disk -------------------------------------------------------------------------------------


def estimate_disk(cells: Sequence[PlannedCell], rows: Sequence[StateRow]) -> DiskEstimate:
    """The variants that the cells need, with the fp32 graphs they are made from, whether they are kept already or not."""
    known = {(row.model, row.precision): row.graph_bytes for row in rows if row.graph_bytes}
    records = [row.bytes for row in rows if row.bytes]
    wanted: dict[str, set[str]] = {}
    for cell in cells:
        wanted.setdefault(cell.spec.model, {"fp32"}).add(cell.spec.precisions[0])
    sizes = {
        model: [known.get((Path(model).name, p)) or graph_bytes(model, p) for p in precisions]
        for model, precisions in wanted.items()
    }
    sums = [sum(size or 0 for size in found) for found in sizes.values()]
    return DiskEstimate(
        graphs=sum(sums),
        largest=max(sums, default=0),
        records=len(cells) * int(stats.median(records)) if records else 0,
        unknown=tuple(
            sorted({Path(model).name for model, found in sizes.items() if None in found})
        ),
    )


@cache
def graph_bytes(model: str, precision: str) -> int | None:
    """Bytes of the weights in a precision, from the model's config; nothing is fetched."""
    with contextlib.suppress(EdgecapError):
        if not is_hub_model(model):
            architecture = read_model(locate(model)).architecture
            return (
                None
                if isinstance(architecture, Absent)
                else weight_bytes(architecture, storage_precision(precision))
            )
    return None
