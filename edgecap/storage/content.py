"""Files by the hash of what is in them: how models and texts reach a device, whatever carries them.

    <root>/blobs/<sha256>         a whole file, checked
    <root>/blobs/<sha256>.part    what has come of one so far; the next piece goes on behind it

A name is 64 hexadecimal digits or nothing at all, so that none can lead elsewhere. What does not have its hash is
thrown away, and links that lie there are not followed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from edgecap.errors import UsageError
from edgecap.record import File
from edgecap.storage.files import disk_errors, sha256_of_file

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FLAGS = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
)


class ContentStore:
    """The files of one folder; `shared` is another one, of everybody, that is looked into first."""

    def __init__(self, root: Path, shared: Path | None = None) -> None:
        self._root, self._shared = root, shared

    def path(self, sha256: str) -> Path:
        """Where the file is or would be. Raises UsageError where that is no hash."""
        if not _SHA256.fullmatch(sha256):
            raise UsageError(f"{sha256[:80]!r} is no SHA-256")
        return self._root / "blobs" / sha256

    def missing(self, files: Iterable[File]) -> tuple[File, ...]:
        """Those of the files that are neither here nor in the shared folder, from which they are fetched now."""
        wanted = {file.sha256: file for file in files}
        return tuple(
            file for file in wanted.values() if not self._is_here(file) and not self._fetched(file)
        )

    def received_bytes(self, file: File) -> int:
        """Bytes that are here of a file that is on its way; more than it has are none of it."""
        part = self._part(file.sha256)
        size = _size(part)
        if size > file.bytes:
            part.unlink()
        return size if 0 <= size <= file.bytes else 0

    def append(self, file: File, offset: int, data: bytes) -> bool:
        """Takes the next piece; true when the file is whole. Raises UsageError where it is not what it was called."""
        part, had = self._part(file.sha256), self.received_bytes(file)
        if offset != had or offset + len(data) > file.bytes:
            raise UsageError(
                f"a piece of {file.sha256[:12]} does not fit: it begins at {offset}, {had} bytes are here"
            )
        with disk_errors(part):
            part.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(part, _FLAGS, 0o644), "wb") as stream:
                stream.write(data)
        if offset + len(data) < file.bytes:
            return False
        self._accept(part, file)
        return True

    def add(self, source: Path, file: File) -> None:
        """Copies a file in, where it is not there yet; for a shared folder, which others write too."""
        target = self.path(file.sha256)
        if self._is_here(file):
            return
        part = target.with_name(f"{file.sha256}.{secrets.token_hex(8)}.part")
        try:
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, part)
            self._accept(part, file)
        finally:
            part.unlink(missing_ok=True)

    def link_into(self, files: Iterable[File], folder: Path) -> None:
        """Makes a folder of files, by links where the disk has them; paths are the caller's to check.

        Raises UsageError where what is kept is damaged; it is thrown away then, so that it is asked for anew.
        """
        for file in files:
            kept, target = self.path(file.sha256), folder / file.path
            if not self._is_here(file) or sha256_of_file(kept) != file.sha256:
                kept.unlink(missing_ok=True)
                raise UsageError(f"what was kept as {file.sha256[:12]} is damaged")
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(kept, target)
                except OSError:
                    shutil.copyfile(kept, target)

    def _part(self, sha256: str) -> Path:
        return self.path(sha256).with_suffix(".part")

    def _is_here(self, file: File) -> bool:
        return _size(self.path(file.sha256)) == file.bytes

    def _fetched(self, file: File) -> bool:
        if self._shared is None:
            return False
        with contextlib.suppress(OSError, UsageError):
            there = ContentStore(self._shared).path(file.sha256)
            if _size(there) == file.bytes:
                self.add(there, file)
                return True
        return False

    def _accept(self, part: Path, file: File) -> None:
        if _size(part) != file.bytes or sha256_of_file(part) != file.sha256:
            part.unlink()
            raise UsageError(f"what came for {file.sha256[:12]} has another hash")
        with disk_errors(part):
            os.replace(part, self.path(file.sha256))


def _size(path: Path) -> int:
    """Bytes of a file; -1 where there is none, or a link or a folder instead."""
    try:
        found = path.lstat()
    except OSError:
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1
