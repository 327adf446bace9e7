"""Lock cache entries between processes: one builds, many use, none removes meanwhile.

    locks/<kind>-<name>.lock          held while an entry is looked for, built or removed
    locks/<kind>-<name>.<hex>.used    one for each use, held as long as it lasts; taken, and looked
                                      at by others, under the lock above

An entry is `cache/<kind>/<name>`. The operating system releases a lock when its process ends. The
file of a lock is empty and may stay; only its holder removes it. On a disk without locks, work goes
on without them, and nothing is removed. Owns filelock.
"""

from __future__ import annotations

import contextlib
import glob
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

FOLDER = "locks"
_POLL_S = 0.25


def entry_path(cache: Path, path: Path) -> Path | None:
    """Return the cache entry that a path is, or is part of; None for a path elsewhere."""
    try:
        parts = path.absolute().relative_to(cache.absolute()).parts
    except ValueError:
        return None
    return cache / parts[0] / parts[1] if len(parts) > 1 else None


@contextlib.contextmanager
def build_lock(
    entry: Path, waiting: Callable[[], None], unlocked: Callable[[str], None]
) -> Iterator[None]:
    """Hold the lock of an entry.

    Calls `waiting` once if another process holds it, and `unlocked` with a reason if there are no
    locks.
    """
    try:
        lock = acquire(_lock_of(entry))
        if lock is None:
            waiting()
            lock = acquire(_lock_of(entry), wait=True)
    except OSError as error:
        unlocked(error.strerror or str(error))
        lock = None
    try:
        yield
    finally:
        if lock:
            lock.release()


@contextlib.contextmanager
def usage_mark(entry: Path) -> Iterator[None]:
    """Mark an entry as in use. Enter it while the entry's lock is held, so that pruning sees it."""
    mark = _lock_of(entry).with_suffix(f".{secrets.token_hex(8)}.used")
    _has_users(_lock_of(entry))  # clears marks of killed processes
    try:
        lock = acquire(mark)
    except OSError:
        lock = None
    try:
        yield
    finally:
        if lock:
            lock.release()
            _unlink(mark)
        # A log that is no longer needed, or a graph that could not be built.
        if not entry.exists() and mark.parent.exists():
            _clear(_lock_of(entry))


@contextlib.contextmanager
def removal_lock(entry: Path) -> Iterator[str]:
    """Hold the lock of an entry to remove it; yield "", or the reason why it must stay.

    Raises OSError if there are no locks.
    """
    lock = acquire(_lock_of(entry))
    if lock is None:
        yield "another process makes it"
        return
    try:
        yield "another process uses it" if _has_users(_lock_of(entry)) else ""
    finally:
        lock.release()


def remove_stale(cache: Path) -> None:
    """Remove the files of locks that no process holds."""
    folder = cache / FOLDER
    marked = {path.with_suffix("").with_suffix(".lock") for path in folder.glob("*.used")}
    for path in {*folder.glob("*.lock"), *marked}:
        _clear(path)


# --- files of locks ---------------------------------------------------------------------------


def _lock_of(entry: Path) -> Path:
    return entry.parent.parent / FOLDER / f"{entry.parent.name}-{entry.name}.lock"


def _has_users(path: Path) -> bool:
    """Return True if an entry is in use; clear marks of killed processes.

    The caller holds the lock of the entry.
    """
    held = [_is_held(mark) for mark in path.parent.glob(f"{glob.escape(path.stem)}.*.used")]
    return any(held)


def _is_held(mark: Path) -> bool:
    try:
        lock = acquire(mark)
    except OSError:
        return True
    if lock:
        _unlink(mark)
        lock.release()
    return lock is None


def _clear(path: Path) -> None:
    """Remove the file of a lock that no process holds.

    A filelock that had opened the file before notices that, and opens it again.
    """
    try:
        lock = acquire(path)
    except OSError:
        return
    if lock:
        if not _has_users(path):
            _unlink(path)
        lock.release()


def acquire(path: Path, wait: bool = False) -> BaseFileLock | None:
    """Take a lock; return None if another process has it. Raises OSError if there are no locks."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=-1 if wait else 0, poll_interval=_POLL_S)
    except Timeout:
        return None
    except NotImplementedError as error:
        raise OSError(str(error)) from error
    return lock


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
