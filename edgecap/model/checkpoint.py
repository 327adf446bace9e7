"""Weights of a Hugging Face folder: the files that transformers loads, and no others.

transformers reads `model.safetensors`, else the shards of `model.safetensors.index.json`; it reads
no other file, and of the shards only the tensors that the index names. A folder in which these
disagree, or that holds weights of another kind (an adapter, quantized weights), is refused here,
before anything is hashed or exported. Source: transformers 4.57, `_get_resolved_checkpoint_files`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecap.errors import UsageError
from edgecap.model.config_file import read_json_object
from edgecap.model.safetensors_file import SafetensorsHeader, is_parameter, read_header
from edgecap.storage.files import link_note
from edgecap.units import counted

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
OWN_FORMATS = {None, "pt", "mlx"}
GIVE = "give a folder with config.json and safetensors, or an ONNX export"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_NARROW_INTEGERS = {"I8", "U8", "I16", "U16", "I32", "U32"}
_QUANTIZED = ("quantization_config", "compression_config", "quantization")
_ADAPTER = re.compile(
    r"(.*[._-])?(adapters?|lora)([._-].*)?\.(json|safetensors|bin|pt|pth|npz|onnx_adapter)",
    re.IGNORECASE,
)
_PARTS_OF_ADAPTERS = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|base_layer|ia3_l)(\.|\Z)")
_OTHER_KINDS = {
    "only pickled weights, which can run code": (".bin", ".pt", ".pth", ".ckpt", ".pkl"),
    "only GGUF files": (".gguf",),
    "only weights of TensorFlow or Flax": (".h5", ".msgpack"),
}


def has_checkpoint(folder: Path) -> bool:
    """Return True if a folder has one of the names that transformers looks for."""
    return any(os.path.lexists(folder / name) for name in (SINGLE, INDEX))


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the files that transformers loads from a folder, by name; [] if there are none.

    Raise UsageError if an index names a file that is missing, or outside the folder.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    names = sorted(set(_weight_map(folder).values())) if (folder / INDEX).is_file() else []
    for name in names:
        if Path(name).name != name or not name.isprintable() or name in ("", os.pardir):
            raise UsageError(f"{folder / INDEX} names {name[:100]!r}, which is no file in it")
    files = [folder / name for name in names]
    missing = [f"{f.name}{link_note(f)}" for f in files if not f.is_file()]
    if missing:
        raise UsageError(f"{folder} is incomplete: {', '.join(missing[:3])} is missing")
    return files


def modules_with_weights(folder: Path) -> tuple[str, ...]:
    """Return the folders of sentence-transformers' modules behind the model that hold weights.

    They project or weigh its outputs, as `2_Dense` does; only the model itself is measured.
    """
    try:
        listed = json.loads((folder / "modules.json").read_bytes())
        paths = [str(module["path"]) for module in listed if module["path"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ()
    kinds = ("*.safetensors", "*.bin")
    return tuple(p for p in paths if any(any((folder / p).glob(kind)) for kind in kinds))


def check_no_adapter(folder: Path) -> None:
    """Raise UsageError if a folder holds an adapter, which transformers ignores or replaces.

    With the library peft, the name of the base inside it takes the place of the folder.
    """
    adapters = [name for name in sorted(os.listdir(folder)) if _ADAPTER.fullmatch(name)]
    if adapters:
        raise UsageError(
            f"{folder} holds an adapter ({adapters[0]}), which would not be measured: merge it "
            "into its base (peft's merge_and_unload, then save_pretrained), or take it out"
        )


def check_checkpoint(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise UsageError if the weights of a folder are not a whole, unquantized checkpoint.

    Reads the headers of the files only.
    """
    _check_config(folder, config)
    files = checkpoint_files(folder)
    if not files:
        raise UsageError(_no_weights(folder))
    headers = {file.name: read_header(file) for file in files}
    for name, header in headers.items():
        _check_header(folder / name, header)
    if (folder / INDEX).is_file():
        _check_index(folder, headers)


def count_stored(folder: Path) -> int | None:
    """Count the parameters in the files that transformers loads; None without such files."""
    headers = [read_header(file) for file in checkpoint_files(folder)]
    tensors = [t for h in headers for name, t in h.tensors.items() if is_parameter(name)]
    return sum(t.count for t in tensors) if headers else None


# --- config -----------------------------------------------------------------------------------


def _check_config(folder: Path, config: Mapping[str, Any]) -> None:
    parts = (config, config.get("text_config"))
    named = [f for part in parts if isinstance(part, dict) for f in _QUANTIZED if part.get(f)]
    if named:
        raise UsageError(
            f"{folder / 'config.json'} has {named[0]!r}: the weights are quantized, and edgecap "
            "exports in fp32; give the unquantized model, or an ONNX export of this one"
        )
    explicit = config.get("transformers_weights")
    usual = SINGLE if (folder / SINGLE).is_file() else INDEX
    if explicit not in (None, usual):
        raise UsageError(
            f"{folder / 'config.json'} names other weights in 'transformers_weights': "
            f"{str(explicit)[:100]}; rename them to {usual} and take the field out"
        )


def _no_weights(folder: Path) -> str:
    """Return what a folder has in place of weights, and what to do."""
    names = sorted(os.listdir(folder))
    for name in (SINGLE, INDEX):
        if name in names:
            empty = name == INDEX and (folder / name).is_file()
            note = " names no file" if empty else ", which is no plain file"
            note = link_note(folder / name) or note
            return f"{folder} has no weights: {name}{note}"
    shards = [name for name in names if _SHARD.fullmatch(name)]
    if shards:
        return f"{folder} holds {shards[0]} without {INDEX}; download it, or save the model again"
    others = [name for name in names if name.endswith(".safetensors")]
    if others:
        return (
            f"{folder} holds {others[0]}, which is not loaded: weights are {SINGLE}, or shards "
            f"with {INDEX}; rename it, or save the model again"
        )
    for kind, suffixes in _OTHER_KINDS.items():
        if any(name.lower().endswith(suffixes) for name in names):
            return f"{folder} holds {kind}; {GIVE}"
    below = sorted([*folder.glob("*/*.onnx"), *folder.glob("*/*/*.onnx")])
    if below:
        return f"{folder} itself holds no graph; give the folder of one: {below[0].parent}"
    return f"{folder} holds no .safetensors and no .onnx file; {GIVE}"


# --- headers ----------------------------------------------------------------------------------


def _check_header(path: Path, header: SafetensorsHeader) -> None:
    """Raise UsageError if a file holds other than the weights of one model for PyTorch."""
    if header.format not in OWN_FORMATS:
        raise UsageError(f"{path} was saved by {header.format}, not for PyTorch; {GIVE}")
    if not header.tensors:
        raise UsageError(f"{path} holds no tensors; save the model again")
    for name, tensor in header.tensors.items():
        if _PARTS_OF_ADAPTERS.search(name):
            raise UsageError(
                f"{path} holds an adapter that is not merged ({name}); merge it into its base "
                "(peft's merge_and_unload, then save_pretrained)"
            )
        packed = tensor.dtype in _NARROW_INTEGERS and len(tensor.shape) > 1 and is_parameter(name)
        if packed or tensor.dtype.startswith(("F4", "F6_", "F8")):
            raise UsageError(
                f"{path} holds quantized weights ({name} is {tensor.dtype}), and edgecap exports "
                "in fp32; give the unquantized model, or an ONNX export of this one"
            )


def _weight_map(folder: Path) -> dict[str, str]:
    """Read the file of each tensor from the index. Raise UsageError if it is none."""
    files = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise UsageError(f"{folder / INDEX} has no 'weight_map' of tensors to files")
    return files


def _check_index(folder: Path, headers: dict[str, SafetensorsHeader]) -> None:
    """Raise UsageError if an index and the files that are loaded disagree."""
    listed = set(_weight_map(folder).items())
    if not isinstance(read_json_object(folder / INDEX).get("metadata"), dict):
        raise UsageError(
            f"{folder / INDEX} has no 'metadata', which transformers needs; save the model again"
        )
    stored = {(name, file) for file, header in headers.items() for name in header.tensors}
    if (folder / SINGLE).is_file() and {file for _, file in listed} != {SINGLE}:
        raise UsageError(
            f"{folder} holds {SINGLE}, and {INDEX} names other files; "
            "transformers reads the first: take out what is not the model"
        )
    wrong = sorted(listed ^ stored)
    if wrong:
        tensor, file = wrong[0]
        problem = "is not in" if wrong[0] in listed else "is not named for"
        raise UsageError(
            f"{folder / INDEX} and its files disagree on "
            f"{counted(len({t for t, _ in wrong}), 'tensor')}, "
            f"first {tensor[:200]}, which {problem} {file}; save the model again"
        )
