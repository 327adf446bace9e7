"""Contents of the cache, and what was removed from it, as tables and as plain values."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from edgecap.names import printable
from edgecap.report.format import table
from edgecap.storage.cache import CacheEntry, Survey
from edgecap.storage.cache_prune import PruneResult
from edgecap.units import size

_LEAST_NAME = 24  # columns of an entry's name in a narrow terminal
_OTHER_COLUMNS = 48


def kept(survey: Survey, width: int) -> str:
    """Return one row an entry, totals by kind and free space; one line of an empty cache."""
    if not survey.things:
        free = size(survey.free_bytes)
        return f"the cache {printable(survey.cache)} is empty; {free} free on its disk"
    totals = [[kind, str(count), size(total)] for kind, count, total in _totals(survey)]
    return "\n\n".join(
        [
            table(
                ("kept", "kind", "bytes", "last used"),
                [_row(entry, width) for entry in survey.things],
                width,
            ),
            table(("kind", "things", "bytes"), totals, width),
            f"{printable(survey.cache)}: {size(survey.bytes)}; {size(survey.free_bytes)} free on "
            "its disk",
        ]
    )


def pruned(pruning: PruneResult, cache: str, free_bytes: int, dry_run: bool) -> str:
    """Return one line for each entry that was removed or stayed, and the bytes freed."""
    removed = "would remove" if dry_run else "removed"
    freed = "would free" if dry_run else "freed"
    lines = [f"{removed} {_entry_line(entry)}" for entry in pruning.removed]
    lines += [
        f"{click.style('kept', fg='yellow')} {_entry_line(one.thing)}: {one.reason}"
        for one in pruning.stayed
    ]
    left = (
        f"{size(pruning.left_bytes)} {'would be left' if dry_run else 'left'} in {printable(cache)}"
    )
    sum_line = f"{freed} {size(pruning.freed_bytes)}" if pruning.removed else "nothing to remove"
    return "\n".join([*lines, f"{sum_line}; {left}; {size(free_bytes)} free on its disk"])


def kept_values(survey: Survey) -> dict[str, Any]:
    """Return the contents of the cache as values for `--json`."""
    return {
        "cache": survey.cache,
        "bytes": survey.bytes,
        "free_bytes": survey.free_bytes,
        "kinds": {
            kind: {"things": count, "bytes": total} for kind, count, total in _totals(survey)
        },
        "things": [_values(entry) for entry in survey.things],
    }


def pruned_values(
    pruning: PruneResult, cache: str, free_bytes: int, dry_run: bool
) -> dict[str, Any]:
    """Return what was removed as values for `--json`."""
    return {
        "cache": cache,
        "dry_run": dry_run,
        "freed_bytes": pruning.freed_bytes,
        "left_bytes": pruning.left_bytes,
        "free_bytes": free_bytes,
        "removed": [_values(entry) for entry in pruning.removed],
        "stayed": [{**_values(one.thing), "reason": one.reason} for one in pruning.stayed],
    }


def _values(entry: CacheEntry) -> dict[str, Any]:
    values = msgspec.to_builtins(entry)
    return {
        **values,
        "last_used_utc": f"{_utc(values.pop('last_used_s')).isoformat(timespec='seconds')}Z",
    }


def _totals(survey: Survey) -> list[tuple[str, int, int]]:
    """Return kind, number of entries and bytes, the largest kind first."""
    sums: dict[str, list[int]] = {}
    for entry in survey.things:
        sums.setdefault(entry.kind, []).append(entry.bytes)
    return sorted(((k, len(v), sum(v)) for k, v in sums.items()), key=lambda row: (-row[2], row[0]))


def _row(entry: CacheEntry, width: int) -> Sequence[str]:
    room = max(_LEAST_NAME, width - _OTHER_COLUMNS)
    what = f"{entry.what}: {entry.recipe}" if entry.recipe else entry.what
    what = printable(what if entry.ours else f"{entry.path}: {what}")
    cut = what if len(what) <= room else f"{what[: room - 3]}..."
    return (
        cut,
        printable(entry.kind),
        size(entry.bytes),
        f"{_utc(entry.last_used_s):%Y-%m-%d %H:%M}Z",
    )


def _entry_line(entry: CacheEntry) -> str:
    return printable(f"{entry.kind} {entry.what} ({entry.path}), {size(entry.bytes)}")


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(tzinfo=None)
