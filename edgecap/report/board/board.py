"""The leaderboard over many records: cells as columns, which `board.js` filters, sorts and draws.

Each name is stored once, in a dictionary; numbers are in SI units with six digits. Text of a record
is data only: the page shows it as text, never as markup.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from edgecap.analysis import published
from edgecap.analysis.cell_labels import device_names
from edgecap.analysis.metrics import Metric
from edgecap.names import shortened_list, shortened_unique
from edgecap.record import Absent, Estimate
from edgecap.report.board.entries import FIGURES, RANKED, BoardEntry, BoardText, latest
from edgecap.report.page.template import page
from edgecap.storage.collection import LoadedRecord, SkippedFile

BoardFiles = Sequence[LoadedRecord[tuple[BoardEntry, ...]] | SkippedFile]

# The unit that the page shows for each SI unit, and how many of it one SI unit is.
_SHOWN_UNITS = {
    "s": ("ms", 1e3),
    "J": ("mJ", 1e3),
    "B": ("MB", 1e-6),
    "FLOP": ("GFLOP", 1e-9),
    "FLOP/s": ("GFLOP/s", 1e-9),
    "FLOP/J": ("GFLOP/J", 1e-9),
    "bit/s": ("kbit/s", 1e-3),
    "bit/J": ("kbit/J", 1e-3),
}


_WITHIN = {"text": "corpus", "tokenizer": "tokenizer"}  # facet: what a metric may need equal
_UNRANKED = math.inf
_RANKED_PLACE = [metric.name for metric in FIGURES].index(RANKED)

BoardRow = LoadedRecord[BoardEntry]  # one entry with the file that it comes from


class _Dictionary:
    """Values by number, each stored once."""

    def __init__(self) -> None:
        self._places: dict[Any, int] = {}

    def place(self, word: Any) -> int:
        """Return the number of a word; -1 for an empty one."""
        return -1 if word == "" else self._places.setdefault(word, len(self._places))

    def all(self) -> list[Any]:
        """Return the words in the order of their numbers."""
        return list(self._places)


def board_page(values: dict[str, Any], live: bool = False) -> str:
    """Return the page of `board_values`; a `live` one polls its server for changes.

    Raise UsageError without the extra `report`.
    """
    # The board draws its chart itself: three times as fast, and the page is half as large.
    return page("board.html", data=values, live=live, plotly=str)


def board_values(
    files: BoardFiles, link: Callable[[Path], str], version: str = ""
) -> dict[str, Any]:
    """Return the content of the page as JSON values: cells in columns, newest record first.

    `link` returns the address of a record's file.
    """
    rows, reasons = _rows(files), _Dictionary()
    paths = list(dict.fromkeys(row.path for row in rows))
    return {
        "version": version,
        "figures": [_figure(metric) for metric in FIGURES],
        "names": _names(rows),
        "cells": _cells(rows, paths, reasons),
        "values": [_values(rows, place, reasons) for place in range(len(FIGURES))],
        "reasons": reasons.all(),
        "records": _records(rows, link),
        "unread": [
            {"name": shortened_unique(path.name), "reason": shortened_unique(reason, 300)}
            for path, reason in unread(files)
        ],
        "published": {"source": published.SOURCE, "points": _published()},
    }


def rows_of(files: BoardFiles) -> dict[str, Any]:
    """Return the content for programs: one row per cell, and unread files.

    Rows of one text and tokenizer stand together, ranked by `RANKED`; cells without it come last.
    """
    rows = _ranked(_rows(files))
    newest = latest(row.value for row in rows)
    devices = device_names([row.value.hardware for row in rows])
    return {
        "rows": [
            _row_values(row, device, place in newest)
            for place, (row, device) in enumerate(zip(rows, devices, strict=True))
        ],
        "unread": [{"path": _text_of(path), "reason": reason} for path, reason in unread(files)],
    }


def _ranked(rows: list[BoardRow]) -> list[BoardRow]:
    """Sort rows by `RANKED` within groups that compare, the group with most ranked cells first."""
    groups: dict[tuple[BoardText, str], list[BoardRow]] = {}
    for row in rows:
        groups.setdefault((row.value.text, row.value.tokenizer), []).append(row)
    ordered = [sorted(group, key=_place_in_ranking) for group in groups.values()]
    ordered.sort(key=lambda group: -sum(_place_in_ranking(row) < _UNRANKED for row in group))
    return [row for group in ordered for row in group]


def _place_in_ranking(row: BoardRow) -> float:
    figure = row.value.figures[_RANKED_PLACE]
    return _UNRANKED if isinstance(figure, Absent) else -figure.value


def relative_link(to: Path, page_folder: Path) -> str:
    """Return the address of a file relative to a page; a `file:` address if on another drive."""
    try:
        return quote(os.fsencode(Path(os.path.relpath(to, page_folder)).as_posix()))
    except ValueError:
        return to.absolute().as_uri()


def unread(files: BoardFiles) -> list[SkippedFile]:
    """Return what cannot be shown: damaged files, records without cells, cells without a record."""
    empty = "holds no cell: the run was cut off before the first, or is going on"
    return [
        one if isinstance(one, SkippedFile) else SkippedFile(one.path, f"{one.path.name} {empty}")
        for one in files
        if isinstance(one, SkippedFile) or not one.value
    ]


def _rows(files: BoardFiles) -> list[BoardRow]:
    rows = [
        LoadedRecord(file.path, e)
        for file in files
        if isinstance(file, LoadedRecord)
        for e in file.value
    ]
    return sorted(rows, key=lambda row: row.value.created_utc, reverse=True)


def _figure(metric: Metric) -> dict[str, Any]:
    unit, factor = _SHOWN_UNITS.get(metric.unit, (metric.unit, 1))
    return {
        "name": metric.name,
        "words": metric.words,
        "unit": unit,
        "factor": factor,
        "less": metric.less_is_better,
        "log": metric.unit.startswith("FLOP"),
        "within": [facet for facet, need in _WITHIN.items() if need in metric.needs],
    }


# --- columns ----------------------------------------------------------------------------------


def _names(rows: list[BoardRow]) -> dict[str, list[str]]:
    """Return the words of each facet; devices and texts that share a name are told apart."""
    entries = [row.value for row in rows]
    devices = _distinct(e.hardware for e in entries)
    return {
        "model": _distinct(e.model for e in entries),
        "device": device_names(devices),
        "processor": [f"{device.details}, host {device.host}" for device in devices],
        "provider": _distinct(e.provider for e in entries),
        "precision": _distinct(e.precision for e in entries),
        "outcome": _distinct(e.outcome for e in entries),
        "text": _named_texts(_distinct(e.text for e in entries)),
        "tokenizer": _named_tokenizers(entries),
    }


def _named_tokenizers(entries: list[BoardEntry]) -> list[str]:
    """Call each tokenizer by the models that have it."""
    models: dict[str, dict[str, None]] = {}
    for e in entries:
        models.setdefault(e.tokenizer, {})[e.model] = None
    words = [f"of {shortened_list(list(names), 2)}" for names in models.values()]
    return _unambiguous(
        words, [f"{name}, sha256 {key[:8]}" for name, key in zip(words, models, strict=True)]
    )


def _named_texts(texts: list[BoardText]) -> list[str]:
    return _unambiguous(
        [_text(t) for t in texts],
        [f"{_text(t)}, sha256 {t.sha256[:8]}, law {t.law}" for t in texts],
    )


def _text(t: BoardText) -> str:
    return ", ".join(
        [
            t.corpus,
            f"{t.documents} document{'s' * (t.documents != 1)}",
            f"protocol {t.protocol}",
            *([f"window {t.context}"] if t.context else []),
            *([f"stride {t.stride}"] if t.stride else []),
            *([f"bias {t.bias_bits:g} bit"] if t.bias_bits else []),
        ]
    )


def _distinct(words: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(words))


def _unambiguous(short: list[str], long: list[str]) -> list[str]:
    """Return the short names, but the long one of those that share a short one."""
    return [b if short.count(a) > 1 else a for a, b in zip(short, long, strict=True)]


def _cells(rows: list[BoardRow], paths: list[Path], reasons: _Dictionary) -> dict[str, list[Any]]:
    entries = [row.value for row in rows]
    newest, at = latest(entries), {path: place for place, path in enumerate(paths)}
    facets: dict[str, list[Any]] = {
        **{
            name: [getattr(e, name) for e in entries]
            for name in ("model", "provider", "precision", "outcome", "text", "tokenizer")
        },
        "device": [e.hardware for e in entries],
    }
    return {
        **{name: _numbered(words) for name, words in facets.items()},
        "record": [at[row.path] for row in rows],
        "failure": [reasons.place(e.failure) for e in entries],
        "joules": [reasons.place(e.joules) for e in entries],
        "context": [None if e.context is None else _short(e.context) for e in entries],
        "latest": [int(place in newest) for place in range(len(rows))],
        "published": [int(e.as_published) for e in entries],
        "cautions": [e.cautions for e in entries],
    }


def _numbered(words: list[Any]) -> list[int]:
    places = {word: place for place, word in enumerate(_distinct(words))}
    return [places[word] for word in words]


def _values(rows: list[BoardRow], place: int, reasons: _Dictionary) -> dict[str, list[Any] | None]:
    """Return the column of a figure: values, ends of intervals, numbers of reasons of absence.

    A part that no cell has is None.
    """
    figures = [row.value.figures[place] for row in rows]
    absent = [reasons.place(f.reason) if isinstance(f, Absent) else -1 for f in figures]
    return {
        "value": [None if isinstance(f, Absent) else _short(f.value) for f in figures],
        "low": _ends(figures, "low"),
        "high": _ends(figures, "high"),
        "absent": absent if any(isinstance(f, Absent) for f in figures) else None,
    }


def _ends(figures: list[Estimate | Absent], end: str) -> list[Any] | None:
    ends = [getattr(figure, end, None) for figure in figures]
    if all(value is None for value in ends):
        return None
    return [None if value is None else _short(value) for value in ends]


def _short(value: float) -> float | int:
    """Round to six digits; return a whole number as an int."""
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def _records(rows: list[BoardRow], link: Callable[[Path], str]) -> list[dict[str, Any]]:
    first = {row.path: row.value for row in reversed(rows)}
    return [
        {
            "name": shortened_unique(path.name),
            "link": link(path),
            "created": first[path].created_utc,
            "complete": first[path].complete,
        }
        for path in dict.fromkeys(row.path for row in rows)
    ]


def _published() -> list[list[Any]]:
    return [[*point, _short(point.gain_bits_per_token)] for point in published.read_published()]


# --- rows for programs ------------------------------------------------------------------------


def _row_values(row: BoardRow, device: str, is_latest: bool) -> dict[str, Any]:
    e = row.value
    return {
        "record": _text_of(row.path),
        "created_utc": e.created_utc,
        "complete": e.complete,
        "latest": is_latest,
        "model": e.model,
        "device": device,
        "processor": e.hardware.details,
        "host": e.hardware.host,
        "provider": e.provider,
        "precision": e.precision,
        "text": e.text._asdict(),
        "tokenizer_sha256": e.tokenizer,
        "outcome": e.outcome,
        "failure": e.failure or None,
        "joules": e.joules or None,
        "decode_context": e.context,
        "scored_as_published": e.as_published,
        "figures": {
            metric.name: msgspec.to_builtins(f)
            for metric, f in zip(FIGURES, e.figures, strict=True)
        },
    }


def _text_of(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "replace")
