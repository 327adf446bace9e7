"""Text and JSON of a sweep: the plan before it runs, and the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edgecap.analysis.outcomes import failure_text
from edgecap.names import one_line, printable, shortened_unique
from edgecap.report.format import table
from edgecap.sweep.estimates import DiskEstimate, TimeEstimate
from edgecap.sweep.plan import EVERY, OPTIONS, PlannedCell
from edgecap.sweep.state import StateRow
from edgecap.units import counted, size

MOST_FAILURES = 10  # failed cells that the outcome lists
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
    """Plan before it runs: cells, rows of finished cells, times, disk space, and free bytes."""

    cells: Sequence[PlannedCell]
    rows: Mapping[str, StateRow]
    times: Sequence[TimeEstimate]
    disk: DiskEstimate
    free: int
    keep_exports: bool = False

    @property
    def left(self) -> list[TimeEstimate]:
        """Time estimates of the unfinished cells."""
        return [
            time
            for cell, time in zip(self.cells, self.times, strict=True)
            if cell.key not in self.rows
        ]

    @property
    def done(self) -> list[StateRow]:
        """Rows of the finished cells, in the order of the plan."""
        return [self.rows[cell.key] for cell in self.cells if cell.key in self.rows]


# --- plan -------------------------------------------------------------------------------------


def plan_text(summary: PlanSummary, width: int) -> str:
    """Return one line per cell, the failures, and estimates of time and disk space."""
    options = _options(summary.cells)
    lines = [
        _planned(cell, words, summary.rows.get(cell.key), time)
        for cell, words, time in zip(summary.cells, options, summary.times, strict=True)
    ]
    failures = [f"failed: {failure_line(row)}" for row in summary.done if row.failure and row.wrong]
    parts = [_cells_table(lines, width), "\n".join(failures), "\n".join(_summary(summary))]
    return "\n\n".join(filter(None, parts))


def _cells_table(lines: list[list[str]], width: int) -> str:
    """Lay out the table; values that all cells share are written above it."""
    used = [i for i, name in enumerate(_COLUMNS) if any(line[i] for line in lines)]
    varied = [i for i in used if _COLUMNS[i] in _ALWAYS or len({line[i] for line in lines}) > 1]
    shared = [f"{_COLUMNS[i]} {lines[0][i]}" for i in used if i not in varied]
    above = f"each with {', '.join(shared)}\n\n" if shared else ""
    return above + table(
        [_COLUMNS[i] for i in varied], [[line[i] for i in varied] for line in lines], width
    )


def _options(cells: Sequence[PlannedCell]) -> list[str]:
    """Return the options of each cell that not all cells share."""
    names = [name for name in OPTIONS if len({str(getattr(cell.spec, name)) for cell in cells}) > 1]
    return [", ".join(f"{name} {getattr(cell.spec, name)}" for name in names) for cell in cells]


def _planned(
    cell: PlannedCell, options: str, row: StateRow | None, time: TimeEstimate
) -> list[str]:
    spec = cell.spec
    return [
        shortened_unique(Path(spec.model).name, LONGEST),
        spec.precisions[0],
        shortened_unique(spec.providers[0], LONGEST),
        shortened_unique(Path(spec.corpus).stem, LONGEST),
        str(spec.context or "default"),
        str(spec.batches[0]),
        "each" if cell.device == EVERY else shortened_unique(cell.device, LONGEST),
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


def _summary(summary: PlanSummary) -> list[str]:
    """Count the cells, and estimate time and disk space of the unfinished ones."""
    done, left = summary.done, summary.left
    wrong = sum(row.wrong for row in done)
    failed = f" ({wrong} failed)" if wrong else ""
    cells = counted(len(summary.cells), "cell")
    return [
        f"{cells}: {len(done)} finished{failed}, {len(left)} to do",
        *([_time_line(left), *_disk_lines(summary)] if left else []),
    ]


def _time_line(left: Sequence[TimeEstimate]) -> str:
    known = [time.seconds for time in left if time.seconds is not None]
    if not known:
        return "time: unknown, no similar cell was measured here before"
    unknown = len(left) - len(known)
    beside = (
        f" for {len(known)} of them; for {unknown} no similar cell was measured" if unknown else ""
    )
    return f"time: about {duration(sum(known))} on one device{beside}"


def _disk_lines(summary: PlanSummary) -> list[str]:
    disk, free = summary.disk, summary.free
    graphs = disk.graphs if summary.keep_exports else disk.largest
    several = (
        f" at a time ({size(disk.graphs)} with --keep-exports)" if graphs < disk.graphs else ""
    )
    records = f", records {size(disk.records)}" if disk.records else ""
    unknown = (
        f", not counting {', '.join(shortened_unique(name, LONGEST) for name in disk.unknown)}"
        if disk.unknown
        else ""
    )
    lines = [f"disk: graphs up to {size(graphs)}{several}{records}{unknown}; {size(free)} free"]
    return lines + (["warning: the disk may be too small"] if graphs + disk.records > free else [])


def plan_values(summary: PlanSummary) -> dict[str, Any]:
    """Return the plan for JSON."""
    return {
        "cells": [
            _cell_values(cell, summary.rows.get(cell.key), time)
            for cell, time in zip(summary.cells, summary.times, strict=True)
        ],
        "graph_bytes": summary.disk.graphs,
        "largest_model_graph_bytes": summary.disk.largest,
        "record_bytes": summary.disk.records,
        "unknown_models": summary.disk.unknown,
        "free_bytes": summary.free,
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


# --- outcome ----------------------------------------------------------------------------------


def outcome_text(rows: Sequence[StateRow]) -> str:
    """Count measured, failed and skipped cells, and list the failures."""
    failed = [row for row in rows if row.failure and row.wrong]
    partly = [row for row in rows if row.wrong and not row.failure]
    left_out = sum(1 for row in rows if row.failure and not row.wrong)
    words = [f"{len(rows) - len(failed) - left_out} measured", f"{len(failed)} failed"]
    words += [f"{left_out} left out"] if left_out else []
    lines = [f"{counted(len(rows), 'cell')}: {', '.join(words)}"]
    lines += [f"failed: {failure_line(row)}" for row in failed[:MOST_FAILURES]]
    lines += (
        [f"and {len(failed) - MOST_FAILURES} more: --dry-run lists all of them"]
        if len(failed) > MOST_FAILURES
        else []
    )
    lines += [f"measured in part: {shortened_unique(row.label)}" for row in partly[:MOST_FAILURES]]
    lines += [f"and {len(partly) - MOST_FAILURES} more"] if len(partly) > MOST_FAILURES else []
    return "\n".join(lines)


def failure_line(row: StateRow) -> str:
    """Return a failed cell and its reason in one line."""
    assert row.failure is not None
    where = f" ({shortened_unique(row.device)})" if row.device else ""
    return f"{shortened_unique(row.label)}{where}: {printable(one_line(failure_text(row.failure)))}"


def outcome_values(rows: Sequence[StateRow], folder: Path) -> dict[str, Any]:
    """Return the outcome for JSON."""
    return {
        "folder": str(folder),
        "cells": len(rows),
        "rows": [msgspec.to_builtins(row) for row in rows],
    }


def duration(seconds: float) -> str:
    """Format seconds for people: `duration(3725) == "1 h 2 min"`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
