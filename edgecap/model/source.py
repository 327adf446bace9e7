"""Finds the model that was asked for. Owns huggingface_hub; runs no code from any model.

A model is a shipped reference model by name, a Hub id `org/name[@revision]`, a Hugging Face folder,
or a folder with ONNX graphs (from `edgecap export`, Optimum or the onnxruntime-genai builder).
Making graphs is left to `export`, reading the architecture to `architecture`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgecap.errors import UsageError, did_you_mean
from edgecap.record import File
from edgecap.storage import hub
from edgecap.storage.files import sha256_of, sha256_of_file

MANIFEST = "edgecap.json"
HUB_FILES = [
    "*.json",
    "*.safetensors",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "*.tiktoken",
    "merges.txt",
    "vocab.txt",
]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?\Z")
_BUFFERS = re.compile(
    r"(^|\.)(attn|attention|self_attn)\.(masked_)?bias\Z|rotary_emb\.inv_freq\Z|embeddings\.position_ids\Z"
)
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_][\w.-]{0,99}(/[A-Za-z0-9_][\w.-]{0,99})?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GRAPHS = ("*.onnx", "onnx/*.onnx")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spm.model",
)


class Located(msgspec.Struct, frozen=True):
    """A model on this disk: `kind` is reference, hub, folder or onnx; `config` its parsed config.json.

    `genai` is the parsed genai_config.json of the onnxruntime-genai builder, which leaves no config.json.
    """

    name: str
    kind: str
    path: Path
    revision: str | None
    config: dict[str, Any]
    genai: dict[str, Any] = {}


class OnnxFile(msgspec.Struct, frozen=True):
    """An ONNX file of a folder, and what the folder's manifest says of it: precision and checked files."""

    path: Path
    precision: str | None
    exporter: str
    recipe: str
    files: tuple[File, ...] = ()


def locate(model: str, revision: str | None = None, shipped: Path | None = None) -> Located:
    """The model on this disk, downloaded if it is on the Hub.

    Raises UsageError where there is none, it is not a model, or it cannot be fetched.
    """
    try:
        model.encode()
        folder = Path(model).expanduser()
        is_folder, is_file = folder.is_dir(), folder.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--model is no usable name: {error.__class__.__name__}; give a name, a folder or a Hub id"
        ) from error
    if is_folder:
        if revision:
            raise UsageError(f"--revision is for models on the Hub; {model} is a folder")
        return _folder(folder.resolve().name, folder, None)
    if is_file:
        raise UsageError(f"{model} is a file; give the folder of a model")
    names = {path.name: path for path in reference_models(shipped)}
    if model in names:
        return _folder(model, names[model], None, kind="reference")
    return _from_hub(model, revision, list(names))


SERIES = "edgecap-ref"


def models_named(text: str) -> tuple[str, ...]:
    """The models of a list with commas; `edgecap-ref` is every reference model, smallest first. A folder is one model."""
    if os.path.isdir(text):  # which takes any length
        return (text,)
    names = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(dict.fromkeys(name for part in names for name in meant_by(part)))


def meant_by(name: str) -> tuple[str, ...]:
    """The models that one name means: the reference series its members, anything else itself, a folder too."""
    return members() if name == SERIES and not os.path.isdir(name) else (name,)


def members() -> tuple[str, ...]:
    """The names of the reference series, smallest first."""
    return tuple(path.name for path in reference_models())


def on_the_hub(model: str) -> bool:
    """Whether a name is a Hub id: neither a folder or file here nor a reference model. Fetches nothing."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        if Path(model).expanduser().exists():
            return False
    return model not in {path.name for path in reference_models()} and _is_hub_id(
        model.partition("@")[0]
    )


def reference_models(shipped: Path | None = None) -> list[Path]:
    """The folders of the reference models that came with edgecap, smallest first."""
    package = Path(__file__).parents[1]
    roots = [shipped] if shipped else [package / "data" / "models", package.parent / "models"]
    found = {
        p.parent.name: p.parent
        for root in roots
        for p in sorted(root.glob("edgecap-ref-*/config.json"))
    }
    return sorted(
        found.values(), key=lambda p: sum(f.stat().st_size for f in p.glob("*.safetensors"))
    )


def _folder(name: str, path: Path, revision: str | None, kind: str = "folder") -> Located:
    if _has_graphs(path):
        genai = (
            _json_object(path / "genai_config.json")
            if (path / "genai_config.json").is_file()
            else {}
        )
        return Located(name, "onnx", path, revision, _config(path, needed=False), genai)
    config = _config(path, needed=True)
    if not list(path.glob("*.safetensors")):
        have = (
            "only pickled weights, which can run code"
            if list(path.glob("*.bin"))
            else "no .safetensors and no .onnx file"
        )
        raise UsageError(
            f"{path} holds {have}; give a folder with config.json and safetensors, or an ONNX export"
        )
    return Located(name, kind, path, revision, config)


def _config(path: Path, needed: bool) -> dict[str, Any]:
    file = path / "config.json"
    if file.is_file():
        return _json_object(file)
    if needed:
        raise UsageError(f"{path} is not a model folder: no config.json and no .onnx file in it")
    return {}


def _json_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{file} is not a JSON object")
    return value


def read_config(name: str, revision: str | None = None) -> tuple[str, dict[str, Any], str]:
    """A model's name, its parsed config, and where that stands: a file, a folder, a reference model or a Hub id.

    Needs no weights. Raises UsageError where there is no config, or it is not a JSON object.
    """
    path = Path(name).expanduser()
    named = {p.name: p for p in reference_models()}
    if path.is_file():
        named_so = path.resolve()
        return (
            named_so.parent.name if named_so.name == "config.json" else named_so.stem,
            _json_object(path),
            str(path),
        )
    if path.is_dir() or name in named:
        folder = path if path.is_dir() else named[name]
        return folder.resolve().name, _config(folder, needed=True), str(folder / "config.json")
    hub_id, revision = _hub_id(name, revision, list(named))
    file = hub.fetch_model(hub_id, revision, ["config.json"]) / "config.json"
    return hub_id, _json_object(file), str(file)


def find_tokenizer(name: str) -> Path:
    """The folder with a model's tokenizer, by folder, reference name or Hub id; no weights are needed or fetched.

    Raises UsageError where there is none.
    """
    folder, named = Path(name).expanduser(), {p.name: p for p in reference_models()}
    if not folder.is_dir() and name not in named:
        if folder.is_file():
            raise UsageError(f"{name} is a file; give the folder that holds tokenizer.json")
        hub_id, revision = _hub_id(name, None, list(named))
        return hub.fetch_model(
            hub_id, revision, [*TOKENIZER_FILES, "config.json", "generation_config.json"]
        )
    found = folder if folder.is_dir() else named[name]
    if not (found / "tokenizer.json").is_file():
        raise UsageError(
            f"{found} has no tokenizer.json, the file of a fast tokenizer; give a folder that has one"
        )
    return found


# --- folders with ONNX graphs -----------------------------------------------------------------


def _has_graphs(folder: Path) -> bool:
    """Whether the folder is one of graphs: weights at its root rule over exports in a subfolder."""
    if (folder / MANIFEST).is_file() or any(folder.glob("*.onnx")):
        return True
    return any(folder.glob("onnx/*.onnx")) and not any(folder.glob("*.safetensors"))


def onnx_files(folder: Path) -> list[OnnxFile]:
    """The decoder graphs of a folder: what its manifest lists, else `model.onnx` or the one .onnx file."""
    manifest = folder / MANIFEST
    if manifest.is_file():
        return _listed(folder, manifest)
    candidates = sorted(p for pattern in _GRAPHS for p in folder.glob(pattern))
    preferred = [p for p in candidates if p.name == "model.onnx"]
    chosen = (preferred or candidates)[:1]
    maker = "genai" if (folder / "genai_config.json").is_file() else "onnx"
    return [OnnxFile(path=p, precision=None, exporter=maker, recipe="as found") for p in chosen]


def onnx_graphs(where: Path) -> list[OnnxFile]:
    """The graphs of a folder, or one file. Raises UsageError where there are none."""
    if where.is_file():
        return [OnnxFile(path=where, precision=None, exporter="onnx", recipe="as found")]
    found = onnx_files(where) if where.is_dir() else []
    if not found:
        raise UsageError(
            f"{where} {'holds no .onnx file' if where.is_dir() else 'is not there'}; give an ONNX file or folder"
        )
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder made by `edgecap export`, or an empty one."""
    path = folder / MANIFEST
    return _parse_manifest(path) if path.is_file() else {}


def _parse_manifest(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
        return {**value, "graphs": list(value["graphs"]), "source": dict(value["source"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{path} is not a manifest of edgecap export: {type(error).__name__} {error}"
        ) from error


def _listed(folder: Path, manifest: Path) -> list[OnnxFile]:
    """The graphs of a manifest, every file checked, tokenizer and config too."""
    told = _parse_manifest(manifest)
    try:
        for file in msgspec.convert(told.get("files", ()), tuple[File, ...]):
            _check_file(folder, file.path, file.bytes, file.sha256)
        return [_listed_graph(folder, graph) for graph in told["graphs"]]
    except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
        raise UsageError(
            f"{manifest} is not a manifest of edgecap export: {type(error).__name__} {error}"
        ) from error


def manifest_files(told: dict[str, Any]) -> tuple[File, ...]:
    """Every file that a manifest lists, by its path in the folder.

    Raises UsageError where one is not a plain path below the folder: what a manifest says is not trusted.
    """
    try:
        beside = msgspec.convert(told.get("files", ()), tuple[File, ...])
        graphs = [
            msgspec.structs.replace(file, path=f"{graph['folder']}/{file.path}")
            for graph in told["graphs"]
            for file in msgspec.convert(graph["files"], tuple[File, ...])
        ]
    except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
        raise UsageError(
            f"that is not a manifest of edgecap export: {type(error).__name__} {error}"
        ) from error
    for file in (*beside, *graphs):
        if (
            not _PLAIN_PATH.fullmatch(file.path)
            or file.bytes < 0
            or not _SHA256.fullmatch(file.sha256)
        ):
            raise UsageError(
                f"a manifest lists {file.path[:100]!r}, which is no plain file below its folder"
            )
    return (*beside, *graphs)


def _listed_graph(folder: Path, graph: dict[str, Any]) -> OnnxFile:
    files = msgspec.convert(graph["files"], tuple[File, ...])
    for file in files:
        _check_file(folder, f"{graph['folder']}/{file.path}", file.bytes, file.sha256)
    path = folder / graph["folder"] / "model.onnx"
    return OnnxFile(
        path, str(graph["precision"]), str(graph["exporter"]), str(graph["recipe"]), files
    )


def _check_file(folder: Path, name: str, size: int, sha256: str) -> None:
    path = Path(os.path.normpath((folder / name).absolute()))
    if not path.is_relative_to(os.path.normpath(folder.absolute())):
        raise UsageError(f"{folder / MANIFEST} points outside its folder: {name}")
    if not path.is_file():
        raise UsageError(f"{folder} is incomplete: {name} is missing")
    if path.stat().st_size != size or sha256_of_file(path) != sha256:
        raise UsageError(
            f"{path} is not what {MANIFEST} says: it was changed or cut short; export it again"
        )


# --- hashes and sizes -------------------------------------------------------------------------


class Hashes(msgspec.Struct, frozen=True):
    """What a model is, whatever it is called: one hash of its weights, one of its tokenizer."""

    weights: str
    tokenizer: str


def hashes(located: Located, graphs: Sequence[File] = ()) -> Hashes:
    """Reads every byte of the weights, but for those of `graphs`, whose files are hashed already: call it once."""
    return Hashes(
        weights=_weights_sha256(located, graphs), tokenizer=tokenizer_sha256(located.path)
    )


def _weights_sha256(located: Located, graphs: Sequence[File]) -> str:
    """One hash over the files of the graphs, or over the model's weight files in the order of their names."""
    claimed = read_manifest(located.path).get("source", {}).get("weights_sha256")
    if claimed:
        return str(claimed)
    found = [f.sha256 for f in graphs] or [sha256_of_file(p) for p in weight_files(located.path)]
    return sha256_of(*(h.encode() for h in found))


def tokenizer_sha256(folder: Path) -> str:
    """One hash over the files that define the tokenizer, or what the manifest says of the original's."""
    claimed = read_manifest(folder).get("source", {}).get("tokenizer_sha256")
    if claimed:
        return str(claimed)
    files = [folder / name for name in TOKENIZER_FILES]
    return sha256_of(*(p.name.encode() + p.read_bytes() for p in files if p.is_file()))


def count_parameters(folder: Path) -> int | None:
    """Numbers in the safetensors files, from their headers alone; None where there are none."""
    claimed = read_manifest(folder).get("source", {}).get("parameters")
    if isinstance(claimed, int):
        return claimed
    files = weight_files(folder)
    return sum(_numbers_in(p) for p in files) if files else None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model: what the index lists, else the one, else all."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_json_object(index).get("weight_map", {}).values()))
        files = [folder / str(name) for name in names]
        missing = [f.name for f in files if not f.is_file() or f.parent != folder]
        if missing:
            raise UsageError(f"{folder} is incomplete: {', '.join(missing[:3])} is missing")
        return files
    single = folder / "model.safetensors"
    return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))


def _numbers_in(path: Path) -> int:
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
        if not 0 < length <= path.stat().st_size:
            raise UsageError(f"{path} is not a safetensors file, or cut short")
        try:
            header = json.loads(file.read(length))
            tensors = [t for name, t in header.items() if name != "__metadata__"]
            end = max((int(t["data_offsets"][1]) for t in tensors), default=0)
            numbers = sum(
                math.prod(map(int, t["shape"])) for name, t in header.items() if _is_parameter(name)
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"{path} is not a safetensors file: {error}") from error
    if path.stat().st_size < 8 + length + end:
        raise UsageError(f"{path} is cut short: {path.stat().st_size} bytes of {8 + length + end}")
    return numbers


def _is_parameter(name: str) -> bool:
    """Not the header's own entry, and not a buffer that old checkpoints store beside the weights."""
    return name != "__metadata__" and not _BUFFERS.search(name)


# --- the Hub ----------------------------------------------------------------------------------


def _from_hub(model: str, revision: str | None, reference_names: list[str]) -> Located:
    name, wanted = _hub_id(model, revision, reference_names)
    path = hub.fetch_model(name, wanted, HUB_FILES)
    located = _folder(name, path, path.name)
    return msgspec.structs.replace(located, kind="hub") if located.kind != "onnx" else located


def _hub_id(model: str, revision: str | None, reference_names: list[str]) -> tuple[str, str | None]:
    """`org/name` and the revision wanted. Raises UsageError where the name is none."""
    name, _, pinned = model.partition("@")
    if not _is_hub_id(name):
        hint = did_you_mean(model, reference_names)
        raise UsageError(
            f"no model '{model}': no such folder, and not a reference model ({', '.join(reference_names) or 'none shipped'})"
            f"{hint} or a Hub id (org/name)"
        )
    return name, revision or pinned or None


def _is_hub_id(name: str) -> bool:
    return (
        not name.startswith((".", "/", "~")) and bool(_HUB_ID.match(name)) and name.count("/") == 1
    )
