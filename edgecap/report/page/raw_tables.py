"""All raw numbers as tables: what the figures are made of, in SI units and full precision.

A table is a list of rows that name their columns, so that each is written down once. Samples stay in the record; of
rounds the medians are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from edgecap import stats
from edgecap.analysis.cell_view import CellView
from edgecap.analysis.metrics import METRICS
from edgecap.analysis.outcomes import compression_of, energy_of, failure_text, latency_of
from edgecap.record import (
    Absent,
    Decode,
    Estimate,
    Graph,
    Memory,
    Placement,
    Prefill,
    Profile,
    Roofline,
    Throughput,
)
from edgecap.report.cells import shortened

MOST = 2000  # rows of a table
RawRow = dict[str, str | float | int | None]


class Table(NamedTuple):
    """A title, the columns' names, rows of texts, and how many rows there were in all."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    total: int


def tables(lines: Sequence[CellView], records: Sequence[Profile]) -> list[Table]:
    """Every table that has rows."""
    of_cells = {
        title: [{"cell": line.label, **f} for line in lines for f in read(line)]
        for title, read in _CELLS.items()
    }
    of_runs = {
        "Machines, versions, models and what was asked": [
            f for n, r in enumerate(records) for f in _of_run(n, r)
        ]
    }
    return [_table(title, rows) for title, rows in (of_cells | of_runs).items() if rows]


def _table(title: str, rows: Sequence[RawRow]) -> Table:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    shown = [[_text(row.get(name)) for name in columns] for row in rows[:MOST]]
    return Table(title, [shortened(name, 40) for name in columns], shown, len(rows))


def _text(value: str | float | None) -> str:
    """Numbers so that they sort and can be read back: seven digits, and no prefix."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return shortened(value, 400)
    return str(value) if isinstance(value, int) else f"{value:.7g}"


# --- of each cell -----------------------------------------------------------------------------


def _metrics(line: CellView) -> Iterator[RawRow]:
    if line.measured:
        yield {
            name: value
            for metric in METRICS
            for name, value in _metric(metric.name, line.metrics[metric.name])
        }


def _metric(name: str, found: Estimate | Absent) -> list[tuple[str, float | None]]:
    value, low, high = (
        (found.value, found.low, found.high) if isinstance(found, Estimate) else (None, None, None)
    )
    return [(name, value), (f"low {name}", low), (f"high {name}", high)]


def _latencies(line: CellView) -> Iterator[RawRow]:
    for step, part in _timed(line):
        spread = {
            f"p{100 * share:g}_s": stats.quantile(part.samples_s, share)
            for share in (0.01, 0.1, 0.5, 0.9, 0.99)
        }
        yield {
            "step": step,
            "samples": len(part.samples_s),
            "shortest_s": min(part.samples_s),
            **spread,
            "longest_s": max(part.samples_s),
        }


def _rounds(line: CellView) -> Iterator[RawRow]:
    for step, part in _timed(line):
        numbers = dict.fromkeys(part.rounds)
        for number, median in zip(
            numbers, stats.round_medians(part.samples_s, part.rounds), strict=True
        ):
            yield {"step": step, "round": number, "median_s": median}


def _timed(line: CellView) -> Iterator[tuple[str, Prefill | Decode]]:
    found = latency_of(line.cell)
    if found:
        yield "prefill", found.prefill
        if isinstance(found.decode, Decode):
            yield "decode", found.decode


def _domains(line: CellView) -> Iterator[RawRow]:
    found = compression_of(line.cell)
    for name, bits in (found.by_domain if found else {}).items():
        yield {"domain": name, **msgspec.to_builtins(bits)}


def _documents(line: CellView) -> Iterator[RawRow]:
    found = compression_of(line.cell)
    for document in found.per_document if found else ():
        per_byte = document.nll_bits / document.bytes if document.bytes else None
        yield {**msgspec.to_builtins(document), "bits_per_byte": per_byte}


def _growth(line: CellView) -> Iterator[RawRow]:
    found = latency_of(line.cell)
    for point in found.sweep if found else ():
        medians = {
            f"{n}_s": stats.median(s)
            for n, s in (("prefill", point.prefill_s), ("decode", point.decode_s))
            if s
        }
        yield {
            "context": point.context,
            "samples": len(point.prefill_s),
            **medians,
            "failed": point.failed or "",
        }


def _throughput(line: CellView) -> Iterator[RawRow]:
    found = latency_of(line.cell)
    for at in found.throughput if found else ():
        if isinstance(at, Throughput):
            yield _of_throughput(at)
        else:
            yield {"failure": failure_text(at)}


def _of_throughput(at: Throughput) -> RawRow:
    rows = at.batch * at.streams
    read: RawRow = {"batch": at.batch, "streams": at.streams}
    read |= {"prefill_tokens_per_s": rows * at.prefill_tokens / stats.median(at.prefill_s)}
    if not at.decode_s:
        return read
    decoded = rows * at.steps / stats.median(at.decode_s)
    return read | {"decode_tokens_per_s": decoded, "step_s": stats.median(at.step_s)}


def _windows(line: CellView) -> Iterator[RawRow]:
    found = energy_of(line.cell)
    if not found:
        return
    for step, windows in (
        ("prefill", found.prefill),
        ("decode", found.decode),
        ("score", found.nll),
    ):
        for number, w in enumerate(windows):
            split: RawRow = {f"{name}_j": joules for name, joules in w.by_domain.items()}
            beside: RawRow = {f"beside {name}_j": joules for name, joules in w.beside.items()}
            whole: RawRow = {"joules": w.joules, "seconds": w.seconds, "tokens": w.tokens}
            yield {"step": step, "window": number, **whole, **split, **beside}


def _rooflines(line: CellView) -> Iterator[RawRow]:
    found = line.cell.roofline
    for step in ("prefill", "decode") if isinstance(found, Roofline) else ():
        bound = getattr(found, step)
        if bound:
            values = msgspec.to_builtins(bound)
            yield {"step": step, **values, "ratio": bound.ratio.value}


def _memory(line: CellView) -> Iterator[RawRow]:
    found = line.measured.memory if line.measured else None
    if isinstance(found, Memory):
        device = found.device_peak_bytes
        yield {
            **msgspec.to_builtins(found),
            "device_peak_bytes": None if isinstance(device, Absent) else device,
        }


def _placement(line: CellView) -> Iterator[RawRow]:
    found = line.measured.placement if line.measured else None
    if isinstance(found, Placement):
        for name, share in found.by_provider.items():
            yield {"ran on": name, "nodes": share.nodes, "time_share": share.time_share}


def _operators(line: CellView) -> Iterator[RawRow]:
    found = line.measured.placement if line.measured else None
    for step, shares in (found.operators if isinstance(found, Placement) else {}).items():
        for name, share in shares.items():
            yield {"step": step, "operator": name, "time_share": share}


def _files(line: CellView) -> Iterator[RawRow]:
    found = line.cell.graph
    for file in found.files if isinstance(found, Graph) else ():
        assert isinstance(found, Graph)
        yield {
            "file": file.path,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "recipe": found.recipe,
        }


_CELLS: dict[str, Callable[[CellView], Iterator[RawRow]]] = {
    "Every metric with its 95 % interval": _metrics,
    "Latency of single samples": _latencies,
    "Rounds: medians of prefill and decode": _rounds,
    "Growth with the context": _growth,
    "Batches and streams": _throughput,
    "Text by domain": _domains,
    "Text by document": _documents,
    "Beside the roofline": _rooflines,
    "Energy windows, gross": _windows,
    "Memory": _memory,
    "Where the operators ran": _placement,
    "Time by operator": _operators,
    "Files of the graphs": _files,
}


# --- of each run ------------------------------------------------------------------------------


def _of_run(place: int, record: Profile) -> Iterator[RawRow]:
    """Everything of the record beside its cells, by the path of its field."""
    for part in ("machine", "source", "corpus", "flops", "peaks", "spec"):
        for path, value in _leaves(part, msgspec.to_builtins(getattr(record, part))):
            yield {"record": f"#{place + 1}", "what": path, "value": value}


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if value.get("kind") == "absent":
            yield path, f"absent: {value['reason']}"
            return
        for name, one in value.items():
            yield from _leaves(f"{path}.{name}", one)
    elif isinstance(value, list | tuple) and any(isinstance(one, dict) for one in value):
        for number, one in enumerate(value):
            yield from _leaves(f"{path}[{number}]", one)
    else:
        yield path, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
