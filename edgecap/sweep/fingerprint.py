"""Fingerprints of models and corpora: hashes of their files, whatever their names.

Hashes are cached by file size and times. A model on the Hub is identified by its name and revision,
so that nothing is downloaded to list the cells of a plan.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from edgecap.errors import UsageError
from edgecap.model.locate import is_hub_model, locate
from edgecap.model.manifest import read_manifest
from edgecap.model.onnx_folder import onnx_files
from edgecap.spec import DEFAULT_CORPUS, PRECISIONS
from edgecap.storage.files import (
    require_regular_file,
    sha256_of,
    sha256_of_file,
    write_atomically,
)
from edgecap.text.bias_card import CARD_SUFFIX, card_path

_NOT_THE_MODEL = {".md", ".png", ".jpg", ".lock"}  # suffixes that do not change the model


def model_fingerprint(model: str, cache: Path) -> str:
    """Return a hash of all files of a model's folder, or the name and revision of a Hub model.

    Raise UsageError if there is no such model, or the folder holds none.
    """
    if is_hub_model(model):
        return f"hub {model}"
    located = locate(model)
    files = sorted(
        p for p in (*located.path.glob("*"), *located.path.glob("*/*")) if _is_part(p, located.path)
    )
    parts = [(str(p.relative_to(located.path)), p) for p in files]
    chosen = [("the graph", located.graph)] if located.graph else []
    return _together([*parts, *chosen], cache)


def corpus_fingerprint(corpus: str, cache: Path) -> str:
    """Return a hash of a corpus file and its card, or the name of a bundled or Hub corpus."""
    if corpus == DEFAULT_CORPUS or corpus.startswith("hf:"):
        return corpus
    require_regular_file(Path(corpus), "the corpus")
    if not _is_file(corpus):
        raise UsageError(
            f"the corpus '{corpus[:200]}' is not there; "
            f"give a .jsonl or text file, or {DEFAULT_CORPUS}"
        )
    files, card = [(Path(corpus).suffix, Path(corpus))], card_path(Path(corpus))
    if card.is_file():  # the card sets the bias
        files.append((CARD_SUFFIX, card))
    return _together(files, cache)


def precisions_of(model: str) -> tuple[str, ...]:
    """Return the precisions in the manifest of an ONNX folder; () for other models.

    Raise UsageError if the folder has no manifest of edgecap export.
    """
    if is_hub_model(model) or (located := locate(model)).kind != "onnx":
        return ()
    if located.graph:
        names = [file.precision for file in onnx_files(located.path, located.graph)]
    else:
        names = [graph.get("precision") for graph in read_manifest(located.path).get("graphs", ())]
    precisions = tuple(str(name) for name in names if name in PRECISIONS)
    if not precisions:
        raise UsageError(
            f"{model} holds graphs without a manifest of edgecap export: give their precisions"
        )
    return precisions


def _is_file(name: str) -> bool:
    """Return True if a file has this name; a name that no disk accepts has none."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def _is_part(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.is_file() and path.suffix not in _NOT_THE_MODEL


# --- cached hashes ----------------------------------------------------------------------------


class _HashedFile(msgspec.Struct, frozen=True):
    """State of a file when it was hashed: size in bytes, mtime and ctime in nanoseconds."""

    bytes: int
    changed: tuple[int, int]
    sha256: str


_HashCache = dict[str, _HashedFile]  # key: path


def _together(files: list[tuple[str, Path]], cache: Path) -> str:
    """Hash names and contents of files together."""
    memory = cache / "hashes.json"
    known = _remembered(memory)
    before = dict(known)
    hashes = [f"{name} {_hash_of(path, known)}" for name, path in files]
    if known != before:
        with contextlib.suppress(UsageError):  # a full disk costs time, not the sweep
            write_atomically(memory, msgspec.json.encode(known))
    return sha256_of(*(line.encode("utf-8", "surrogateescape") for line in hashes))


def _hash_of(path: Path, known: _HashCache) -> str:
    """Return the SHA-256 of a file; read the file only if its size or times changed."""
    name = os.fsencode(os.path.abspath(path)).decode("utf-8", "replace")
    try:
        stat = path.stat()
        size, changed = stat.st_size, (stat.st_mtime_ns, stat.st_ctime_ns)
        cached = known.get(name)
        if cached is None or (cached.bytes, cached.changed) != (size, changed):
            known[name] = _HashedFile(size, changed, sha256_of_file(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    return known[name].sha256


def _remembered(memory: Path) -> _HashCache:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return msgspec.json.decode(memory.read_bytes(), type=_HashCache)
    return {}
