"""Locks between processes on what the cache keeps: one makes a thing, many use it, nobody removes it meanwhile.

    locks/<kind>-<name>.lock          held while a thing is looked for, made or removed
    locks/<kind>-<name>.<hex>.used    one for each use, held as long as that lasts; begun, and looked at by others,
                                      under the lock above

The operating system ends a lock with the process that holds it, however that ends; its file is empty, says nothing,
and may stay. It is removed only by who holds it. A thing is `cache/<kind>/<name>`. Where there are no locks (a disk that is read-only or knows none), work goes
on without, and nothing is removed. Owns filelock.
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
    """The thing in the cache that a path is, or is part of; None for a path elsewhere."""
    try:
        parts = path.absolute().relative_to(cache.absolute()).parts
    except ValueError:
        return None
    return cache / parts[0] / parts[1] if len(parts) > 1 else None


@contextlib.contextmanager
def build_lock(
    thing: Path, waiting: Callable[[], None], unlocked: Callable[[str], None]
) -> Iterator[None]:
    """Holds the lock of a thing. Says once that it waits, or, with a reason, that it goes on without a lock."""
    try:
        lock = acquire(_lock_of(thing))
        if lock is None:
            waiting()
            lock = acquire(_lock_of(thing), wait=True)
    except OSError as error:
        unlocked(error.strerror or str(error))
        lock = None
    try:
        yield
    finally:
        if lock:
            lock.release()


@contextlib.contextmanager
def usage_mark(thing: Path) -> Iterator[None]:
    """Marks a thing as in use; to be entered while its lock is held, so that who removes things sees it."""
    mark = _lock_of(thing).with_suffix(f".{secrets.token_hex(8)}.used")
    _has_users(_lock_of(thing))  # so that marks of killed processes do not gather
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
        if (
            not thing.exists() and mark.parent.exists()
        ):  # a journal that is done with, a graph that could not be made
            _clear(_lock_of(thing))


@contextlib.contextmanager
def removal_lock(thing: Path) -> Iterator[str]:
    """Holds the lock of a thing that nobody makes or uses, and gives ""; else gives the reason why it must stay.

    Raises OSError where there are no locks.
    """
    lock = acquire(_lock_of(thing))
    if lock is None:
        yield "another process makes it"
        return
    try:
        yield "another process uses it" if _has_users(_lock_of(thing)) else ""
    finally:
        lock.release()


def remove_stale(cache: Path) -> None:
    """Removes the files of locks that nobody holds."""
    folder = cache / FOLDER
    marked = {path.with_suffix("").with_suffix(".lock") for path in folder.glob("*.used")}
    for path in {*folder.glob("*.lock"), *marked}:
        _clear(path)


# --- files of locks ---------------------------------------------------------------------------


def _lock_of(thing: Path) -> Path:
    return thing.parent.parent / FOLDER / f"{thing.parent.name}-{thing.name}.lock"


def _has_users(path: Path) -> bool:
    """Whether a mark beside a lock, which the caller holds, is held; those of killed processes are cleared away."""
    found = [_is_held(mark) for mark in path.parent.glob(f"{glob.escape(path.stem)}.*.used")]
    return any(found)


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
    """Removes a lock's file, if nobody holds it; filelock sees it where it had opened the file before, and opens anew."""
    try:
        lock = acquire(path)
    except OSError:
        return
    if lock:
        if not _has_users(path):
            _unlink(path)
        lock.release()


def acquire(path: Path, wait: bool = False) -> BaseFileLock | None:
    """A lock that is held now, or None where another process has it. Raises OSError where there are no locks."""
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
