"""Raw numbers as tables, in SI units and full precision.

A table is a list of rows that name their columns. Single samples stay in the record; rounds are
shown by their medians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from edgecap import stats
from edgecap.analysis.cell_view import CellView
from edgecap.analysis.metrics import METRICS
from edgecap.analysis.outcomes import failure_text
from edgecap.names import shortened
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

MOST = 2000  # rows of a table
RawRow = dict[str, str | float | int | None]


class Table(NamedTuple):
    """A title, names of columns, rows of texts, and the number of rows before any were cut."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    total: int


def tables(views: Sequence[CellView], records: Sequence[Profile]) -> list[Table]:
    """Return every table that has rows."""
    of_cells = {
        title: [{"cell": view.label, **f} for view in views for f in read(view)]
        for title, read in _CELLS.items()
    }
    of_runs = {
        "Machines, versions, models and requests": [
            f for n, r in enumerate(records) for f in _of_run(n, r)
        ]
    }
    return [_table(title, rows) for title, rows in (of_cells | of_runs).items() if rows]


def _table(title: str, rows: Sequence[RawRow]) -> Table:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    shown = [[_text(row.get(name)) for name in columns] for row in rows[:MOST]]
    return Table(title, [shortened(name, 40) for name in columns], shown, len(rows))


def _text(value: str | float | None) -> str:
    """Format a number with seven digits and no prefix, so that it sorts and can be read back."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return shortened(value, 400)
    return str(value) if isinstance(value, int) else f"{value:.7g}"


# --- of each cell -----------------------------------------------------------------------------


def _metrics(view: CellView) -> Iterator[RawRow]:
    if view.measured:
        yield {
            name: value
            for metric in METRICS
            for name, value in _metric(metric.name, view.metrics[metric.name])
        }


def _metric(name: str, metric: Estimate | Absent) -> list[tuple[str, float | None]]:
    value, low, high = (
        (metric.value, metric.low, metric.high)
        if isinstance(metric, Estimate)
        else (None, None, None)
    )
    return [(name, value), (f"low {name}", low), (f"high {name}", high)]


def _latencies(view: CellView) -> Iterator[RawRow]:
    for step, part in _timed(view):
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


def _rounds(view: CellView) -> Iterator[RawRow]:
    for step, part in _timed(view):
        numbers = dict.fromkeys(part.rounds)
        for number, median in zip(
            numbers, stats.round_medians(part.samples_s, part.rounds), strict=True
        ):
            yield {"step": step, "round": number, "median_s": median}


def _timed(view: CellView) -> Iterator[tuple[str, Prefill | Decode]]:
    latency = view.latency
    if latency:
        yield "prefill", latency.prefill
        if isinstance(latency.decode, Decode):
            yield "decode", latency.decode


def _domains(view: CellView) -> Iterator[RawRow]:
    text = view.compression
    for name, bits in (text.by_domain if text else {}).items():
        yield {"domain": name, **msgspec.to_builtins(bits)}


def _documents(view: CellView) -> Iterator[RawRow]:
    text = view.compression
    for document in text.per_document if text else ():
        per_byte = document.nll_bits / document.bytes if document.bytes else None
        yield {**msgspec.to_builtins(document), "bits_per_byte": per_byte}


def _growth(view: CellView) -> Iterator[RawRow]:
    latency = view.latency
    for point in latency.sweep if latency else ():
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


def _throughput(view: CellView) -> Iterator[RawRow]:
    latency = view.latency
    for point in latency.throughput if latency else ():
        if isinstance(point, Throughput):
            yield _of_throughput(point)
        else:
            yield {"failure": failure_text(point)}


def _of_throughput(point: Throughput) -> RawRow:
    rows = point.batch * point.streams
    rates: RawRow = {"batch": point.batch, "streams": point.streams}
    rates |= {"prefill_tokens_per_s": rows * point.prefill_tokens / stats.median(point.prefill_s)}
    if not point.decode_s:
        return rates
    decoded = rows * point.steps / stats.median(point.decode_s)
    return rates | {"decode_tokens_per_s": decoded, "step_s": stats.median(point.step_s)}


def _windows(view: CellView) -> Iterator[RawRow]:
    energy = view.energy
    if not energy:
        return
    for step, windows in (
        ("prefill", energy.prefill),
        ("decode", energy.decode),
        ("score", energy.nll),
    ):
        for number, w in enumerate(windows):
            split: RawRow = {f"{name}_j": joules for name, joules in w.by_domain.items()}
            beside: RawRow = {f"beside {name}_j": joules for name, joules in w.beside.items()}
            whole: RawRow = {"joules": w.joules, "seconds": w.seconds, "tokens": w.tokens}
            yield {"step": step, "window": number, **whole, **split, **beside}


def _rooflines(view: CellView) -> Iterator[RawRow]:
    roofline = view.cell.roofline
    for step in ("prefill", "decode") if isinstance(roofline, Roofline) else ():
        bound = getattr(roofline, step)
        if bound:
            values = msgspec.to_builtins(bound)
            yield {"step": step, **values, "ratio": bound.ratio.value}


def _memory(view: CellView) -> Iterator[RawRow]:
    memory = view.measured.memory if view.measured else None
    if isinstance(memory, Memory):
        device = memory.device_peak_bytes
        yield {
            **msgspec.to_builtins(memory),
            "device_peak_bytes": None if isinstance(device, Absent) else device,
        }


def _placement(view: CellView) -> Iterator[RawRow]:
    placement = view.measured.placement if view.measured else None
    if isinstance(placement, Placement):
        for name, share in placement.by_provider.items():
            yield {"ran on": name, "nodes": share.nodes, "time_share": share.time_share}


def _operators(view: CellView) -> Iterator[RawRow]:
    placement = view.measured.placement if view.measured else None
    for step, shares in (placement.operators if isinstance(placement, Placement) else {}).items():
        for name, share in shares.items():
            yield {"step": step, "operator": name, "time_share": share}


def _files(view: CellView) -> Iterator[RawRow]:
    graph = view.cell.graph
    for file in graph.files if isinstance(graph, Graph) else ():
        assert isinstance(graph, Graph)
        yield {
            "file": file.path,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "recipe": graph.recipe,
        }


_CELLS: dict[str, Callable[[CellView], Iterator[RawRow]]] = {
    "Every metric with its 95 % interval": _metrics,
    "Latency of single samples": _latencies,
    "Rounds: medians of prefill and decode": _rounds,
    "Growth with the context": _growth,
    "Batches and streams": _throughput,
    "Text by domain": _domains,
    "Text by document": _documents,
    "Roofline": _rooflines,
    "Energy windows, gross": _windows,
    "Memory": _memory,
    "Where the operators ran": _placement,
    "Time by operator": _operators,
    "Files of the graphs": _files,
}


# --- of each run ------------------------------------------------------------------------------


def _of_run(place: int, record: Profile) -> Iterator[RawRow]:
    """Return every field of the record except its cells, by its path."""
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
