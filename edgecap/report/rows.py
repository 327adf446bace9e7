"""One flat row a cell: columns with stable names and types in SI units, for tables and data frames; and as CSV.

The unit is the suffix of the name (`_s`, `_j`, `_bytes`, `_bits`). Text columns are strings, `documents`, `context`
and `threads` whole numbers, every metric with `_low` and `_high` (its 95 % interval) a float; what is absent is empty.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from edgecap.analysis.cell_view import CellView, cell_views
from edgecap.analysis.metrics import METRICS
from edgecap.analysis.outcomes import failure_of, status
from edgecap.record import Absent, Profile
from edgecap.storage.records import record_path

Value = str | int | float | None
CellRow = dict[str, Value]

ABOUT = (
    *("record", "created_utc", "edgecap", "machine", "cpu", "model", "model_sha256", "task"),
    *("corpus", "corpus_sha256", "protocol", "precision", "provider", "status", "failure"),
    *("energy_provenance", "energy_counter", "documents", "context", "threads", "bias_bits"),
)
COLUMNS = (*ABOUT, *[f"{m.name}{end}" for m in METRICS for end in ("", "_low", "_high")])
_COMMANDS = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet compute a text


def rows(records: Sequence[Profile]) -> list[CellRow]:
    """Every cell of the records, in order; each row has all of `COLUMNS`."""
    return [_row(view) for view in cell_views(records)]


def name_of_record(record: Profile) -> str:
    """The record's file name as edgecap writes it, without its ending."""
    return record_path(Path(), record).stem


def _row(view: CellView) -> CellRow:
    figures: CellRow = {}
    for name, value in view.metrics.items():
        had = None if isinstance(value, Absent) else value
        for end, number in (("", "value"), ("_low", "low"), ("_high", "high")):
            figures[f"{name}{end}"] = None if had is None else _float(getattr(had, number))
    about = _of_record(view.record) | _of_cell(view)
    return {name: (about | figures)[name] for name in COLUMNS}


def _float(number: float | None) -> float | None:
    return None if number is None else float(number)


def _of_record(record: Profile) -> CellRow:
    return {
        "record": name_of_record(record),
        "created_utc": record.created_utc,
        "edgecap": record.edgecap,
        "machine": record.machine.name,
        "cpu": record.machine.cpu,
        "model": record.source.name,
        "model_sha256": record.source.weights_sha256,
        "task": record.source.task,
        "corpus": record.corpus.name,
        "corpus_sha256": record.corpus.sha256,
        "bias_bits": float(record.corpus.bias_bits),
    }


def _of_cell(view: CellView) -> CellRow:
    cell, text, timed, joules = view.cell, view.compression, view.latency, view.energy
    return {
        "precision": cell.precision,
        "provider": cell.provider,
        "status": status(cell),
        "failure": failure_of(cell) or None,
        "protocol": text.protocol if text else None,
        "documents": text.documents if text else None,
        "context": text.context if text else None,
        "threads": timed.threads if timed else None,
        "energy_provenance": joules.provenance if joules else None,
        "energy_counter": joules.counter if joules else None,
    }


def as_csv(found: Sequence[CellRow]) -> str:
    """The rows as CSV: one header, empty where absent, numbers in full precision, texts that no spreadsheet computes."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([[_written(row[name]) for name in COLUMNS] for row in found])
    return file.getvalue()


def _written(value: Value) -> str:
    if isinstance(value, str):
        line = " ".join(value.replace("\0", "").split("\n")).replace("\r", " ")
        return f"'{line}" if line.startswith(_COMMANDS) else line
    return "" if value is None else repr(value)
