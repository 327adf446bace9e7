"""What a model or a text is, whatever it is called: hashes of its files, reckoned once and remembered by size and times.

A model on the Hub is what its name and revision say: nothing is fetched to make a list.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from edgecap.errors import UsageError
from edgecap.model.locate import is_hub_model, locate
from edgecap.model.manifest import read_manifest
from edgecap.spec import DEFAULT_CORPUS, PRECISIONS
from edgecap.storage.files import sha256_of, sha256_of_file, write_atomically
from edgecap.text.bias_card import CARD_SUFFIX, card_path

_NOT_THE_MODEL = {".md", ".png", ".jpg", ".lock"}  # beside it, for people


def model_fingerprint(model: str, cache: Path) -> str:
    """One word for all files of a model's folder, or the name and revision of one on the Hub.

    Raises UsageError where there is none, or the folder holds no model.
    """
    if is_hub_model(model):
        return f"hub {model}"
    located = locate(model)
    files = sorted(
        p for p in (*located.path.glob("*"), *located.path.glob("*/*")) if _is_part(p, located.path)
    )
    return _together([(str(p.relative_to(located.path)), p) for p in files], cache)


def corpus_fingerprint(corpus: str, cache: Path) -> str:
    """One word for the text of a corpus and its card; what lies on the Hub is what its name says."""
    if corpus == DEFAULT_CORPUS or corpus.startswith("hf:"):
        return corpus
    if not _is_file(corpus):
        is_what = "is a folder" if os.path.isdir(corpus) else "is not there"
        raise UsageError(
            f"the corpus '{corpus[:200]}' {is_what}; give a .jsonl or text file, or {DEFAULT_CORPUS}"
        )
    files, card = [(Path(corpus).suffix, Path(corpus))], card_path(Path(corpus))
    if card.is_file():  # which changes the bias
        files.append((CARD_SUFFIX, card))
    return _together(files, cache)


def precisions_of(model: str) -> tuple[str, ...]:
    """The precisions that a folder of graphs holds; none where the model is no such folder.

    Raises UsageError where only reading the graphs would tell.
    """
    if is_hub_model(model) or (located := locate(model)).kind != "onnx":
        return ()
    told = [graph.get("precision") for graph in read_manifest(located.path).get("graphs", ())]
    found = tuple(str(name) for name in told if name in PRECISIONS)
    if not found:
        raise UsageError(
            f"{model} holds graphs without a manifest of edgecap export: name their precisions"
        )
    return found


def _is_file(name: str) -> bool:
    """Whether there is a file of that name; a name that no disk takes has none."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def _is_part(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.is_file() and path.suffix not in _NOT_THE_MODEL


# --- hashes that are remembered ---------------------------------------------------------------


class _HashedFile(msgspec.Struct, frozen=True):
    """A file as it was when it was hashed: bytes, and the times of its last change in nanoseconds."""

    bytes: int
    changed: tuple[int, int]
    sha256: str


_HashCache = dict[str, _HashedFile]  # by path


def _together(files: list[tuple[str, Path]], cache: Path) -> str:
    """One hash over names and contents."""
    memory = cache / "hashes.json"
    known = _remembered(memory)
    before = dict(known)
    hashes = [f"{name} {_hash_of(path, known)}" for name, path in files]
    if known != before:
        with contextlib.suppress(UsageError):  # a disk that takes no more costs time, not the sweep
            write_atomically(memory, msgspec.json.encode(known))
    return sha256_of(*(line.encode("utf-8", "surrogateescape") for line in hashes))


def _hash_of(path: Path, known: _HashCache) -> str:
    """The SHA-256 of a file, read only where its size or times are new."""
    name = os.fsencode(os.path.abspath(path)).decode("utf-8", "replace")
    try:
        found = path.stat()
        size, changed = found.st_size, (found.st_mtime_ns, found.st_ctime_ns)
        had = known.get(name)
        if had is None or (had.bytes, had.changed) != (size, changed):
            known[name] = _HashedFile(size, changed, sha256_of_file(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    return known[name].sha256


def _remembered(memory: Path) -> _HashCache:
    with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(memory.read_bytes(), type=_HashCache)
    return {}
