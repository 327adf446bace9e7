"""Removes from the cache what is wanted gone: the least recently used first, and nothing that is in use or not edgecap's."""

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

PROTECTED_KIND = "peaks"  # measurements, unlike all that can be made again
_YOUNG_S = 60.0  # a file that is written beside its place may still get there


class PruneOptions(msgspec.Struct, frozen=True):
    """What to remove: all that fits every choice; with `to_bytes` only until the cache is as small as that."""

    older_than_s: float | None = None
    to_bytes: float | None = None
    model: str | None = None
    kind: str | None = None
    everything: bool = False


class NotRemoved(msgspec.Struct, frozen=True):
    """A thing that was chosen and is still there, and why: in use, or the disk refused."""

    thing: CacheEntry
    reason: str
    refused: bool = False


class PruneResult(msgspec.Struct, frozen=True):
    """What was removed, or would be, what stayed though it was chosen, and the bytes that the cache holds now."""

    removed: tuple[CacheEntry, ...]
    stayed: tuple[NotRemoved, ...]
    left_bytes: int

    @property
    def freed_bytes(self) -> int:
        """Of what was removed."""
        return sum(thing.bytes for thing in self.removed)


def prune(
    cache: Path, wanted: PruneOptions, dry_run: bool = False, now_s: float | None = None
) -> PruneResult:
    """Removes what is wanted, the least recently used first; what another process makes or uses stays.

    Raises UsageError where the folder is there and is no cache.
    """
    found = survey(cache)
    place = Path(found.cache)
    with translate_read_errors(cache):
        if place.exists() and not is_cache(place) and any(place.iterdir()):
            raise UsageError(f"{cache} holds nothing that edgecap keeps; nothing is removed there")
    left, removed, stayed = found.bytes, list[CacheEntry](), list[NotRemoved]()
    for thing in _chosen(found.things, wanted, time.time() if now_s is None else now_s):
        if wanted.to_bytes is not None and left <= wanted.to_bytes:
            break
        kept = _removed(place, thing, dry_run)
        if kept:
            stayed.append(kept)
        else:
            removed.append(thing)
            left -= thing.bytes
    locks.remove_stale(place)
    return PruneResult(tuple(removed), tuple(stayed), left)


def remove(cache: Path, things: Iterable[CacheEntry]) -> None:
    """Removes some things, but for those in use. A disk that refuses keeps them."""
    for thing in things:
        _removed(cache, thing, dry_run=False)


def _chosen(things: tuple[CacheEntry, ...], wanted: PruneOptions, now_s: float) -> list[CacheEntry]:
    """What may go, the least recently used first."""
    found = [thing for thing in things if thing.ours and _fits(thing, wanted, now_s)]
    return sorted(found, key=lambda thing: thing.last_used_s)


def _fits(thing: CacheEntry, wanted: PruneOptions, now_s: float) -> bool:
    if wanted.everything:
        return True
    if wanted.kind is None and thing.kind == PROTECTED_KIND:
        return False
    return (
        (wanted.kind is None or thing.kind == wanted.kind)
        and (wanted.model is None or _is_of(thing, wanted.model))
        and (wanted.older_than_s is None or now_s - thing.last_used_s > wanted.older_than_s)
    )


def _is_of(thing: CacheEntry, model: str) -> bool:
    """Whether a thing is of a model: its whole name, or what stands behind the organisation's."""
    names = (thing.model or "").lower()
    return bool(names) and model.lower() in (names, names.rpartition("/")[2])


def _removed(cache: Path, thing: CacheEntry, dry_run: bool) -> NotRemoved | None:
    """Removes a thing, or tells why it stays."""
    path = cache / thing.path
    scratch = SCRATCH.fullmatch(path.name)
    try:
        with locks.removal_lock(path.with_name(scratch["name"]) if scratch else path) as reason:
            stays = reason or _late(path, thing)
            if not stays and not dry_run:
                _remove(path)
    except OSError as error:
        return NotRemoved(thing, f"it cannot be removed: {error.strerror or error}", refused=True)
    return NotRemoved(thing, stays) if stays else None


def _late(path: Path, thing: CacheEntry) -> str:
    """What happened to a thing since it was looked at, or is happening without a lock; nothing if it may go."""
    if last_used(path) > thing.last_used_s:
        return "another process used it meanwhile"
    if thing.kind == LEFT_OVER and path.is_file() and time.time() - thing.last_used_s < _YOUNG_S:
        return "another process writes it"
    return ""


def _remove(path: Path) -> None:
    """A folder loses its name first, so that nobody finds a half of it. Raises OSError."""
    if not path.is_dir() or path.is_symlink():
        path.unlink()
    elif path.name.startswith("."):
        shutil.rmtree(path)
    else:
        shutil.rmtree(path.rename(path.with_name(f".{path.name}.{secrets.token_hex(4)}")))
