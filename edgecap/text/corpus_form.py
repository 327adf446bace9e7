"""Decide by its content how a corpus is read: as JSON Lines, as plain text, or not at all.

A file is JSON Lines if it begins as a JSON object or array, if most of its lines do, or if its name
ends in .jsonl, .jsonlines, .ndjson or .json; each line must then be an object with a `text` field.
Other text is plain. JSON syntax is never taken for text, and a compressed or binary file neither.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

from edgecap.errors import UsageError
from edgecap.text.json_lines import begins_as_json, is_mostly_json, is_named_json

_HEAD_BYTES = 1 << 16
_UTF8 = "convert it with iconv -t UTF-8"
_UNPACK = "unpack it first"
_EXTRACT = "write its text to JSON Lines or a text file first"
_SIGNATURES = (  # how files begin, what they are, and what to do
    (rb"\xff\xfe\0\0|\0\0\xfe\xff", "UTF-32 text", _UTF8),
    (rb"\xff\xfe|\xfe\xff", "UTF-16 text", _UTF8),
    (rb"\x1f\x8b", "compressed by gzip", _UNPACK),
    (rb"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (rb"\xfd7zXZ\0", "compressed by xz", _UNPACK),
    (rb"BZh[1-9]1AY&SY", "compressed by bzip2", _UNPACK),
    (rb"\x04\x22\x4d\x18", "compressed by lz4", _UNPACK),
    (rb"7z\xbc\xaf\x27\x1c|Rar!\x1a", "an archive", _UNPACK),
    (rb"PK[\x03\x05\x07][\x04\x06\x08]", "a zip archive or an office document", _EXTRACT),
    (rb"\xd0\xcf\x11\xe0", "an office document", _EXTRACT),
    (rb"\{\\rtf", "an RTF document", _EXTRACT),
    (rb"%PDF-", "a PDF document", _EXTRACT),
    (rb"PAR1[\0-\x1f]", "a Parquet file", _EXTRACT),
    (rb"ARROW1\0", "an Arrow file", _EXTRACT),
    (rb"Obj\x01", "an Avro file", _EXTRACT),
    (rb"SQLite format 3\0", "an SQLite database", _EXTRACT),
    (rb".{257}ustar", "a tar archive", _UNPACK),
    (rb"[^\0]*\0", "binary data", _EXTRACT),
)
_KINDS = tuple(
    (re.compile(signature, re.DOTALL), kind, advice) for signature, kind, advice in _SIGNATURES
)


def check_is_text(file: BinaryIO, path: Path) -> None:
    """Raise UsageError with the kind of a file whose first 64 KiB are not UTF-8 text."""
    head = file.read(_HEAD_BYTES)
    for begins, kind, advice in _KINDS:
        if begins.match(head):
            raise UsageError(f"corpus {path} is {kind}; {advice}")


def is_json_lines(file: BinaryIO, path: Path) -> bool:
    """Return True if a file is to be read as JSON Lines; leaves it at its start."""
    found = is_named_json(path.name) or begins_as_json(file)
    file.seek(0)
    if not found:
        found = is_mostly_json(file.read())
        file.seek(0)
    return found


def advice(line: str, path: Path) -> str:
    """Return what to do about a line that is no JSON object with a text, for a message."""
    begin = line.lstrip("\ufeff \t")[:1]
    if begin == "[":
        return f"; jq -c '.[]' {path} makes JSON Lines of an array"
    if begin == "{":
        return "; JSON Lines hold one object with a 'text' on each line (jq -c . makes them)"
    named = is_named_json(path.name)
    return "; if it is plain text, name it .txt" if named else "; most of its lines are JSON"
