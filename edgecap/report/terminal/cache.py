"""What the cache keeps, and what was removed from it, as tables and as plain values."""

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

_SHORTEST, _BESIDE = (
    24,
    48,
)  # columns of what a thing is, at least, and of all that stands beside it


def kept(found: Survey, width: int) -> str:
    """A row a thing, totals by kind, and what is free; one line where nothing is kept."""
    if not found.things:
        return f"nothing is kept in {printable(found.cache)}; {size(found.free_bytes)} free on its disk"
    totals = [[kind, str(count), size(total)] for kind, count, total in _totals(found)]
    return "\n\n".join(
        [
            table(
                ("kept", "kind", "bytes", "last used"),
                [_row(thing, width) for thing in found.things],
                width,
            ),
            table(("kind", "things", "bytes"), totals, width),
            f"{printable(found.cache)}: {size(found.bytes)}; {size(found.free_bytes)} free on its disk",
        ]
    )


def pruned(found: PruneResult, cache: str, free_bytes: int, dry_run: bool) -> str:
    """A line for each thing that was removed or stayed, and how much that freed."""
    removed = "would remove" if dry_run else "removed"
    freed = "would free" if dry_run else "freed"
    lines = [f"{removed} {_named(thing)}" for thing in found.removed]
    lines += [
        f"{click.style('kept', fg='yellow')} {_named(one.thing)}: {one.reason}"
        for one in found.stayed
    ]
    left = (
        f"{size(found.left_bytes)} {'would be left' if dry_run else 'left'} in {printable(cache)}"
    )
    sum_line = f"{freed} {size(found.freed_bytes)}" if found.removed else "nothing to remove"
    return "\n".join([*lines, f"{sum_line}; {left}; {size(free_bytes)} free on its disk"])


def kept_values(found: Survey) -> dict[str, Any]:
    """The same for `--json`."""
    return {
        "cache": found.cache,
        "bytes": found.bytes,
        "free_bytes": found.free_bytes,
        "kinds": {kind: {"things": count, "bytes": total} for kind, count, total in _totals(found)},
        "things": [_values(thing) for thing in found.things],
    }


def pruned_values(found: PruneResult, cache: str, free_bytes: int, dry_run: bool) -> dict[str, Any]:
    """The same for `--json`."""
    return {
        "cache": cache,
        "dry_run": dry_run,
        "freed_bytes": found.freed_bytes,
        "left_bytes": found.left_bytes,
        "free_bytes": free_bytes,
        "removed": [_values(thing) for thing in found.removed],
        "stayed": [{**_values(one.thing), "reason": one.reason} for one in found.stayed],
    }


def _values(thing: CacheEntry) -> dict[str, Any]:
    told = msgspec.to_builtins(thing)
    return {
        **told,
        "last_used_utc": f"{_moment(told.pop('last_used_s')).isoformat(timespec='seconds')}Z",
    }


def _totals(found: Survey) -> list[tuple[str, int, int]]:
    """Kind, how many, bytes; the largest first."""
    sums: dict[str, list[int]] = {}
    for thing in found.things:
        sums.setdefault(thing.kind, []).append(thing.bytes)
    return sorted(((k, len(v), sum(v)) for k, v in sums.items()), key=lambda row: (-row[2], row[0]))


def _row(thing: CacheEntry, width: int) -> Sequence[str]:
    room = max(_SHORTEST, width - _BESIDE)
    what = f"{thing.what}: {thing.recipe}" if thing.recipe else thing.what
    what = printable(what if thing.ours else f"{thing.path}: {what}")
    cut = what if len(what) <= room else f"{what[: room - 3]}..."
    return (
        cut,
        printable(thing.kind),
        size(thing.bytes),
        f"{_moment(thing.last_used_s):%Y-%m-%d %H:%M}Z",
    )


def _named(thing: CacheEntry) -> str:
    return printable(f"{thing.kind} {thing.what} ({thing.path}), {size(thing.bytes)}")


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(tzinfo=None)
