"""A sweep in words: the cells of a plan before it runs, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgecap.estimates import Estimated, Need
from edgecap.ledger import Row
from edgecap.plan import EVERY, Planned
from edgecap.report.columns import printable, table
from edgecap.units import size

WHAT_FAILED = 10  # failed cells that are told one by one


def plan_text(
    cells: Sequence[Planned], rows: dict[str, Row], times: Sequence[Estimated], need: Need, free: int, width: int
) -> str:
    """A line a cell, then time and disk; `free` bytes are left where the graphs will lie."""
    lines = [_planned(cell, rows.get(cell.key), time) for cell, time in zip(cells, times, strict=True)]
    used = [i for i, name in enumerate(_HEADER) if i < 3 or any(line[i] for line in lines)]
    shown = [[line[i] for i in used] for line in lines]
    head = table([_HEADER[i] for i in used], shown, width)
    return "\n".join([head, "", *summary_lines(cells, rows, times), *_disk_lines(need, free)])


_HEADER = ("model", "precision", "provider", "corpus", "context", "batch", "device", "time", "")


def _planned(cell: Planned, row: Row | None, time: Estimated) -> list[str]:
    spec = cell.spec
    device = "each" if cell.device == EVERY else printable(cell.device)
    context, batch = str(spec.context or ""), "" if spec.batches == (1,) else str(spec.batches[0])
    about = "" if time.seconds is None or row else f"~{duration(time.seconds)}"
    name = printable(Path(spec.model).name)
    return [
        name,
        spec.precisions[0],
        spec.providers[0],
        Path(spec.corpus).stem,
        context,
        batch,
        device,
        about,
        _state(row),
    ]


def _state(row: Row | None) -> str:
    if row is None:
        return ""
    return "failed" if row.failure and row.wrong else "left out" if row.failure else "done"


def summary_lines(cells: Sequence[Planned], rows: dict[str, Row], times: Sequence[Estimated]) -> list[str]:
    """How many cells, how many are done, and how long the others will take as far as it is known."""
    left = [time for cell, time in zip(cells, times, strict=True) if cell.key not in rows]
    done = [rows[cell.key] for cell in cells if cell.key in rows]
    wrong = sum(row.wrong for row in done)
    lines = [f"{len(cells)} cells: {len(done)} finished{f' ({wrong} failed)' if wrong else ''}, {len(left)} to do"]
    known = [time.seconds for time in left if time.seconds is not None]
    if left and known:
        unknown = len(left) - len(known)
        beside = f"; {unknown} are like nothing that was measured" if unknown else ""
        lines.append(f"about {duration(sum(known))} for {len(known)} of them on one device, as before{beside}")
    elif left:
        lines.append("how long they take is not known: nothing like them was measured here before")
    return lines


def _disk_lines(need: Need, free: int) -> list[str]:
    records = f", records {size(need.records)}" if need.records else ""
    unknown = f", without those of {', '.join(map(printable, need.unknown))}" if need.unknown else ""
    lines = [f"graphs of all variants take {size(need.graphs)}{unknown}{records}; {size(free)} are free"]
    if need.graphs + need.records > free:
        lines.append(
            "that is more than there is room for, unless graphs are removed as the sweep goes (without --keep-exports)"
        )
    return lines


def outcome_text(rows: Sequence[Row], total: int) -> str:
    """How many cells were measured, and why others were not."""
    failed = [row for row in rows if row.failure and row.wrong]
    partly = [row for row in rows if row.wrong and not row.failure]
    left_out = sum(1 for row in rows if row.failure and not row.wrong)
    words = [f"{len(rows) - len(failed) - left_out} measured", f"{len(failed)} failed"]
    words += [f"{left_out} left out"] if left_out else []
    words += [f"{total - len(rows)} missing"] if total > len(rows) else []
    lines = [f"{total} cells: {', '.join(words)}"]
    lines += [f"failed: {failure_line(row)}" for row in failed[:WHAT_FAILED]]
    lines += [f"and {len(failed) - WHAT_FAILED} more, in the journal"] if len(failed) > WHAT_FAILED else []
    lines += [f"measured but for a part: {printable(row.label)}" for row in partly[:WHAT_FAILED]]
    return "\n".join(lines)


def failure_line(row: Row) -> str:
    """A failed cell and its reason."""
    assert row.failure is not None
    where = f" ({printable(row.device)})" if row.device else ""
    return printable(f"{row.label}: {row.failure.stage}, {row.failure.error}: {row.failure.message}") + where


def plan_values(
    cells: Sequence[Planned], rows: dict[str, Row], times: Sequence[Estimated], need: Need, free: int
) -> dict[str, Any]:
    """The same for programs."""
    return {
        "cells": [
            {
                "key": cell.key,
                "model": cell.spec.model,
                "precision": cell.spec.precisions[0],
                "provider": cell.spec.providers[0],
                "corpus": cell.spec.corpus,
                "context": cell.spec.context,
                "batch": cell.spec.batches[0],
                "device": cell.device or None,
                "record": cell.file_name,
                "state": _state(rows.get(cell.key)) or "to do",
                "seconds": time.seconds,
                "basis": time.basis,
            }
            for cell, time in zip(cells, times, strict=True)
        ],
        "graph_bytes": need.graphs,
        "record_bytes": need.records,
        "unknown_models": need.unknown,
        "free_bytes": free,
    }


def outcome_values(rows: Sequence[Row], total: int, folder: Path) -> dict[str, Any]:
    """The same of a sweep that ran."""
    return {"folder": str(folder), "cells": total, "rows": [msgspec.to_builtins(row) for row in rows]}


def duration(seconds: float) -> str:
    """`duration(3725) == "1 h 2 min"`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
