"""Command lines that repeat the runs of records."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from edgecap.record import Profile
from edgecap.report.rows import name_of_record
from edgecap.spec import Spec

_FILES = 8  # records that are named; more are given as a folder

# Options whose names are not those of the fields; the others are the field with dashes.
_OPTIONS = {
    "precisions": "--precision",
    "providers": "--provider",
    "bias_bits": "--bias",
    "limit_s": "--limit",
    "timeout_s": "--timeout",
    "batches": "--batch",
    "meter_offset_s": "--meter-offset",
    "optimize": "--plain",
    "arena": "--no-arena",
}


def command(spec: Spec) -> str:
    """Return `edgecap profile ...` quoted for a shell, without defaults."""
    return shlex.join(["edgecap", "profile", *arguments(spec)])


def arguments(spec: Spec) -> list[str]:
    """Return the options of a spec that differ from the defaults, in the order of `Spec`."""
    usual = msgspec.structs.asdict(Spec(quick=spec.quick)) | {"quick": False}
    return [
        word
        for name, value in msgspec.structs.asdict(spec).items()
        if value != usual[name]
        for word in _option(name, value)
    ]


def _option(name: str, value: Any) -> list[str]:
    option = _OPTIONS.get(name, "--" + name.replace("_", "-"))
    if isinstance(value, bool):
        return [option]
    text = _text(value)
    return [f"{option}={text}"] if text.startswith("-") else [option, text]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value)


def commands(records: Sequence[Profile]) -> list[str]:
    """Return the commands that measure the records again, each once, and build the page."""
    runs = list(dict.fromkeys(command(record.spec) for record in records))
    files = [f"profiles/{name_of_record(record)}.json" for record in records]
    named = shlex.join(files) if len(files) <= _FILES else "profiles/*.json"
    return [*runs, f"edgecap report {named}"]
