"""Read a corpus: JSON Lines with a `text` field, or one plain UTF-8 file.

A corpus is the bundled one, a file, or `hf:ORG/NAME:FILE` on the Hub. Its content decides how it is
read, see `corpus_form`. JSON Lines are read line by line, so that they may be larger than memory.
Lines end at U+000A only: U+2028, U+0085 and U+000D are text.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgecap.errors import UsageError
from edgecap.record import Absent, Baseline, CorpusInfo, Domain, Law
from edgecap.spec import CALIBRATION_CORPUS, DEFAULT_CORPUS
from edgecap.storage import hub
from edgecap.storage.files import (
    require_regular_file,
    resolve_paths,
    sha256_of,
    write_atomically,
)
from edgecap.text.bias_card import BiasCard, card_path, law_of_card, open_card, read_card
from edgecap.text.corpus_form import advice, check_is_text, is_json_lines
from edgecap.text.json_lines import decode_line, is_named_json

_FIELDS = ("text", "id", "domain")
PIECES, PIECE_CHARACTERS = 24, 200  # of an excerpt
BUNDLED = Path(__file__).parents[1] / "data"
_ON_THE_HUB = re.compile(
    r"hf:(?P<dataset>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?:(?P<file>.+)"
)

# Biases that were published with a corpus, in bits per token: arXiv 2511.08066 and its scripts.
BIASES = {
    "TeleAI-AI-Flow/InformationCapacity": {
        "mixed_text.jsonl": -24.0,
        "Ch-FineWeb-Edu.jsonl": -18.7,
        "": -27.0,
    },
}


class Document(msgspec.Struct, frozen=True):
    """One text with its name and domain."""

    id: str
    domain: str
    text: str


class Corpus(msgspec.Struct, frozen=True):
    """A checked file of text: the hash of the bytes used, and the size of each domain.

    `limit` is the number of documents asked for. `bias_bits` is the bias per token that the corpus
    declares, or 0; `card` tells how it was fitted. `pieces` are those of an excerpt: the place of a
    document in the file and its first character; the hash is then that of their text. `cut` of them
    are shorter than their document.
    """

    name: str
    path: str
    sha256: str
    domains: dict[str, Domain]
    limit: int | None = None
    bias_bits: float = 0.0
    card: BiasCard | None = None
    pieces: tuple[tuple[int, int], ...] = ()
    cut: int = 0

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of all texts."""
        return sum(d.bytes for d in self.domains.values())

    @property
    def count(self) -> int:
        """Documents, empty ones included."""
        return sum(d.documents for d in self.domains.values())

    @property
    def documents(self) -> Iterator[Document]:
        """Documents in the order of the file, read again at each use."""
        found = _documents(Path(self.path), self.name, self.limit, hashlib.sha256())
        return _cut(found, self.pieces) if self.pieces else found


def read_corpus(
    name: str, limit: int | None = None, cache: Path | None = None, bias_bits: float | None = None
) -> Corpus:
    """Read the bundled corpus, a `.jsonl` or text file, or one on the Hub, to `limit` documents.

    The bias comes from the card beside the file, if all of the text is read; with `bias_bits` no
    card is read. Parts of files of the Hub are kept in `cache`. Raises UsageError if there is no
    such file, if it is empty, broken or not UTF-8, or if its card is for another text.
    """
    path, bias = _find(name, limit, cache or resolve_paths().cache)
    digest, sizes = hashlib.sha256(), dict[str, list[int]]()
    for document in _documents(path, path.stem, limit, digest, name):
        sizes.setdefault(document.domain, []).append(len(document.text.encode()))
    if not any(any(s) for s in sizes.values()):
        raise UsageError(f"corpus {path} holds no text")
    domains = {name: Domain(documents=len(s), bytes=sum(s)) for name, s in sizes.items()}
    sha256, may_have_card = digest.hexdigest(), bias_bits is None and not name.startswith("hf:")
    card = read_card(path, sha256, part=limit is not None) if may_have_card else None
    return Corpus(
        path.stem, str(path), sha256, domains, limit, card.bias_bits if card else bias, card
    )


def check_unchanged(corpus: Corpus) -> None:
    """Raise UsageError if the text of the file has changed since it was checked."""
    digest = hashlib.sha256()
    if corpus.pieces:
        digest.update("".join(d.text for d in corpus.documents).encode())
    else:
        for _ in _documents(Path(corpus.path), corpus.name, corpus.limit, digest):
            pass
    if digest.hexdigest() != corpus.sha256:
        raise UsageError(f"corpus {corpus.path} changed while it was measured")


def corpus_info(
    corpus: Corpus, bias_bits: float | None, baselines: dict[str, Baseline]
) -> CorpusInfo:
    """Return the record of a corpus; a given bias replaces the corpus's own."""
    return CorpusInfo(
        name=corpus.name,
        sha256=corpus.sha256,
        documents=corpus.count,
        bytes=corpus.bytes,
        bias_bits=corpus.bias_bits if bias_bits is None else bias_bits,
        domains=corpus.domains,
        baselines=baselines,
        law=_law(corpus),
        pieces=corpus.cut,
    )


def _law(corpus: Corpus) -> Law | Absent:
    """Return the law of the card; of a part of its text, or under another bias, only the slope."""
    if corpus.card is not None:
        return law_of_card(corpus.card)
    path = card_path(Path(corpus.path))
    if path.exists():
        with contextlib.suppress(UsageError):  # a run with --bias does not need the card
            card = open_card(path)
            if corpus.pieces or corpus.limit is not None or card.sha256 == corpus.sha256:
                return law_of_card(card, whole=False)
    return Absent(reason="the text has no card")


# --- excerpt ----------------------------------------------------------------------------------


def excerpt(corpus: Corpus) -> Corpus:
    """Return pieces of a corpus, spread over each of its domains in the proportion of its text.

    They are about `PIECES` of `PIECE_CHARACTERS`, more of shorter documents; a corpus that is no
    longer stays whole. As a part of a text they have no bias of their own.
    """
    sizes: dict[str, list[tuple[int, int]]] = {}
    for place, document in enumerate(corpus.documents):
        if document.text:
            sizes.setdefault(document.domain, []).append((place, len(document.text)))
    whole = sum(length for members in sizes.values() for _, length in members)
    if whole <= PIECES * PIECE_CHARACTERS:
        return corpus
    groups = list(sizes.values())
    if len(groups) > PIECES:
        groups = [sorted(itertools.chain(*groups))]
    pieces = [piece for members in groups for piece in _spread(members, whole)]
    long = {place for members in groups for place, length in members if length > PIECE_CHARACTERS}
    part = msgspec.structs.replace(
        corpus,
        pieces=tuple(sorted(pieces)),
        cut=sum(begin > 0 or place in long for place, begin in pieces),
        card=None,
        bias_bits=0.0,
    )
    texts: dict[str, list[str]] = {}
    for document in part.documents:
        texts.setdefault(document.domain, []).append(document.text)
    return msgspec.structs.replace(
        part,
        sha256=hashlib.sha256("".join(d.text for d in part.documents).encode()).hexdigest(),
        domains={
            name: Domain(documents=len(t), bytes=sum(len(x.encode()) for x in t))
            for name, t in texts.items()
        },
    )


def _spread(members: list[tuple[int, int]], whole: int) -> Iterator[tuple[int, int]]:
    """Yield the pieces of a domain, at equal distances in its text.

    The first of a document is its beginning. Of short documents there are more pieces.
    """
    size = sum(length for _, length in members)
    wanted = PIECES * PIECE_CHARACTERS * size / whole
    count = max(1, round(wanted / min(PIECE_CHARACTERS, size / len(members))))
    ends = list(itertools.accumulate(length for _, length in members))
    begun = set()
    for at in (n * size // count for n in range(count)):
        n = bisect.bisect_right(ends, at)
        place, begin = members[n][0], at - (ends[n - 1] if n else 0)
        yield place, begin if place in begun else 0
        begun.add(place)


def _cut(documents: Iterator[Document], pieces: Sequence[tuple[int, int]]) -> Iterator[Document]:
    """Yield pieces of documents; `pieces` are in the order of the file."""
    begins: dict[int, list[int]] = {}
    for place, begin in pieces:
        begins.setdefault(place, []).append(begin)
    for place, document in enumerate(documents):
        for begin in begins.get(place, ()):
            text = document.text[begin : begin + PIECE_CHARACTERS]
            name = f"{document.id}:{begin}" if begin else document.id
            yield Document(id=name, domain=document.domain, text=text)


# --- find -------------------------------------------------------------------------------------


def _find(name: str, limit: int | None, cache: Path) -> tuple[Path, float]:
    """Return the file on this disk, and the bias that its publisher declares."""
    if name in (DEFAULT_CORPUS, CALIBRATION_CORPUS):
        return BUNDLED / f"{name}.jsonl", 0.0
    if not name.startswith("hf:"):
        return Path(name), 0.0
    address = _ON_THE_HUB.fullmatch(name)
    if not address:
        raise UsageError(
            f"'{name}' does not name a corpus on the Hub: "
            "write hf:ORG/NAME:FILE or hf:ORG/NAME@REVISION:FILE"
        )
    dataset, revision, file = address["dataset"], address["revision"], address["file"]
    declared = BIASES.get(dataset, {})
    bias = declared.get(file.rpartition("/")[2], declared.get("", 0.0))
    if limit is None or not is_named_json(file):
        return hub.fetch_file(dataset, file, revision), bias
    key = sha256_of(dataset.encode(), (revision or "").encode(), file.encode(), str(limit).encode())
    return _first_lines(dataset, file, revision, limit, cache / "corpora" / key[:16]), bias


def _first_lines(dataset: str, file: str, revision: str | None, limit: int, folder: Path) -> Path:
    """Return the first lines at the branch's commit; offline, those that were fetched last."""
    name, commit = file.rpartition("/")[2], hub.commit_of(dataset, revision)
    cached = sorted(folder.glob(f"*/{name}"), key=lambda path: path.stat().st_mtime)
    if commit is None and cached:
        return cached[-1]
    path = folder / (commit or "unknown") / name
    if not path.exists():
        write_atomically(path, hub.read_lines(dataset, file, commit or revision, limit))
    return path


# --- read -------------------------------------------------------------------------------------


def _documents(
    path: Path, stem: str, limit: int | None, digest: Any, name: str | None = None
) -> Iterator[Document]:
    """Yield the documents of a file; `digest` takes the bytes that are used."""
    require_regular_file(path, "corpus")
    try:
        with path.open("rb") as file:
            check_is_text(file, path)
            if is_json_lines(file, path):
                yield from itertools.islice(_json_lines(file, path, stem, digest), limit)
            else:
                raw = file.read()
                digest.update(raw)
                yield Document(id="1", domain=stem, text=_decode(raw, 0, path, 1))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"cannot read corpus '{name or path}': {reason}; bundled: {DEFAULT_CORPUS}"
        ) from error


def _json_lines(lines: Any, path: Path, stem: str, digest: Any) -> Iterator[Document]:
    before = 0
    for number, raw in enumerate(lines, 1):
        line = _decode(raw, before, path, number).removeprefix("\ufeff" if number == 1 else "")
        before += len(raw)
        if line.strip(" \t\r\n"):
            document = _document(line, number, path, stem)
            digest.update(raw)
            yield document
        else:
            digest.update(raw)


def _decode(raw: bytes, before: int, path: Path, number: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number + raw[: error.start].count(b"\n")
        raise UsageError(
            f"corpus {path} is not UTF-8: byte {before + error.start}, line {line}"
        ) from error


def _document(line: str, number: int, path: Path, stem: str) -> Document:
    try:
        value = decode_line(line, _FIELDS)
    except ValueError as error:
        raise UsageError(
            f"corpus {path}, line {number}: not JSON ({error}){advice(line, path)}"
        ) from error
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise UsageError(
            f"corpus {path}, line {number}: no 'text' field with a string{advice(line, path)}"
        )
    name, domain = value.get("id"), value.get("domain")
    return Document(
        id=_replaced(str(name)) if name is not None else str(number),
        domain=_replaced(domain) if isinstance(domain, str) and domain else stem,
        text=_encodable(value["text"], number, path),
    )


def _replaced(name: str) -> str:
    """Return a name with question marks for lone surrogates, which no file takes."""
    return name.encode("utf-8", "replace").decode()


def _encodable(text: str, number: int, path: Path) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"corpus {path}, line {number}: a lone surrogate is not text") from error
    return text
