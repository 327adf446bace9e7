"""Reads one text in many languages: JSON Lines, a row a language or a row a piece of its text.

    {"language": "deu", "name": "German", "text": "...", "articles": ["...", "..."]}

`language` is a code (ISO 639, with or without a script or country behind `-` or `_`). `articles` are the pieces of the
text that stand beside each other in all languages; without them every row is a piece, in the order of the file. Where
a language has as many pieces as English, they are taken to be the same text piece by piece; where it has not, it is not
the same text. `name` is for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edgecap.errors import UsageError, did_you_mean

_ENGLISH = re.compile(r"(en|eng)([-_].*)?", re.IGNORECASE)


class LanguageText(NamedTuple):
    """The text in one language, piece by piece."""

    language: str
    name: str
    pieces: tuple[str, ...]


class ParallelText(NamedTuple):
    """The text in all languages that were asked for, and in English."""

    path: Path
    english: LanguageText
    versions: tuple[LanguageText, ...]

    @property
    def alike(self) -> tuple[LanguageText, ...]:
        """Those with as many pieces as English."""
        return tuple(v for v in self.versions if len(v.pieces) == len(self.english.pieces))

    @property
    def unlike(self) -> tuple[LanguageText, ...]:
        """Those with more or fewer pieces than English, whose tokens cannot be compared."""
        return tuple(v for v in self.versions if len(v.pieces) != len(self.english.pieces))


def read_parallel(path: Path, only: Sequence[str] = ()) -> ParallelText:
    """A file of parallel text; `only` names languages beside English, all where empty.

    Raises UsageError where the file is none, has no English or two, or lacks a language that was asked for.
    """
    found: dict[str, LanguageText] = {}
    for number, row in _rows(path):
        version = _version(row, number, path)
        had = found.get(version.language)
        found[version.language] = (
            had._replace(pieces=had.pieces + version.pieces) if had else version
        )
    english = _english(found, path)
    for version in found.values():
        if not any(piece.strip() for piece in version.pieces):
            raise UsageError(f"--languages {path}: language '{version.language}' has no text")
    unknown = next((code for code in only if code not in found), None)
    if unknown is not None:
        raise UsageError(f"--only: no language '{unknown}' in {path}{did_you_mean(unknown, found)}")
    return ParallelText(
        path,
        english,
        tuple(v for v in found.values() if not only or v is english or v.language in only),
    )


def _english(found: Mapping[str, LanguageText], path: Path) -> LanguageText:
    """What others are compared with. Raises UsageError where it is not one language."""
    codes = [code for code in found if _ENGLISH.fullmatch(code)]
    if not codes:
        raise UsageError(
            f"--languages {path} has no English row (language 'eng' or 'en'), which others are compared with"
        )
    if len(codes) > 1:
        named = " and ".join(f"'{code}'" for code in codes)
        raise UsageError(
            f"--languages {path} has English as {named}: leave one, which others are compared with"
        )
    return found[codes[0]]


def _rows(path: Path) -> list[tuple[int, Any]]:
    try:
        raw = path.read_bytes()
        lines = raw.decode("utf-8").removeprefix("\ufeff").split("\n")
    except UnicodeDecodeError as error:
        at = raw[: error.start].count(b"\n") + 1
        raise UsageError(
            f"--languages {path} is not UTF-8: byte {error.start}, line {at}"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read --languages {path}: {error.strerror}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append((number, msgspec.json.decode(line)))
            except msgspec.DecodeError as error:
                raise UsageError(
                    f"--languages {path}, line {number}: not JSON Lines ({error})"
                ) from None
    if not found:
        raise UsageError(f"--languages {path} is empty")
    return found


def _version(row: Any, number: int, path: Path) -> LanguageText:
    where = f"--languages {path}, line {number}"
    if not isinstance(row, dict) or not isinstance(row.get("language"), str) or not row["language"]:
        raise UsageError(f"{where}: no 'language' field with a code")
    articles = row.get("articles")
    pieces: list[Any] = articles if isinstance(articles, list) and articles else [row.get("text")]
    if not all(isinstance(piece, str) for piece in pieces):
        raise UsageError(
            f"{where}: no 'text' field with a string, and no 'articles' with a list of strings"
        )
    if any("\ud800" <= c <= "\udfff" for piece in pieces for c in piece):
        raise UsageError(f"{where}: a lone surrogate is not text")
    name = row.get("name")
    return LanguageText(
        row["language"], name if isinstance(name, str) else row["language"], tuple(pieces)
    )
