"""A leaderboard over many records: cells as columns of numbers, which `pages/board.js` filters, sorts and draws.

Names stand once, in dictionaries; numbers are in SI with six digits. What a record says is data only: the page
shows it as text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from edgecap.analysis import published
from edgecap.analysis.metrics import Metric
from edgecap.record import Absent, Estimate
from edgecap.report.board.entries import FIGURES, BoardEntry, BoardText, latest, shown
from edgecap.report.page.template import page
from edgecap.storage.collection import LoadedRecord, SkippedFile

BoardFiles = Sequence[LoadedRecord[tuple[BoardEntry, ...]] | SkippedFile]

# What people read in place of a unit: its name there, and how many of it one SI unit is.
_READ_AS = {
    "s": ("ms", 1e3),
    "J": ("mJ", 1e3),
    "B": ("MB", 1e-6),
    "FLOP": ("GFLOP", 1e-9),
    "bit/s": ("kbit/s", 1e-3),
    "bit/J": ("kbit/J", 1e-3),
}


class _Row(NamedTuple):
    """An entry with the file that it is from."""

    path: Path
    entry: BoardEntry


class _Words:
    """Strings by number, each once."""

    def __init__(self) -> None:
        self._places: dict[Any, int] = {}

    def place(self, word: Any) -> int:
        """The number of a word; -1 of none."""
        return -1 if word == "" else self._places.setdefault(word, len(self._places))

    def all(self) -> list[Any]:
        """The words in the order of their numbers."""
        return list(self._places)


def board_page(values: dict[str, Any], live: bool = False) -> str:
    """The page of what `board_values` gives; a `live` one asks its server for what is new.

    Raises UsageError without the extra `report`.
    """
    # The board draws by itself, three times as fast: without the library the page is half as large.
    return page("board.html", data=values, live=live, plotly=str)


def board_values(
    found: BoardFiles, link: Callable[[Path], str], version: str = ""
) -> dict[str, Any]:
    """Everything that the page shows, as JSON values: cells in columns, newest record first.

    `link` gives the address of a record's file.
    """
    rows, reasons = _rows(found), _Words()
    files = list(dict.fromkeys(row.path for row in rows))
    return {
        "version": version,
        "figures": [_figure(metric) for metric in FIGURES],
        "names": _names(rows),
        "cells": _cells(rows, files, reasons),
        "values": [_values(rows, place, reasons) for place in range(len(FIGURES))],
        "reasons": reasons.all(),
        "records": _records(rows, link),
        "unread": [
            {"name": shown(path.name), "reason": shown(reason, 300)}
            for path, reason in unread(found)
        ],
        "published": {"source": published.SOURCE, "points": _published()},
    }


def rows_of(found: BoardFiles) -> dict[str, Any]:
    """The same for programs: a row a cell, newest record first, and the files that gave none."""
    rows = _rows(found)
    newest = latest(row.entry for row in rows)
    return {
        "rows": [_row_values(row, place in newest) for place, row in enumerate(rows)],
        "unread": [{"path": _text_of(path), "reason": reason} for path, reason in unread(found)],
    }


def relative_link(to: Path, page_folder: Path) -> str:
    """The address of a file as seen from a page: relative, or a file: address on another drive."""
    try:
        return quote(os.fsencode(Path(os.path.relpath(to, page_folder)).as_posix()))
    except ValueError:
        return to.absolute().as_uri()


def unread(found: BoardFiles) -> list[SkippedFile]:
    """What is not shown: damaged files, records without a cell, cells without a record."""
    empty = "holds no cell: the run was cut off before the first, or is going on"
    return [
        one if isinstance(one, SkippedFile) else SkippedFile(one.path, f"{one.path.name} {empty}")
        for one in found
        if isinstance(one, SkippedFile) or not one.value
    ]


def _rows(found: BoardFiles) -> list[_Row]:
    rows = [
        _Row(one.path, entry)
        for one in found
        if isinstance(one, LoadedRecord)
        for entry in one.value
    ]
    return sorted(rows, key=lambda row: row.entry.created_utc, reverse=True)


def _figure(metric: Metric) -> dict[str, Any]:
    unit, factor = _READ_AS.get(metric.unit, (metric.unit, 1))
    return {
        "name": metric.name,
        "words": metric.words,
        "unit": unit,
        "factor": factor,
        "less": metric.less_is_better,
    }


# --- columns ----------------------------------------------------------------------------------


def _names(rows: list[_Row]) -> dict[str, list[str]]:
    """The words of each facet; devices of one name and texts of one name are told apart."""
    entries = [row.entry for row in rows]
    devices = _once((e.device, e.processor) for e in entries)
    return {
        "model": _once(e.model for e in entries),
        "device": _apart(
            [name for name, _ in devices], [f"{name} · {cpu}" for name, cpu in devices]
        ),
        "processor": [processor for _, processor in devices],
        "provider": _once(e.provider for e in entries),
        "precision": _once(e.precision for e in entries),
        "outcome": _once(e.outcome for e in entries),
        "text": _named_texts(_once(e.text for e in entries)),
    }


def _named_texts(texts: list[BoardText]) -> list[str]:
    return _apart([_text(t) for t in texts], [f"{_text(t)}, sha256 {t.sha256[:8]}" for t in texts])


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


def _once(words: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(words))


def _apart(short: list[str], long: list[str]) -> list[str]:
    """Short names where they tell all apart, else the long one of those that share a short one."""
    return [b if short.count(a) > 1 else a for a, b in zip(short, long, strict=True)]


def _cells(rows: list[_Row], files: list[Path], reasons: _Words) -> dict[str, list[Any]]:
    entries = [row.entry for row in rows]
    newest, at = latest(entries), {path: place for place, path in enumerate(files)}
    facets: dict[str, list[Any]] = {
        **{
            name: [getattr(e, name) for e in entries]
            for name in ("model", "provider", "precision", "outcome", "text")
        },
        "device": [(e.device, e.processor) for e in entries],
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
    places = {word: place for place, word in enumerate(_once(words))}
    return [places[word] for word in words]


def _values(rows: list[_Row], place: int, reasons: _Words) -> dict[str, list[Any] | None]:
    """A figure's column: values, the ends of intervals where there are any, and numbers of the reasons of absence."""
    found = [row.entry.figures[place] for row in rows]
    return {
        "value": [None if isinstance(f, Absent) else _short(f.value) for f in found],
        "low": _ends(found, "low"),
        "high": _ends(found, "high"),
        "absent": [reasons.place(f.reason) if isinstance(f, Absent) else -1 for f in found]
        if any(isinstance(f, Absent) for f in found)
        else None,
    }


def _ends(found: list[Estimate | Absent], end: str) -> list[Any] | None:
    ends = [getattr(f, end, None) for f in found]
    return (
        None if all(e is None for e in ends) else [None if e is None else _short(e) for e in ends]
    )


def _short(value: float) -> float | int:
    """Six digits; a whole number without its point."""
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def _records(rows: list[_Row], link: Callable[[Path], str]) -> list[dict[str, Any]]:
    first = {row.path: row.entry for row in reversed(rows)}
    return [
        {
            "name": shown(path.name),
            "link": link(path),
            "created": first[path].created_utc,
            "complete": first[path].complete,
        }
        for path in dict.fromkeys(row.path for row in rows)
    ]


def _published() -> list[list[Any]]:
    return [[*point, _short(point.gain_bits_per_token)] for point in published.read_published()]


# --- rows for programs ------------------------------------------------------------------------


def _row_values(row: _Row, is_latest: bool) -> dict[str, Any]:
    e = row.entry
    return {
        "record": _text_of(row.path),
        "created_utc": e.created_utc,
        "complete": e.complete,
        "latest": is_latest,
        "model": e.model,
        "device": e.device,
        "processor": e.processor,
        "provider": e.provider,
        "precision": e.precision,
        "text": e.text._asdict(),
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
