"""Store files by the hash of their content: models and texts that a fleet sends to a device.

    <root>/blobs/<sha256>         a whole file, checked
    <root>/blobs/<sha256>.part    the received part of a file; the next piece is appended

A name is 64 hexadecimal digits, so that no name leads elsewhere. A file without its hash is
deleted, and links are not followed.
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
    """The files of one folder; missing ones are copied from the `shared` folder, if it has them."""

    def __init__(self, root: Path, shared: Path | None = None) -> None:
        self._root, self._shared = root, shared

    def path(self, sha256: str) -> Path:
        """Return the path of a file, present or not. Raises UsageError if that is no hash."""
        if not _SHA256.fullmatch(sha256):
            raise UsageError(f"{sha256[:80]!r} is no SHA-256")
        return self._root / "blobs" / sha256

    def missing(self, files: Iterable[File]) -> tuple[File, ...]:
        """Copy files from the shared folder, and return those that are missing in both."""
        wanted = {file.sha256: file for file in files}
        return tuple(
            file
            for file in wanted.values()
            if not self._is_here(file) and not self._copy_shared(file)
        )

    def received_bytes(self, file: File) -> int:
        """Return the received bytes of a file; a part that is longer than the file is deleted."""
        part = self._part(file.sha256)
        size = _size(part)
        if size > file.bytes:
            part.unlink()
        return size if 0 <= size <= file.bytes else 0

    def append(self, file: File, offset: int, data: bytes) -> bool:
        """Append the next piece; return True when the file is whole.

        Raises UsageError if the piece does not fit, or the file has another hash.
        """
        part, received = self._part(file.sha256), self.received_bytes(file)
        if offset != received or offset + len(data) > file.bytes:
            raise UsageError(
                f"a piece of {file.sha256[:12]} does not fit: "
                f"it begins at {offset}, {received} bytes are here"
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
        """Copy a file in if it is missing; safe for a shared folder that others write, too."""
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
        """Put files into a folder, by hard links if the disk has them. The caller checks paths.

        Raises UsageError if a stored file is damaged; it is deleted, so that it is sent again.
        """
        for file in files:
            stored, target = self.path(file.sha256), folder / file.path
            if not self._is_here(file) or sha256_of_file(stored) != file.sha256:
                stored.unlink(missing_ok=True)
                raise UsageError(f"what was kept as {file.sha256[:12]} is damaged")
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(stored, target)
                except OSError:
                    shutil.copyfile(stored, target)

    def _part(self, sha256: str) -> Path:
        return self.path(sha256).with_suffix(".part")

    def _is_here(self, file: File) -> bool:
        return _size(self.path(file.sha256)) == file.bytes

    def _copy_shared(self, file: File) -> bool:
        if self._shared is None:
            return False
        with contextlib.suppress(OSError, UsageError):
            source = ContentStore(self._shared).path(file.sha256)
            if _size(source) == file.bytes:
                self.add(source, file)
                return True
        return False

    def _accept(self, part: Path, file: File) -> None:
        if _size(part) != file.bytes or sha256_of_file(part) != file.sha256:
            part.unlink()
            raise UsageError(f"what came for {file.sha256[:12]} has another hash")
        with disk_errors(part):
            os.replace(part, self.path(file.sha256))


def _size(path: Path) -> int:
    """Return the bytes of a plain file, -1 for anything else."""
    try:
        status = path.lstat()
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1
