"""Recognise JSON Lines by their content, and read the fields of a line that somebody reads.

A line is an object. Fields that nobody reads may hold what JSON does not allow (NaN, Infinity,
numbers of any size, lone surrogates) and may be nested to any depth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from edgecap.storage.files import require_regular_file

SUFFIXES = (".jsonl", ".jsonlines", ".ndjson", ".json")  # in any case: their content must be JSON
_HEAD_BYTES = 1 << 16
_OPENING = (
    rb'(?:\{\s*["\'}]|(?:\[\s*)+["{])'  # how objects, and arrays of strings or objects, begin
)
_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?[\s\x1e]*" + _OPENING)
_LINE_BEGINS = re.compile(rb"^[ \t\x1e]*" + _OPENING, re.MULTILINE)
_LINE = re.compile(rb"^[ \t\r]*[^ \t\r\n]", re.MULTILINE)
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_NUMBER = r"-?(?:Infinity|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
_TOKEN = re.compile(rf"[ \t\r\n]*({_STRING}|[][{{}}:,]|{_NUMBER}|NaN|true|false|null)", re.DOTALL)


def is_named_json(name: str) -> bool:
    """Return True if the name of a file promises JSON."""
    return name.lower().endswith(SUFFIXES)


def begins_as_json(file: BinaryIO) -> bool:
    """Return True if a file begins as a JSON object or array; reads 64 KiB from its start."""
    file.seek(0)
    return _BEGINS.match(file.read(_HEAD_BYTES)) is not None


def is_mostly_json(raw: bytes) -> bool:
    """Return True if more than half of the lines that are not blank begin as JSON."""
    found = sum(1 for _ in _LINE_BEGINS.finditer(raw))
    return found > 0 and 2 * found > sum(1 for _ in _LINE.finditer(raw))


def read_lines(path: Path, what: str) -> bytes:
    """Return the bytes of a file. Raises OSError, and UsageError as `require_regular_file` does."""
    require_regular_file(path, what)
    return path.read_bytes()


def decode_line(line: str, wanted: Sequence[str]) -> Any:
    """Return the value of a line; only the `wanted` fields of an object are sure to be there.

    Raises ValueError with the reason if it is not JSON.
    """
    try:
        return msgspec.json.decode(line)
    except (ValueError, RecursionError):
        members = _members(line)
        return {key: _value(raw) for key, raw in members if key in wanted}


def _value(raw: str) -> Any:
    """Return the value of a field, or None for one that cannot be represented."""
    if raw.startswith('"'):
        return json.loads(raw)
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None


def _members(line: str) -> Iterator[tuple[str, str]]:
    """Yield the keys of an object and the text of their values; brackets are only counted."""
    _, at = _token(line, 0, "{")
    token, end = _token(line, at)
    while token != "}":
        key, at = _token(line, at, '"')
        _, at = _token(line, at, ":")
        end = _end_of_value(line, at)
        yield json.loads(key), line[at:end].strip(" \t\r\n")
        token, end = _token(line, end, ",}")
        at = end
    if line[end:].strip(" \t\r\n"):
        raise ValueError(f"trailing characters (character {end + 1})")


def _end_of_value(line: str, at: int) -> int:
    """Return the end of the value that begins at `at`."""
    expected: list[str] = []  # closing brackets
    while True:
        token, at = _token(line, at)
        if token in "{[":
            expected.append("}" if token == "{" else "]")
        elif token in "}]" and (not expected or token != expected.pop()):
            raise ValueError(f"unexpected {token} (character {at})")
        elif token in ",:" and not expected:
            raise ValueError(f"no value before {token} (character {at})")
        if not expected:
            return at


def _token(line: str, at: int, allowed: str = "") -> tuple[str, int]:
    """Return the token at a place and its end. Raises ValueError if it is not one of `allowed`."""
    match = _TOKEN.match(line, at)
    if match is None:
        raise ValueError(f"invalid from character {at + 1} on")
    if allowed and match[1][0] not in allowed:
        raise ValueError(f"unexpected {match[1][:20]} (character {match.start(1) + 1})")
    return match[1], match.end()
