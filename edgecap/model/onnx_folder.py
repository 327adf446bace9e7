"""ONNX graphs of a folder: those listed in its manifest, or one that was found or chosen.

Without a manifest one graph is measured: `model.onnx`, that of the subfolder `onnx`, or the only
one there is. Where others lie beside it, a path to an .onnx file chooses.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from edgecap.errors import UsageError
from edgecap.model.checkpoint import has_checkpoint
from edgecap.model.manifest import MANIFEST, OnnxFile, listed_graphs
from edgecap.names import shortened_list
from edgecap.storage.files import link_note

PREFERRED = "model.onnx"
_HOME_FILES = ("config.json", "genai_config.json", MANIFEST)


def has_graphs(folder: Path) -> bool:
    """Return True if a folder is to be read as ONNX graphs.

    Safetensors that transformers would load take precedence over graphs in the subfolder `onnx`.
    """
    if (folder / MANIFEST).is_file() or _graphs_in(folder):
        return True
    return bool(_graphs_in(folder / "onnx")) and not has_checkpoint(folder)


def onnx_files(folder: Path, chosen: Path | None = None) -> list[OnnxFile]:
    """Return the graphs of a folder to measure, all files of its manifest checked by hash.

    Without a manifest that is the chosen graph, or one by the rule above. Raise UsageError if a
    listed file is missing or changed, or if it takes a choice.
    """
    if (folder / MANIFEST).is_file():
        return _of_manifest(folder, chosen)
    path = chosen or _choose(folder)
    if path is None:
        return []
    if not path.is_file():
        raise UsageError(f"{path} cannot be read{link_note(path)}")
    exporter = "genai" if (folder / "genai_config.json").is_file() else "onnx"
    return [OnnxFile(path=path, precision=None, exporter=exporter, recipe="as found")]


def onnx_graphs(where: Path) -> list[OnnxFile]:
    """Return the graphs of a folder, or one file as a graph. Raise UsageError if there are none."""
    if where.is_file():
        return [OnnxFile(path=where, precision=None, exporter="onnx", recipe="as found")]
    graphs = onnx_files(where) if where.is_dir() else []
    if not graphs:
        problem = "holds no .onnx file" if where.is_dir() else f"is not there{link_note(where)}"
        raise UsageError(f"{where} {problem}; give an ONNX file or a folder with one")
    return graphs


def unmeasured_graphs(folder: Path, measured: Iterable[Path]) -> tuple[str, ...]:
    """Return the graphs of a folder that are not among the `measured`, by relative path."""
    used = {os.path.abspath(path) for path in measured}
    found = [*_graphs_in(folder), *(g for f in _subfolders(folder) for g in _graphs_in(f))]
    return tuple(
        sorted(g.relative_to(folder).as_posix() for g in found if os.path.abspath(g) not in used)
    )


def home_of(graphs: Path) -> Path:
    """Return the folder of the model that a folder of graphs belongs to: itself, or that above.

    Repositories keep `config.json` above `onnx/`, and `edgecap export` above its graphs.
    """
    above = Path(os.path.abspath(graphs)).parent
    if any((graphs / name).is_file() for name in (*_HOME_FILES, "tokenizer.json")):
        return graphs
    return above if any((above / name).is_file() for name in _HOME_FILES) else graphs


def _of_manifest(folder: Path, chosen: Path | None) -> list[OnnxFile]:
    listed = listed_graphs(folder)
    same = [g for g in listed if chosen and os.path.abspath(g.path) == os.path.abspath(chosen)]
    if chosen and not same:
        raise UsageError(f"{folder / MANIFEST} does not list {chosen}; give one that it lists")
    return same or listed


def _choose(folder: Path) -> Path | None:
    """Return the graph to measure, None without graphs. Raise UsageError if it is not clear."""
    found = [*_graphs_in(folder), *_graphs_in(folder / "onnx")]
    preferred = [path for path in found if path.name == PREFERRED]
    if len(found) > 1 and not preferred:
        names = [path.relative_to(folder).as_posix() for path in found]
        raise UsageError(
            f"{folder} holds {len(found)} graphs and no {PREFERRED}: {shortened_list(names)}; "
            f"give one of them, as {found[0]}"
        )
    return next(iter(preferred or found), None)


def _graphs_in(folder: Path) -> list[Path]:
    """Return the .onnx files of a folder by name, links that lead nowhere too."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".onnx"))
    except OSError:
        return []
    paths = [folder / name for name in names]
    return [path for path in paths if path.is_file() or link_note(path)]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
