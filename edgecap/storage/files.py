"""Paths, atomic writes and hashes of files.

A file or folder appears whole or not at all: it is written beside its place, flushed and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgecap.errors import DiskFull, UsageError
from edgecap.record import File

PROBE_BYTES = 2_000_000  # more than the record of a usual run takes
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_NOT_ON_A_DISK = re.compile(r"/proc/|/sys/|/dev/(std(in|out|err)\Z|fd/)")


class Paths(msgspec.Struct, frozen=True):
    """Folders of a run: `cache` for exports and variants, `profiles` for records."""

    cache: Path
    profiles: Path


def resolve_paths(cache: Path | None = None, profiles: Path | None = None) -> Paths:
    """Return the folders; by default EDGECAP_CACHE or the user's cache, and ./profiles.

    Raises UsageError if no cache is given and the user has no home folder.
    """
    if cache is None:
        cache = Path(os.environ.get("EDGECAP_CACHE") or _user_cache())
    return Paths(cache=cache, profiles=profiles or Path("profiles"))


def _user_cache() -> str:
    import platformdirs

    with contextlib.suppress(RuntimeError):
        cache: str = platformdirs.user_cache_dir("edgecap", appauthor=False)
        if not cache.startswith("~"):  # as older versions leave it without a home folder
            return cache
    raise UsageError(
        "this user has no home folder (no HOME and no passwd entry), so there is no place for the "
        "cache: set EDGECAP_CACHE to a folder that can be written, or give --cache"
    )


def home_folder() -> Path | None:
    """Return the user's home folder; None if the user has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return None


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Translate errors of writing a disk. Raises DiskFull or UsageError."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFull(f"no room left on the disk of {where}") from error
        raise UsageError(f"cannot write {where}: {error.strerror or error}") from error


def write_atomically(path: Path, data: bytes, private: bool = False) -> None:
    """Write a file as a whole, or leave it as it was.

    Other users can never read a `private` file. Raises DiskFull or UsageError.
    """
    import tempfile

    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if not private:  # mkstemp has made it 0600
                os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def require_regular_file(path: Path, what: str = "") -> None:
    """Raise UsageError if a path is a folder, pipe, socket or device; a missing one passes.

    Opening a pipe may wait for ever, a device may never end, and neither can be read twice. `what`
    names the input, for the message.
    """
    try:
        kind = _kind_of(path)
    except (OSError, ValueError):
        return  # the reader reports why it cannot be opened
    if kind:
        named = f"{what} {path}".lstrip()
        raise UsageError(f"cannot read {named}: it is {kind}; give a file on a disk")


def _kind_of(path: Path) -> str:
    """Return what a path is if it is no regular file on a disk, else an empty string."""
    kind = _KINDS.get(stat.S_IFMT(path.stat().st_mode), "")
    return kind or ("no file on a disk" if _NOT_ON_A_DISK.match(os.path.abspath(path)) else "")


def json_text(path: Path) -> str:
    """Read the text of a JSON file. Raise UsageError for a pipe, a pointer of Git LFS, or a mark.

    A byte order mark is none of JSON, and transformers does not read it.
    """
    require_regular_file(path)
    text = path.read_text("utf-8")
    if text.startswith("version https://git-lfs"):
        raise UsageError(f"{path} is a pointer of Git LFS; run `git lfs pull`")
    if text.startswith("\ufeff"):
        raise UsageError(f"{path} begins with a byte order mark; save it as UTF-8 without one")
    return text


def touch(path: Path) -> None:
    """Set the time of last use to now; ignore a disk that cannot be written."""
    with contextlib.suppress(OSError):
        os.utime(path)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a scratch folder that becomes `path` if the block succeeds, and is removed if not.

    If another process made `path` meanwhile, that one stays: both made the same thing.
    """
    import shutil
    import tempfile

    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield scratch
        with disk_errors(path):
            os.chmod(scratch, 0o777 & ~_umask())
            with contextlib.suppress(FileExistsError):
                _rename(scratch, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _clear(path: Path) -> None:
    """Remove scratch folders of runs that were killed more than a day ago."""
    import shutil
    import time

    for left in path.parent.glob(f".{path.name}.*"):
        if time.time() - left.stat().st_mtime > 86_400:
            shutil.rmtree(left, ignore_errors=True)


def _rename(scratch: Path, path: Path) -> None:
    try:
        scratch.rename(path)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def free_bytes(where: Path) -> int:
    """Return the free bytes of the disk of a path, which may not exist yet."""
    import shutil

    return shutil.disk_usage(nearest_existing(where)).free


def nearest_existing(path: Path) -> Path:
    """Return a path, or the nearest of its parents that this user can see."""
    return next(p for p in (path, *path.absolute().parents) if os.path.exists(p))


def check_writable(folder: Path, advice: str = "") -> None:
    """Raise UsageError or DiskFull if a folder cannot take a record; the message ends in advice."""
    try:
        _write_probe(folder)
    except UsageError as error:
        raise type(error)(f"{error}; {advice}" if advice else str(error)) from error


def _write_probe(folder: Path) -> None:
    import tempfile

    if os.path.exists(folder) and not folder.is_dir():
        raise UsageError(f"cannot write {folder}: it is not a folder")
    with (
        disk_errors(folder),
        tempfile.NamedTemporaryFile(dir=nearest_existing(folder), prefix=".edgecap-") as probe,
    ):
        probe.write(b"\0" * PROBE_BYTES)
        probe.flush()


def check_cache(cache: Path) -> None:
    """Raise UsageError or DiskFull if a cache is not there and cannot be made.

    One that is there may be complete, so that nothing has to be written.
    """
    if not os.path.exists(cache):
        check_writable(cache, "set EDGECAP_CACHE to a folder that can be written, or give --cache")


def utc_now(timespec: str = "seconds") -> str:
    """Return the time as records hold it: ISO 8601, UTC, with a Z."""
    import datetime

    return datetime.datetime.now(datetime.UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


# --- hashes -----------------------------------------------------------------------------------


def sha256_of(*parts: bytes) -> str:
    """Return the SHA-256 of byte strings, each with its length, so that no two splits agree."""
    import hashlib

    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, as `sha256sum` prints it. Raises UsageError for a pipe."""
    import hashlib

    require_regular_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_note(path: Path) -> str:
    """Return where a link that leads nowhere points to, for a message; else an empty string."""
    if not path.is_symlink() or path.exists():
        return ""
    return f" (a link to {os.readlink(path)}, which is not there: download it again)"


def list_files(folder: Path, names: list[str]) -> tuple[File, ...]:
    """Return name, size and hash of files in a folder."""
    return tuple(
        File(path=name, bytes=(folder / name).stat().st_size, sha256=sha256_of_file(folder / name))
        for name in names
    )
