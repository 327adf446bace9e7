"""Weight and tokenizer files of a model folder: list them, hash them, count their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgecap.model.checkpoint import checkpoint_files, count_stored
from edgecap.model.locate import TOKENIZER_FILES, LocatedModel
from edgecap.model.manifest import read_manifest
from edgecap.record import File
from edgecap.storage.files import sha256_of, sha256_of_file


class ModelHashes(msgspec.Struct, frozen=True):
    """SHA-256 of a model's weights and of its tokenizer, the same under any name of the model."""

    weights: str
    tokenizer: str


def hash_model(located: LocatedModel, graphs: Sequence[File] = ()) -> ModelHashes:
    """Hash the weights and the tokenizer of a model.

    Reads every byte of the weights, but for those of `graphs`, whose files are hashed already:
    call it once a run.
    """
    return ModelHashes(
        weights=_weights_sha256(located, graphs), tokenizer=tokenizer_sha256(located.path)
    )


def _weights_sha256(located: LocatedModel, graphs: Sequence[File]) -> str:
    """Return the hash in the manifest, else hash the graphs' or the model's files in name order."""
    claimed = read_manifest(located.path).get("source", {}).get("weights_sha256")
    if claimed:
        return str(claimed)
    hashes = [f.sha256 for f in graphs] or [
        sha256_of_file(p) for p in checkpoint_files(located.path)
    ]
    return sha256_of(*(h.encode() for h in hashes))


def tokenizer_sha256(folder: Path) -> str:
    """Return the tokenizer's hash from the manifest, else hash the files that define it."""
    claimed = read_manifest(folder).get("source", {}).get("tokenizer_sha256")
    if claimed:
        return str(claimed)
    files = [folder / name for name in TOKENIZER_FILES]
    return sha256_of(*(p.name.encode() + p.read_bytes() for p in files if p.is_file()))


def count_parameters(folder: Path, kind: str = "folder") -> int | None:
    """Count the parameters from the manifest, or from the headers of the safetensors files.

    `kind` is that of the located model. Return None if there are no such files, or a graph is
    measured and not they. Raise UsageError if a file is missing or cut short.
    """
    claimed = read_manifest(folder).get("source", {}).get("parameters")
    if isinstance(claimed, int):
        return claimed
    return None if kind == "onnx" else count_stored(folder)
