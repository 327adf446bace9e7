"""Find a model on this disk, or download it from the Hugging Face Hub. Runs no code of a model.

A model is the name of a reference model, a Hub id `org/name[@revision]`, a Hugging Face folder, or
a folder with ONNX graphs (from `edgecap export`, Optimum or the onnxruntime-genai builder), or one
.onnx file of such a folder. A folder in the Hub's cache has the name of its repository.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import msgspec

from edgecap.errors import UsageError, did_you_mean
from edgecap.model.checkpoint import check_checkpoint, check_no_adapter
from edgecap.model.config_file import read_folder_config, read_json_object
from edgecap.model.onnx_folder import has_graphs, home_of, onnx_files
from edgecap.model.reference_models import reference_models
from edgecap.storage import hub
from edgecap.storage.files import link_note, require_regular_file

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
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?\Z")


class LocatedModel(msgspec.Struct, frozen=True):
    """A model on this disk: `kind` is reference, hub, folder or onnx; `config` its config.json.

    `genai` is the genai_config.json of the onnxruntime-genai builder, which writes no config.json.
    `graph` is the one graph that was chosen by its path.
    """

    name: str
    kind: str
    path: Path
    revision: str | None
    config: dict[str, Any]
    genai: dict[str, Any] = {}
    graph: Path | None = None

    @property
    def place(self) -> Path:
        """The folder, or the graph that was chosen, behind all links."""
        return (self.graph or self.path).resolve()


def locate(model: str, revision: str | None = None, shipped: Path | None = None) -> LocatedModel:
    """Return a model on this disk, downloaded first if it is on the Hub.

    `shipped` is the folder to search for reference models, by default that of edgecap. Raise
    UsageError if there is no such model, it is not a model, or it cannot be fetched.
    """
    try:
        model.encode()
        folder = Path(model).expanduser()
        is_folder, is_file = folder.is_dir(), folder.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--model is no usable name: {error.__class__.__name__}; "
            "give a name, a folder or a Hub id"
        ) from error
    if is_folder:
        if revision:
            raise UsageError(f"--revision is for models on the Hub; {model} is a folder")
        return _located_folder(folder)
    if is_file:
        return _located_graph(folder)
    if folder.suffix == ".onnx":
        raise UsageError(f"{model} is not there")
    references = _references(shipped)
    if model in references:
        return _located_in(model, None, references[model], kind="reference")
    return _from_hub(model, revision, list(references))


def _located_folder(folder: Path) -> LocatedModel:
    home = home_of(folder) if has_graphs(folder) else folder
    if home == folder:
        return _located_in(*name_of(folder), folder)
    graphs = onnx_files(folder)
    if len(graphs) != 1:
        return _located_in(*name_of(folder), folder)
    return _located_in(*name_of(home), home, graph=graphs[0].path)


def _located_graph(graph: Path) -> LocatedModel:
    """Describe the model of one graph. Raise UsageError if the file is none."""
    if graph.suffix != ".onnx":
        raise UsageError(f"{graph} is a file; give the folder of a model, or an .onnx file")
    home = home_of(graph.parent)
    return _located_in(*name_of(home), home, graph=graph)


def name_of(folder: Path) -> tuple[str, str | None]:
    """Return the name and the revision of a model in a folder.

    In the Hub's cache these are the repository's; elsewhere it is the name of the folder.
    """
    return hub.repository_of(folder) or (folder.resolve().name, None)


def _references(shipped: Path | None = None) -> dict[str, Path]:
    return {path.name: path for path in reference_models(shipped)}


def _located_in(
    name: str, revision: str | None, path: Path, kind: str = "folder", graph: Path | None = None
) -> LocatedModel:
    """Describe the model in a folder. Raise UsageError if it holds neither weights nor graphs."""
    for file in (*path.glob("*.*"), *path.glob("onnx/*")):
        if not file.is_dir() and not file.name.startswith("."):
            require_regular_file(file)
    check_no_adapter(path)
    _check_links(path)
    if graph or has_graphs(path):
        genai_config = path / "genai_config.json"
        genai = read_json_object(genai_config) if genai_config.is_file() else {}
        config = read_folder_config(path, required=False)
        return LocatedModel(name, "onnx", path, revision, config, genai, graph)
    config = read_folder_config(path, required=True)
    check_checkpoint(path, config)
    return LocatedModel(name, kind, path, revision, config)


def _check_links(folder: Path) -> None:
    """Raise UsageError if a file that describes the model is a link that leads nowhere."""
    for name in (*TOKENIZER_FILES, "config.json", "generation_config.json", "genai_config.json"):
        note = link_note(folder / name)
        if note:
            raise UsageError(f"{folder} is incomplete: {name} is missing{note}")


def read_config(name: str, revision: str | None = None) -> tuple[str, dict[str, Any], str]:
    """Return a model's name, its parsed config, and the path of that config.

    `name` is a config file, a folder, a reference model or a Hub id; no weights are needed or
    fetched. Raise UsageError if there is no config, or it is not a JSON object.
    """
    path = _expanded(name)
    references = _references()
    if path.is_file():
        model = name_of(path.parent)[0] if path.name == "config.json" else path.stem
        return model, read_json_object(path), str(path)
    if path.is_dir() or name in references:
        folder = path if path.is_dir() else references[name]
        check_no_adapter(folder)
        config = read_folder_config(folder, required=True)
        return name_of(folder)[0], config, str(folder / "config.json")
    hub_id, revision = _split_hub_id(name, revision, list(references))
    file = hub.fetch_model(hub_id, revision, ["config.json"]) / "config.json"
    return hub_id, read_json_object(file), str(file)


def find_tokenizer(name: str) -> Path:
    """Return the folder with the tokenizer of a folder, a reference model or a Hub id.

    No weights are needed or fetched. Raise UsageError if there is no tokenizer.
    """
    folder, references = _expanded(name), _references()
    if not folder.is_dir() and name not in references:
        if folder.is_file():
            raise UsageError(f"{name} is a file; give the folder that holds tokenizer.json")
        hub_id, revision = _split_hub_id(name, None, list(references))
        return hub.fetch_model(
            hub_id, revision, [*TOKENIZER_FILES, "config.json", "generation_config.json"]
        )
    folder = folder if folder.is_dir() else references[name]
    if not (folder / "tokenizer.json").is_file():
        raise UsageError(
            f"{folder} has no tokenizer.json, the file of a fast tokenizer; "
            "give a folder that has one"
        )
    return folder


def _expanded(name: str) -> Path:
    """Return a path with the home folder in place of ~; raise UsageError if that is not known."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{name}: the home folder is not known; give the whole path") from error


# --- the Hub ----------------------------------------------------------------------------------


def is_hub_model(model: str) -> bool:
    """Return True if a name is a Hub id and neither a local path nor a reference model.

    Fetches nothing.
    """
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        if Path(model).expanduser().exists():
            return False
    return model not in _references() and _is_hub_id(model.partition("@")[0])


def _from_hub(model: str, revision: str | None, reference_names: list[str]) -> LocatedModel:
    name, pinned = _split_hub_id(model, revision, reference_names)
    path = hub.fetch_model(name, pinned, HUB_FILES)
    located = _located_in(name, path.name, path)
    return msgspec.structs.replace(located, kind="hub") if located.kind != "onnx" else located


def _split_hub_id(
    model: str, revision: str | None, reference_names: list[str]
) -> tuple[str, str | None]:
    """Split `org/name@revision`; `revision` takes precedence. Raise UsageError if it is no id."""
    name, _, pinned = model.partition("@")
    require_regular_file(Path(model))
    if not _is_hub_id(name):
        hint = did_you_mean(model, reference_names)
        shipped = ", ".join(reference_names) or "none shipped"
        raise UsageError(
            f"no model '{model}': no such folder, and not a reference model ({shipped})"
            f"{hint} or a Hub id (org/name)"
        )
    return name, revision or pinned or None


def _is_hub_id(name: str) -> bool:
    return (
        not name.startswith((".", "/", "~")) and bool(_HUB_ID.match(name)) and name.count("/") == 1
    )
