"""A sweep in words: the cells of a plan before it runs, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edgecap.analysis.outcomes import failure_text
from edgecap.names import printable
from edgecap.report.board.entries import shown
from edgecap.report.format import table
from edgecap.sweep.estimates import DiskEstimate, TimeEstimate
from edgecap.sweep.plan import EVERY, OPTIONS, PlannedCell
from edgecap.sweep.state import StateRow
from edgecap.units import size

MOST_FAILURES = 10  # failed cells that are told one by one behind a sweep
LONGEST = 32  # characters of a name in a column
_COLUMNS = (
    "model",
    "precision",
    "provider",
    "corpus",
    "context",
    "batch",
    "device",
    "options",
    "time",
    "",
)
_ALWAYS = {"model", "precision", "time", ""}


class PlanSummary(NamedTuple):
    """A plan before it runs: its cells, the rows of those that are finished, times, disk, and bytes that are free."""

    cells: Sequence[PlannedCell]
    rows: Mapping[str, StateRow]
    times: Sequence[TimeEstimate]
    need: DiskEstimate
    free: int
    keeps: bool = False  # graphs, when it is done

    @property
    def left(self) -> list[TimeEstimate]:
        """Times of the cells that are to be done."""
        return [
            time
            for cell, time in zip(self.cells, self.times, strict=True)
            if cell.key not in self.rows
        ]

    @property
    def done(self) -> list[StateRow]:
        """Rows of the plan's cells, in its order."""
        return [self.rows[cell.key] for cell in self.cells if cell.key in self.rows]


# --- before it runs ---------------------------------------------------------------------------


def plan_text(outlook: PlanSummary, width: int) -> str:
    """A line a cell, why cells failed, then time and disk."""
    options = _options(outlook.cells)
    lines = [
        _planned(cell, told, outlook.rows.get(cell.key), time)
        for cell, told, time in zip(outlook.cells, options, outlook.times, strict=True)
    ]
    failures = [f"failed: {failure_line(row)}" for row in outlook.done if row.failure and row.wrong]
    parts = [_cells_table(lines, width), "\n".join(failures), "\n".join(_summary(outlook))]
    return "\n\n".join(filter(None, parts))


def _cells_table(lines: list[list[str]], width: int) -> str:
    """What all cells share stands above the columns."""
    used = [i for i, name in enumerate(_COLUMNS) if any(line[i] for line in lines)]
    varied = [i for i in used if _COLUMNS[i] in _ALWAYS or len({line[i] for line in lines}) > 1]
    shared = [f"{_COLUMNS[i]} {lines[0][i]}" for i in used if i not in varied]
    above = f"each with {', '.join(shared)}\n\n" if shared else ""
    return above + table(
        [_COLUMNS[i] for i in varied], [[line[i] for i in varied] for line in lines], width
    )


def _options(cells: Sequence[PlannedCell]) -> list[str]:
    """Of each cell, those options that not all cells share."""
    names = [name for name in OPTIONS if len({str(getattr(cell.spec, name)) for cell in cells}) > 1]
    return [", ".join(f"{name} {getattr(cell.spec, name)}" for name in names) for cell in cells]


def _planned(
    cell: PlannedCell, options: str, row: StateRow | None, time: TimeEstimate
) -> list[str]:
    spec = cell.spec
    return [
        shown(Path(spec.model).name, LONGEST),
        spec.precisions[0],
        shown(spec.providers[0], LONGEST),
        shown(Path(spec.corpus).stem, LONGEST),
        str(spec.context or "usual"),
        str(spec.batches[0]),
        "each" if cell.device == EVERY else shown(cell.device, LONGEST),
        options,
        duration(row.seconds)
        if row
        else f"~{duration(time.seconds)}"
        if time.seconds is not None
        else "",
        _state(row),
    ]


def _state(row: StateRow | None) -> str:
    if row is None:
        return ""
    return "failed" if row.failure and row.wrong else "left out" if row.failure else "done"


def _summary(outlook: PlanSummary) -> list[str]:
    """How many cells, how long those take that are left, and what the disk must hold."""
    done, left = outlook.done, outlook.left
    wrong = sum(row.wrong for row in done)
    first = f"{_cells(outlook.cells)}: {len(done)} finished{f' ({wrong} failed)' if wrong else ''}, {len(left)} to do"
    return [first, *([_time_line(left), *_disk_lines(outlook)] if left else [])]


def _cells(found: Sequence[Any]) -> str:
    return f"{len(found)} cell{'s' * (len(found) != 1)}"


def _time_line(left: Sequence[TimeEstimate]) -> str:
    known = [time.seconds for time in left if time.seconds is not None]
    if not known:
        return "time: not known, nothing like these cells was measured here before"
    unknown = len(left) - len(known)
    beside = (
        f" for {len(known)} of them; {unknown} are like nothing that was measured"
        if unknown
        else ""
    )
    return f"time: about {duration(sum(known))} on one device{beside}"


def _disk_lines(outlook: PlanSummary) -> list[str]:
    need, free = outlook.need, outlook.free
    graphs = need.graphs if outlook.keeps else need.largest
    several = (
        f" at a time ({size(need.graphs)} with --keep-exports)" if graphs < need.graphs else ""
    )
    records = f", records {size(need.records)}" if need.records else ""
    unknown = (
        f", not counting {', '.join(shown(name, LONGEST) for name in need.unknown)}"
        if need.unknown
        else ""
    )
    lines = [f"disk: graphs up to {size(graphs)}{several}{records}{unknown}; {size(free)} are free"]
    return lines + (
        ["that may be more than there is room for"] if graphs + need.records > free else []
    )


def plan_values(outlook: PlanSummary) -> dict[str, Any]:
    """The same for programs."""
    return {
        "cells": [
            _cell_values(cell, outlook.rows.get(cell.key), time)
            for cell, time in zip(outlook.cells, outlook.times, strict=True)
        ],
        "graph_bytes": outlook.need.graphs,
        "largest_model_graph_bytes": outlook.need.largest,
        "record_bytes": outlook.need.records,
        "unknown_models": outlook.need.unknown,
        "free_bytes": outlook.free,
    }


def _cell_values(cell: PlannedCell, row: StateRow | None, time: TimeEstimate) -> dict[str, Any]:
    return {
        "key": cell.key,
        "model": cell.spec.model,
        "precision": cell.spec.precisions[0],
        "provider": cell.spec.providers[0],
        "corpus": cell.spec.corpus,
        "context": cell.spec.context,
        "batch": cell.spec.batches[0],
        "device": cell.device or None,
        "record": cell.file_name,
        "state": _state(row) or "to do",
        "failure": row.failure if row else None,
        "seconds": time.seconds,
        "basis": time.basis,
    }


# --- what came of it --------------------------------------------------------------------------


def outcome_text(rows: Sequence[StateRow]) -> str:
    """How many cells were measured, and why others were not."""
    failed = [row for row in rows if row.failure and row.wrong]
    partly = [row for row in rows if row.wrong and not row.failure]
    left_out = sum(1 for row in rows if row.failure and not row.wrong)
    words = [f"{len(rows) - len(failed) - left_out} measured", f"{len(failed)} failed"]
    words += [f"{left_out} left out"] if left_out else []
    lines = [f"{_cells(rows)}: {', '.join(words)}"]
    lines += [f"failed: {failure_line(row)}" for row in failed[:MOST_FAILURES]]
    lines += (
        [f"and {len(failed) - MOST_FAILURES} more: --dry-run tells all of them"]
        if len(failed) > MOST_FAILURES
        else []
    )
    lines += [f"measured but for a part: {shown(row.label)}" for row in partly[:MOST_FAILURES]]
    lines += [f"and {len(partly) - MOST_FAILURES} more"] if len(partly) > MOST_FAILURES else []
    return "\n".join(lines)


def failure_line(row: StateRow) -> str:
    """A failed cell and its reason, in one line."""
    assert row.failure is not None
    where = f" ({shown(row.device)})" if row.device else ""
    return f"{shown(row.label)}{where}: {printable(' '.join(failure_text(row.failure).split()))}"


def outcome_values(rows: Sequence[StateRow], folder: Path) -> dict[str, Any]:
    """The same for programs."""
    return {
        "folder": str(folder),
        "cells": len(rows),
        "rows": [msgspec.to_builtins(row) for row in rows],
    }


def duration(seconds: float) -> str:
    """`duration(3725) == "1 h 2 min"`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
