"""Cells as flat rows for tables and data frames, and as CSV: stable columns in SI units.

The unit is the suffix of the name (`_s`, `_j`, `_bytes`, `_bits`). Text columns are strings;
`documents`, `context` and `threads` are integers; every metric, with `_low` and `_high` (its 95 %
interval), is a float. An absent value is empty.
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

_DESCRIPTION = (
    *("record", "created_utc", "edgecap", "machine", "cpu", "model", "model_sha256", "task"),
    *("corpus", "corpus_sha256", "protocol", "precision", "provider", "status", "failure"),
    *("energy_provenance", "energy_counter", "documents", "context", "threads", "bias_bits"),
)
COLUMNS = (*_DESCRIPTION, *[f"{m.name}{end}" for m in METRICS for end in ("", "_low", "_high")])
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute such a text


def rows(records: Sequence[Profile]) -> list[CellRow]:
    """Return a row per cell of the records, in order; each row has all of `COLUMNS`."""
    return [_row(view) for view in cell_views(records)]


def name_of_record(record: Profile) -> str:
    """Return the file name that edgecap gives a record, without its ending."""
    return record_path(Path(), record).stem


def _row(view: CellView) -> CellRow:
    figures: CellRow = {}
    for name, metric in view.metrics.items():
        estimate = None if isinstance(metric, Absent) else metric
        for end, part in (("", "value"), ("_low", "low"), ("_high", "high")):
            figures[f"{name}{end}"] = _float(getattr(estimate, part, None))
    row = _of_record(view.record) | _of_cell(view) | figures
    return {name: row[name] for name in COLUMNS}


def _float(number: float | None) -> float | None:
    return None if number is None else float(number)


def _of_record(record: Profile) -> CellRow:
    return {
        "record": name_of_record(record),
        "created_utc": record.created_utc,
        "edgecap": record.edgecap,
        "machine": record.machine.name,
        "cpu": record.machine.processor,
        "model": record.source.name,
        "model_sha256": record.source.weights_sha256,
        "task": record.source.task,
        "corpus": record.corpus.name,
        "corpus_sha256": record.corpus.sha256,
        "bias_bits": float(record.corpus.bias_bits),
    }


def _of_cell(view: CellView) -> CellRow:
    cell, text, latency, energy = view.cell, view.compression, view.latency, view.energy
    return {
        "precision": cell.precision,
        "provider": cell.provider,
        "status": status(cell),
        "failure": failure_of(cell) or None,
        "protocol": text.protocol if text else None,
        "documents": text.documents if text else None,
        "context": text.context if text else None,
        "threads": latency.threads if latency else None,
        "energy_provenance": energy.provenance if energy else None,
        "energy_counter": energy.counter if energy else None,
    }


def as_csv(rows: Sequence[CellRow]) -> str:
    """Return the rows as CSV with a header; absent values are empty, numbers have full precision.

    A text that a spreadsheet would compute gets a quote in front.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([[_csv_text(row[name]) for name in COLUMNS] for row in rows])
    return file.getvalue()


def _csv_text(value: Value) -> str:
    if isinstance(value, str):
        line = " ".join(value.replace("\0", "").split("\n")).replace("\r", " ")
        return f"'{line}" if line.startswith(_FORMULA_STARTS) else line
    return "" if value is None else repr(value)
