"""Throughput and latency of batches and streams, as a table."""

from __future__ import annotations

from edgecap import stats
from edgecap.names import printable
from edgecap.record import Failure, Latency, Profile, Throughput
from edgecap.report.data import measured_cells
from edgecap.report.format import name_of, table
from edgecap.units import si, significant


def throughputs(record: Profile, width: int) -> str:
    """Return tokens a second of all rows and streams, and seconds of a step; and failed points."""
    results = [
        (name_of(cell, record.cells), point)
        for cell, outcome in measured_cells(record)
        if isinstance(outcome.latency, Latency)
        for point in outcome.latency.throughput
    ]
    points = [(name, point) for name, point in results if isinstance(point, Throughput)]
    shown = 6 if any(point.decode_s for _, point in points) else 4
    header = ["", "batch", "streams", "prefill tokens/s", "decode tokens/s", "a step"][:shown]
    rows = [[name, *_row(point)][:shown] for name, point in points]
    lines = [
        f"failed: {name}, {printable(p.message)}" for name, p in results if isinstance(p, Failure)
    ]
    return "\n".join([*([table(header, rows, width)] if rows else []), *lines])


def _row(at: Throughput) -> list[str]:
    rows = at.batch * at.streams
    return [
        f"{at.batch}",
        f"{at.streams}",
        significant(rows * at.prefill_tokens / stats.median(at.prefill_s)),
        *_decoded(at),
    ]


def _decoded(at: Throughput) -> tuple[str, str]:
    if not at.decode_s:
        return "-", "-"
    seconds = stats.median(at.decode_s)
    return significant(at.batch * at.streams * at.steps / seconds), si(seconds / at.steps, "s")
