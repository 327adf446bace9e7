"""Read one text in many languages from JSON Lines: a row per language, or per piece of its text.

    {"language": "deu", "name": "German", "text": "...", "articles": ["...", "..."]}

`language` is a code (ISO 639, optionally with script or country after `-` or `_`). `articles` are
the pieces of the text, in the same order in all languages; without them every row is a piece, in
the order of the file. If a language has as many pieces as English, they are taken to be the same
text piece by piece; otherwise it is not the same text. `name` is for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edgecap.errors import UsageError, did_you_mean
from edgecap.text.json_lines import decode_line, read_lines

_FIELDS = ("language", "name", "text", "articles")
_ENGLISH = re.compile(r"(en|eng)([-_].*)?", re.IGNORECASE)


class LanguageText(NamedTuple):
    """The text in one language, piece by piece."""

    language: str
    name: str
    pieces: tuple[str, ...]


class ParallelText(NamedTuple):
    """The text in all selected languages, and in English."""

    path: Path
    english: LanguageText
    versions: tuple[LanguageText, ...]

    @property
    def alike(self) -> tuple[LanguageText, ...]:
        """Return the languages with as many pieces as English."""
        return tuple(v for v in self.versions if len(v.pieces) == len(self.english.pieces))

    @property
    def unlike(self) -> tuple[LanguageText, ...]:
        """Return the languages with more or fewer pieces, whose tokens cannot be compared."""
        return tuple(v for v in self.versions if len(v.pieces) != len(self.english.pieces))


def read_parallel(path: Path, only: Sequence[str] = ()) -> ParallelText:
    """Read a file of parallel text; `only` selects languages beside English, all if empty.

    Raises UsageError if the file cannot be read, has no English or two, or lacks a selected
    language.
    """
    versions: dict[str, LanguageText] = {}
    for number, row in _rows(path):
        version = _parse_row(row, number, path)
        earlier = versions.get(version.language)
        versions[version.language] = (
            earlier._replace(pieces=earlier.pieces + version.pieces) if earlier else version
        )
    english = _english(versions, path)
    for version in versions.values():
        if not any(piece.strip() for piece in version.pieces):
            raise UsageError(f"--languages {path}: language '{version.language}' has no text")
    unknown = next((code for code in only if code not in versions), None)
    if unknown is not None:
        raise UsageError(
            f"--only: no language '{unknown}' in {path}{did_you_mean(unknown, versions)}"
        )
    return ParallelText(
        path,
        english,
        tuple(v for v in versions.values() if not only or v is english or v.language in only),
    )


def _english(versions: Mapping[str, LanguageText], path: Path) -> LanguageText:
    """Return the English text. Raises UsageError if there is not exactly one."""
    codes = [code for code in versions if _ENGLISH.fullmatch(code)]
    if not codes:
        raise UsageError(
            f"--languages {path} has no English row (language 'eng' or 'en'), "
            "which others are compared with"
        )
    if len(codes) > 1:
        named = " and ".join(f"'{code}'" for code in codes)
        raise UsageError(
            f"--languages {path} has English as {named}: leave one, which others are compared with"
        )
    return versions[codes[0]]


def _rows(path: Path) -> list[tuple[int, Any]]:
    try:
        raw = read_lines(path, "--languages")
        lines = raw.decode("utf-8").removeprefix("\ufeff").split("\n")
    except UnicodeDecodeError as error:
        at = raw[: error.start].count(b"\n") + 1
        raise UsageError(
            f"--languages {path} is not UTF-8: byte {error.start}, line {at}"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read --languages {path}: {error.strerror}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append((number, decode_line(line, _FIELDS)))
            except ValueError as error:
                raise UsageError(
                    f"--languages {path}, line {number}: not JSON Lines ({error})"
                ) from None
    if not rows:
        raise UsageError(f"--languages {path} is empty")
    return rows


def _parse_row(row: Any, number: int, path: Path) -> LanguageText:
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
