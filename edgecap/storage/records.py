"""Read, write, name and upgrade record files.

A record of an older schema is upgraded step by step; one of a newer schema is refused.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from edgecap.errors import EdgecapError, RecordError, UsageError
from edgecap.names import safe_filename
from edgecap.record import SCHEMA, Absent, Energy, Latency, Measurement, Profile
from edgecap.spec import RENAMED
from edgecap.storage.files import require_regular_file, write_atomically

MAX_SAMPLE_S = 1e7  # four months
_NUMBERS = re.compile(rb"\[\n\s*([-+.\deE]+(?:,\n\s*[-+.\deE]+)*)\n\s*\]")


def _upgrade_to_2(raw: dict[str, Any]) -> dict[str, Any]:
    """Keep the fields: those that schema 2 added have defaults."""
    return {**raw, "schema": 2}


def _upgrade_to_3(raw: dict[str, Any]) -> dict[str, Any]:
    """Tag attention, since layers may have none; other new fields have defaults."""
    raw = {**raw, "schema": 3}
    architecture = raw.get("source", {}).get("architecture", {})
    for layer in architecture.get("layers", ()):
        layer["attention"] = {**layer["attention"], "kind": "attention"}
    return raw


def _upgrade_to_4(raw: dict[str, Any]) -> dict[str, Any]:
    """Move noise into `conditions`, and tag decoding, which may be absent."""
    for cell in raw.get("cells", ()):
        latency = cell["outcome"].get("latency", {})
        if latency.get("kind") == "latency":
            shares = {name: latency.pop(name, None) for name in ("steal_share", "other_load")}
            latency |= {"conditions": shares, "decode": {**latency["decode"], "kind": "decode"}}
    return {**raw, "schema": 4}


def _upgrade_to_5(raw: dict[str, Any]) -> dict[str, Any]:
    """Keep the fields: each text was scored on the machine of its record."""
    return {**raw, "schema": 5}


def _upgrade_to_6(raw: dict[str, Any]) -> dict[str, Any]:
    """Keep the fields: those that schema 6 added have defaults."""
    return {**raw, "schema": 6}


def _upgrade_to_7(raw: dict[str, Any]) -> dict[str, Any]:
    """Rename precisions whose names have new recipes since; other new fields have defaults.

    A run of the default precisions gets the names of its cells, since the default has changed, too.
    """
    cells, spec = raw.get("cells", ()), raw["spec"]
    asked = spec.get("precisions") or [cell["precision"] for cell in cells]
    spec = {**spec, "precisions": list(dict.fromkeys(RENAMED.get(name, name) for name in asked))}
    for part in (*cells, *(cell["graph"] for cell in cells)):
        if "precision" in part:
            part["precision"] = RENAMED.get(part["precision"], part["precision"])
    return {**raw, "spec": spec, "schema": 7}


def _upgrade_to_8(raw: dict[str, Any]) -> dict[str, Any]:
    """Name the old formula: scores that it lacks are computed when they are read."""
    for cell in raw.get("cells", ()):
        if "formula" in cell["score"]:
            cell["score"]["formula"] = "edgecap-1"
    return {**raw, "schema": 8}


# schema number -> the step that turns a raw record of that number into the next one
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _upgrade_to_2,
    2: _upgrade_to_3,
    3: _upgrade_to_4,
    4: _upgrade_to_5,
    5: _upgrade_to_6,
    6: _upgrade_to_7,
    7: _upgrade_to_8,
}

# msgspec describes a type at its first use, and two threads that do so at once crash the process.
# A fleet reads records in one thread for each device, so the type is described here, at import.
_DECODER = msgspec.json.Decoder(Profile)
_NEWEST = re.compile(rb'\s*\{\s*"schema"\s*:\s*%d\s*,' % SCHEMA)


def record_path(profiles: Path, record: Profile) -> Path:
    """Return `<model>--<machine>--<utc>.json`, with names that every file system takes."""
    stamp = re.sub(r"[^0-9.TZ]", "", record.created_utc)
    return (
        profiles
        / f"{safe_filename(record.source.name)}--{safe_filename(record.machine.name)}--{stamp}.json"
    )


def save(record: Profile, path: Path) -> None:
    """Write a record atomically: indented for diffs, each list of numbers on one line."""
    text = msgspec.json.format(msgspec.json.encode(record), indent=1)
    write_atomically(
        path,
        _NUMBERS.sub(
            lambda m: b"[%s]" % b", ".join(number.strip() for number in m[1].split(b",")), text
        )
        + b"\n",
    )


def load(path: str | os.PathLike[str]) -> Profile:
    """Read a record and upgrade older schemas.

    Raises RecordError if the file is missing, damaged, newer than this program, or no regular file.
    """
    path = Path(path)
    try:
        require_regular_file(path, "the record")
        text = path.read_bytes()
    except UsageError as error:
        raise RecordError(str(error)) from None
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    with uncollected():
        return _decoded(text, str(path)) or read_record(_parsed(text, path), str(path))


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the collector of cyclic garbage, which visits all that was read again and again.

    Records hold no cycles. What they no longer need is freed as ever.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _decoded(text: bytes, where: str) -> Profile | None:
    """Return a record of this schema in one step; None if it needs an upgrade or has a fault."""
    if not _NEWEST.match(text):
        return None
    try:
        record = _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, EdgecapError):
        return None
    return _checked(record, where)


def _parsed(text: bytes, path: Path) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"{path} is not a whole JSON file: {error}") from error


def read_record(raw: Any, where: str) -> Profile:
    """Return a record from parsed JSON of any known schema. Raises RecordError."""
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
    """Return the record. Raises RecordError if its samples are damaged."""
    for cell in record.cells:
        problem = _problem(cell.outcome) if isinstance(cell.outcome, Measurement) else None
        if problem:
            raise RecordError(f"{where} is damaged: {cell.precision} on {cell.provider}: {problem}")
    return record


def _problem(measured: Measurement) -> str | None:
    """Return a problem of samples or windows, or None."""
    latency, energy = measured.latency, measured.energy
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
        if not (min(part.samples_s) > 0 and max(part.samples_s) < MAX_SAMPLE_S):
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
    """Return the JSON Schema of a record, from the types."""
    return msgspec.json.schema(Profile)
