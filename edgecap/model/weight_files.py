"""Weight and tokenizer files of a model folder: list them, hash them, count their parameters."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgecap.errors import UsageError
from edgecap.model.config_file import read_json_object
from edgecap.model.locate import TOKENIZER_FILES, LocatedModel
from edgecap.model.manifest import read_manifest
from edgecap.record import File
from edgecap.storage.files import sha256_of, sha256_of_file

# Tensors that old checkpoints store beside the weights: causal masks and position ids.
_BUFFERS = re.compile(
    r"(^|\.)(attn|attention|self_attn)\.(masked_)?bias\Z|rotary_emb\.inv_freq\Z|embeddings\.position_ids\Z"
)


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
    hashes = [f.sha256 for f in graphs] or [sha256_of_file(p) for p in weight_files(located.path)]
    return sha256_of(*(h.encode() for h in hashes))


def tokenizer_sha256(folder: Path) -> str:
    """Return the tokenizer's hash from the manifest, else hash the files that define it."""
    claimed = read_manifest(folder).get("source", {}).get("tokenizer_sha256")
    if claimed:
        return str(claimed)
    files = [folder / name for name in TOKENIZER_FILES]
    return sha256_of(*(p.name.encode() + p.read_bytes() for p in files if p.is_file()))


def count_parameters(folder: Path) -> int | None:
    """Count the parameters from the manifest or the headers of the safetensors files.

    Return None if there are no such files. Raise UsageError if a file is missing or cut short.
    """
    claimed = read_manifest(folder).get("source", {}).get("parameters")
    if isinstance(claimed, int):
        return claimed
    files = weight_files(folder)
    return sum(_count_in_file(p) for p in files) if files else None


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model.

    Those of the index take precedence over `model.safetensors`, that over all others. Raise
    UsageError if a file of the index is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json_object(index).get("weight_map", {}).values()))
        files = [folder / str(name) for name in names]
        missing = [f.name for f in files if not f.is_file() or f.parent != folder]
        if missing:
            raise UsageError(f"{folder} is incomplete: {', '.join(missing[:3])} is missing")
        return files
    single = folder / "model.safetensors"
    return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))


def _count_in_file(path: Path) -> int:
    """Count the parameters of a safetensors file from its header.

    Format: 8 bytes of little-endian length, a JSON header of that length, then the tensors.
    """
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
        if not 0 < length <= path.stat().st_size:
            raise UsageError(f"{path} is not a safetensors file, or cut short")
        try:
            header = json.loads(file.read(length))
            tensors = [t for name, t in header.items() if name != "__metadata__"]
            end = max((int(t["data_offsets"][1]) for t in tensors), default=0)
            count = sum(
                math.prod(map(int, t["shape"])) for name, t in header.items() if _is_parameter(name)
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"{path} is not a safetensors file: {error}") from error
    if path.stat().st_size < 8 + length + end:
        raise UsageError(f"{path} is cut short: {path.stat().st_size} bytes of {8 + length + end}")
    return count


def _is_parameter(name: str) -> bool:
    return name != "__metadata__" and not _BUFFERS.search(name)
