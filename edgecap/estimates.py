"""What a sweep will take, from what was measured before: seconds of a cell, bytes of graphs and records.

What is like nothing that was measured has no estimate; nothing here enters a record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgecap import source, stats
from edgecap.errors import EdgecapError
from edgecap.flops import stored_as, weight_bytes
from edgecap.journal import Journal
from edgecap.ledger import Row
from edgecap.model import read_model
from edgecap.plan import Planned
from edgecap.record import Absent

HISTORY = "sweeps.jsonl"


class Estimated(NamedTuple):
    """Seconds of a cell, and what they were taken from; None where nothing like it was measured."""

    seconds: float | None
    basis: str


class Need(NamedTuple):
    """Bytes that graphs and records of a sweep will take at most; models of unknown size are named."""

    graphs: int
    records: int
    unknown: tuple[str, ...]


# --- what was measured before -----------------------------------------------------------------


def history(kept_in: Path) -> list[Row]:
    """Rows of earlier sweeps on this machine."""
    return list(Journal(kept_in / HISTORY, Row).finished)


def remember(rows: Sequence[Row], kept_in: Path) -> None:
    """Keeps rows for the next estimate; where that cannot be done, the next one knows less."""
    with contextlib.suppress(EdgecapError):
        kept = Journal(kept_in / HISTORY, Row)
        for row in rows:
            kept.add(msgspec.structs.replace(row, failure=None))


# --- time -------------------------------------------------------------------------------------


def seconds_of(cells: Sequence[Planned], rows: Iterable[Row]) -> list[Estimated]:
    """Of each cell: the median of the same one, else of that variant with other text or window, else of that model."""
    known: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row.failure is None and row.seconds > 0:
            for name in ((row.measured,), (row.model, row.precision, row.provider), (row.model, row.provider)):
                known.setdefault(name, []).append(row.seconds)
    medians = {name: stats.median(seconds) for name, seconds in known.items()}
    return [_seconds_of(cell, medians) for cell in cells]


def _seconds_of(cell: Planned, medians: dict[tuple[str, ...], float]) -> Estimated:
    model, precision, provider = Path(cell.spec.model).name, cell.spec.precisions[0], cell.spec.providers[0]
    for name, basis in (
        ((cell.measured,), "measured before"),
        ((model, precision, provider), f"from other cells of {precision}"),
        ((model, provider), "from other variants"),
    ):
        if name in medians:
            return Estimated(medians[name], basis)
    return Estimated(None, "never measured")


# --- disk -------------------------------------------------------------------------------------


def need_of(cells: Sequence[Planned], rows: Sequence[Row]) -> Need:
    """The variants that the cells need, with the fp32 graphs they are made from, whether they are kept already or not."""
    graphs = {(row.model, row.precision): row.graph_bytes for row in rows if row.graph_bytes}
    records = [row.bytes for row in rows if row.bytes]
    wanted = {(c.spec.model, p) for c in cells for p in ("fp32", c.spec.precisions[0])}
    found = {(model, p): graphs.get((Path(model).name, p)) or graph_bytes(model, p) for model, p in wanted}
    return Need(
        graphs=sum(size or 0 for size in found.values()),
        records=len(cells) * int(stats.median(records)) if records else 0,
        unknown=tuple(sorted({Path(model).name for (model, _), size in found.items() if size is None})),
    )


@cache
def graph_bytes(model: str, precision: str) -> int | None:
    """Bytes of the weights in a precision, from the model's config; nothing is fetched."""
    with contextlib.suppress(EdgecapError):
        if not source.on_the_hub(model):
            architecture = read_model(source.locate(model)).architecture
            return None if isinstance(architecture, Absent) else weight_bytes(architecture, stored_as(precision))
    return None
