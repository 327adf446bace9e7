"""Remove cache entries, the least recently used first; none that is in use or not edgecap's."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from edgecap.errors import UsageError
from edgecap.storage import locks
from edgecap.storage.cache import (
    LEFT_OVER,
    SCRATCH,
    CacheEntry,
    is_cache,
    last_used,
    survey,
    translate_read_errors,
)

PROTECTED_KIND = "peaks"  # measurements; all else can be built again
_YOUNG_S = 60.0  # a file that is written beside its place may still get there


class PruneOptions(msgspec.Struct, frozen=True):
    """Entries to remove: those that match every option, until the cache is below `to_bytes`."""

    older_than_s: float | None = None
    to_bytes: float | None = None
    model: str | None = None
    kind: str | None = None
    everything: bool = False


class NotRemoved(msgspec.Struct, frozen=True):
    """An entry that was selected but not removed, and why: in use, or the disk refused."""

    thing: CacheEntry
    reason: str
    refused: bool = False


class PruneResult(msgspec.Struct, frozen=True):
    """Entries that were (or would be) removed, those that stayed, and the bytes left."""

    removed: tuple[CacheEntry, ...]
    stayed: tuple[NotRemoved, ...]
    left_bytes: int

    @property
    def freed_bytes(self) -> int:
        """Bytes of the removed entries."""
        return sum(thing.bytes for thing in self.removed)


def prune(
    cache: Path, options: PruneOptions, dry_run: bool = False, now_s: float | None = None
) -> PruneResult:
    """Remove entries, the least recently used first; those that a process builds or uses stay.

    Raises UsageError if the folder exists and is no cache.
    """
    listed = survey(cache)
    place = Path(listed.cache)
    with translate_read_errors(cache):
        if place.exists() and not is_cache(place) and any(place.iterdir()):
            raise UsageError(f"{cache} holds nothing that edgecap keeps; nothing is removed there")
    left, removed, stayed = listed.bytes, list[CacheEntry](), list[NotRemoved]()
    for thing in _selected(listed.things, options, time.time() if now_s is None else now_s):
        if options.to_bytes is not None and left <= options.to_bytes:
            break
        refusal = _try_removing(place, thing, dry_run)
        if refusal:
            stayed.append(refusal)
        else:
            removed.append(thing)
            left -= thing.bytes
    locks.remove_stale(place)
    return PruneResult(tuple(removed), tuple(stayed), left)


def remove(cache: Path, things: Iterable[CacheEntry]) -> None:
    """Remove entries that are not in use; those that the disk refuses to remove stay."""
    for thing in things:
        _try_removing(cache, thing, dry_run=False)


def _selected(
    things: tuple[CacheEntry, ...], options: PruneOptions, now_s: float
) -> list[CacheEntry]:
    """Return the entries that match, the least recently used first."""
    matching = [thing for thing in things if thing.ours and _matches(thing, options, now_s)]
    return sorted(matching, key=lambda thing: thing.last_used_s)


def _matches(thing: CacheEntry, options: PruneOptions, now_s: float) -> bool:
    if options.everything:
        return True
    if options.kind is None and thing.kind == PROTECTED_KIND:
        return False
    return (
        (options.kind is None or thing.kind == options.kind)
        and (options.model is None or _is_of(thing, options.model))
        and (options.older_than_s is None or now_s - thing.last_used_s > options.older_than_s)
    )


def _is_of(thing: CacheEntry, model: str) -> bool:
    """Return True if an entry is of a model, by its whole name or the part behind the slash."""
    names = (thing.model or "").lower()
    return bool(names) and model.lower() in (names, names.rpartition("/")[2])


def _try_removing(cache: Path, thing: CacheEntry, dry_run: bool) -> NotRemoved | None:
    """Remove an entry; return why it stays, or None."""
    path = cache / thing.path
    scratch = SCRATCH.fullmatch(path.name)
    try:
        with locks.removal_lock(path.with_name(scratch["name"]) if scratch else path) as reason:
            stays = reason or _race(path, thing)
            if not stays and not dry_run:
                _remove(path)
    except OSError as error:
        return NotRemoved(thing, f"it cannot be removed: {error.strerror or error}", refused=True)
    return NotRemoved(thing, stays) if stays else None


def _race(path: Path, thing: CacheEntry) -> str:
    """Return what another process does to an entry that was listed before; "" if it may go."""
    if last_used(path) > thing.last_used_s:
        return "another process used it meanwhile"
    if thing.kind == LEFT_OVER and path.is_file() and time.time() - thing.last_used_s < _YOUNG_S:
        return "another process writes it"
    return ""


def _remove(path: Path) -> None:
    """Remove a file, or rename and remove a folder, so that no process finds half of it.

    Raises OSError.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink()
    elif path.name.startswith("."):
        shutil.rmtree(path)
    else:
        shutil.rmtree(path.rename(path.with_name(f".{path.name}.{secrets.token_hex(4)}")))
