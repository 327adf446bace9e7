"""Files: where they live, how they are written so that nothing is ever half there, how records are read.

A file appears whole or not at all (written beside, flushed, renamed); a folder likewise. Records of
older schemas are upgraded step by step when read; of newer ones, refused in plain words.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from edgecap.errors import DiskFull, EdgecapError, RecordError, UsageError
from edgecap.record import SCHEMA, Absent, Energy, File, Latency, Measurement, Profile

LONGEST_S = 1e7  # of a sample: four months
RECORD_ROOM = 2_000_000  # bytes that the record of a usual run stays below
_NUMBERS = re.compile(rb"\[\n\s*([-+.\deE]+(?:,\n\s*[-+.\deE]+)*)\n\s*\]")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


def _upgrade_to_2(raw: dict[str, Any]) -> dict[str, Any]:
    """What schema 2 added has defaults that say that it was not measured, or was as it always had been."""
    return {**raw, "schema": 2}


def _upgrade_to_3(raw: dict[str, Any]) -> dict[str, Any]:
    """Layers may be without attention now, so that attention says what it is; the rest has defaults."""
    raw = {**raw, "schema": 3}
    architecture = raw.get("source", {}).get("architecture", {})
    for layer in architecture.get("layers", ()):
        layer["attention"] = {**layer["attention"], "kind": "attention"}
    return raw


def _upgrade_to_4(raw: dict[str, Any]) -> dict[str, Any]:
    """What went on meanwhile has a place of its own; decoding says what it is, since it may be absent."""
    for cell in raw.get("cells", ()):
        latency = cell["outcome"].get("latency", {})
        if latency.get("kind") == "latency":
            shares = {name: latency.pop(name, None) for name in ("steal_share", "other_load")}
            latency |= {"conditions": shares, "decode": {**latency["decode"], "kind": "decode"}}
    return {**raw, "schema": 4}


def _upgrade_to_5(raw: dict[str, Any]) -> dict[str, Any]:
    """Every text was scored on the machine of its record."""
    return {**raw, "schema": 5}


# schema number -> the step that turns a raw record of that number into the next one
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _upgrade_to_2,
    2: _upgrade_to_3,
    3: _upgrade_to_4,
    4: _upgrade_to_5,
}


class Paths(msgspec.Struct, frozen=True):
    """Where a run keeps things: `cache` for exports and variants, `profiles` for records."""

    cache: Path
    profiles: Path


def home(cache: Path | None = None, profiles: Path | None = None) -> Paths:
    """`EDGECAP_CACHE` or the user's cache folder, and `./profiles`, where not given."""
    if cache is None:
        import platformdirs

        cache = Path(
            os.environ.get("EDGECAP_CACHE")
            or platformdirs.user_cache_dir("edgecap", appauthor=False)
        )
    return Paths(cache=cache, profiles=profiles or Path("profiles"))


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Translates what a disk can say into errors for people."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFull(f"no room left on the disk of {where}") from error
        raise UsageError(f"cannot write {where}: {error.strerror or error}") from error


def write_atomically(path: Path, data: bytes, private: bool = False) -> None:
    """The file holds all of `data` or what it held before; a private one is nobody else's to read, at no moment.

    Raises DiskFull or UsageError.
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


def touch(path: Path) -> None:
    """Notes that what is kept was used now; a disk that cannot be written keeps the older note."""
    with contextlib.suppress(OSError):
        os.utime(path)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A scratch folder that becomes `path` when the block ends well, and vanishes when it does not.

    Another process that made `path` meanwhile wins: both made the same thing.
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
    """Removes what runs that were killed a day ago or earlier left half made."""
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
    """Room on the disk of a place that may not be there yet."""
    import shutil

    nearest = next(p for p in (where, *where.absolute().parents) if p.exists())
    return shutil.disk_usage(nearest).free


def check_writable(folder: Path) -> None:
    """Raises UsageError or DiskFull now, rather than after an hour of measuring."""
    import tempfile

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"cannot write {folder}: it is not a folder")
    with disk_errors(folder):
        nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=".edgecap-") as probe:
            probe.write(b"\0" * RECORD_ROOM)
            probe.flush()


def utc_now(timespec: str = "seconds") -> str:
    """The time as records tell it: ISO 8601, UTC, with a Z."""
    import datetime

    return datetime.datetime.now(datetime.UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


# --- hashes -----------------------------------------------------------------------------------


def sha256_of(*parts: bytes) -> str:
    """The hash of byte strings, each with its length, so that no two splits agree."""
    import hashlib

    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """The plain SHA-256 of a file, as `sha256sum` prints it."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path, names: list[str]) -> tuple[File, ...]:
    """Name, size and hash of files in a folder."""
    return tuple(
        File(path=name, bytes=(folder / name).stat().st_size, sha256=sha256_of_file(folder / name))
        for name in names
    )


# --- records ----------------------------------------------------------------------------------


def record_path(profiles: Path, record: Profile) -> Path:
    """`<model>--<machine>--<utc>.json`, names reduced to what every file system takes."""
    stamp = re.sub(r"[^0-9.TZ]", "", record.created_utc)
    return profiles / f"{slug(record.source.name)}--{slug(record.machine.name)}--{stamp}.json"


def slug(name: str) -> str:
    """A name reduced to what every file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "unnamed"


def save(record: Profile, path: Path) -> None:
    """Writes a record atomically, indented for people who look and diff; a list of numbers is one line."""
    text = msgspec.json.format(msgspec.json.encode(record), indent=1)
    write_atomically(
        path,
        _NUMBERS.sub(
            lambda found: b"[%s]" % b", ".join(part.strip() for part in found[1].split(b",")), text
        )
        + b"\n",
    )


def load(path: str | os.PathLike[str]) -> Profile:
    """Reads a record, upgrading older schemas.

    Raises RecordError where the file is missing, damaged or newer than this program.
    """
    path = Path(path)
    try:
        raw = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"{path} is not a whole JSON file: {error}") from error
    return read_record(raw, str(path))


def read_record(raw: Any, where: str) -> Profile:
    """A record from parsed JSON, any known schema."""
    number = raw.get("schema") if isinstance(raw, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise RecordError(f"{where} is not an edgecap record: it has no schema number")
    if number > SCHEMA:
        raise RecordError(
            f"{where} has schema {number}; this edgecap reads up to {SCHEMA}: upgrade edgecap"
        )
    try:
        for step in range(number, SCHEMA):
            raw = UPGRADES[step](raw)
        record = msgspec.convert(raw, Profile)
    except (msgspec.ValidationError, EdgecapError, AttributeError, KeyError, TypeError) as error:
        raise RecordError(f"{where} is not a valid record: {error}") from error
    return _checked(record, where)


def _checked(record: Profile, where: str) -> Profile:
    """The record, if its samples can be reckoned with. Raises RecordError."""
    for cell in record.cells:
        problem = _problem(cell.outcome) if isinstance(cell.outcome, Measurement) else None
        if problem:
            raise RecordError(f"{where} is damaged: {cell.precision} on {cell.provider}: {problem}")
    return record


def _problem(found: Measurement) -> str | None:
    """What is wrong with samples or windows, in words."""
    latency, energy = found.latency, found.energy
    timed = (
        {"prefill": latency.prefill, "decode": latency.decode}
        if isinstance(latency, Latency)
        else {}
    )
    for name, part in timed.items():
        if isinstance(part, Absent):
            continue
        if not part.samples_s or len(part.samples_s) != len(part.rounds):
            return f"{name} has {len(part.samples_s)} samples of {len(part.rounds)} rounds"
        if not (min(part.samples_s) > 0 and max(part.samples_s) < LONGEST_S):
            return f"{name} has seconds that no clock can have measured"
    windows = (*energy.prefill, *energy.decode, *energy.nll) if isinstance(energy, Energy) else ()
    if isinstance(energy, Energy) and not energy.prefill:
        return "energy has no window of prefill"
    return (
        "energy has a window without seconds or tokens"
        if any(w.seconds <= 0 or w.tokens <= 0 for w in windows)
        else None
    )


def schema() -> dict[str, Any]:
    """The JSON Schema of a record, from the types."""
    return msgspec.json.schema(Profile)
