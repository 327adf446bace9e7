"""Reads the text that a model is measured on: JSON Lines with a `text` field, or one plain UTF-8 file.

Lines end at U+000A only: U+2028, U+0085 and U+000D inside a text are text. Every byte counts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from edgecap.errors import UsageError
from edgecap.record import CorpusInfo, Domain
from edgecap.spec import DEFAULT_CORPUS

BUNDLED = Path(__file__).parent / "data"


class Document(msgspec.Struct, frozen=True):
    """One text with its name and domain."""

    id: str
    domain: str
    text: str


class Corpus(msgspec.Struct, frozen=True):
    """Documents in the order of the file; `bias_bits` per token where the corpus declares one."""

    name: str
    sha256: str
    documents: tuple[Document, ...]
    bias_bits: float = 0.0


def read_corpus(name: str) -> Corpus:
    """The bundled corpus by name, or a `.jsonl` or text file by path.

    Raises UsageError where there is no such file, or it is empty, broken or not UTF-8.
    """
    path = BUNDLED / f"{DEFAULT_CORPUS}.jsonl" if name == DEFAULT_CORPUS else Path(name)
    raw = _read(path, name)
    text = _decode(raw, path)
    documents = _json_lines(text, path) if path.suffix in (".jsonl", ".ndjson", ".json") else _plain(text, path)
    if not any(d.text for d in documents):
        raise UsageError(f"corpus {path} holds no text")
    return Corpus(name=path.stem, sha256=hashlib.sha256(raw).hexdigest(), documents=documents)


def describe(corpus: Corpus, bias_bits: float | None) -> CorpusInfo:
    """The corpus as the record tells it; a given bias replaces the corpus's own."""
    domains: dict[str, list[int]] = {}
    for document in corpus.documents:
        domains.setdefault(document.domain, []).append(len(document.text.encode()))
    return CorpusInfo(
        name=corpus.name,
        sha256=corpus.sha256,
        documents=len(corpus.documents),
        bytes=sum(sum(sizes) for sizes in domains.values()),
        bias_bits=corpus.bias_bits if bias_bits is None else bias_bits,
        domains={name: Domain(documents=len(sizes), bytes=sum(sizes)) for name, sizes in domains.items()},
    )


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise UsageError(f"corpus {path} is a folder; give one .jsonl or .txt file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read corpus '{name}': {reason}; bundled: {DEFAULT_CORPUS}") from error


def _decode(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError(f"corpus {path} is not UTF-8: byte {error.start}, line {line}") from error


def _plain(text: str, path: Path) -> tuple[Document, ...]:
    return (Document(id="1", domain=path.stem, text=text),)


def _json_lines(text: str, path: Path) -> tuple[Document, ...]:
    lines = text.removeprefix("\ufeff").split("\n")
    return tuple(_document(line, n, path) for n, line in enumerate(lines, 1) if line.strip(" \t\r"))


def _document(line: str, number: int, path: Path) -> Document:
    try:
        value: Any = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise UsageError(f"corpus {path}, line {number}: not JSON ({error})") from error
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise UsageError(f"corpus {path}, line {number}: no 'text' field with a string")
    name, domain = value.get("id"), value.get("domain")
    return Document(
        id=str(name) if name is not None else str(number),
        domain=domain if isinstance(domain, str) and domain else path.stem,
        text=_encodable(value["text"], number, path),
    )


def _encodable(text: str, number: int, path: Path) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"corpus {path}, line {number}: a lone surrogate is not text") from error
    return text
