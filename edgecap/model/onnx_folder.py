"""ONNX graphs of a folder: those listed in its manifest, or the one .onnx file found."""

from __future__ import annotations

from pathlib import Path

from edgecap.errors import UsageError
from edgecap.model.manifest import MANIFEST, OnnxFile, listed_graphs

_GRAPHS = ("*.onnx", "onnx/*.onnx")


def has_graphs(folder: Path) -> bool:
    """Return True if a folder is to be read as ONNX graphs.

    Safetensors in the folder take precedence over an export in its subfolder `onnx`.
    """
    if (folder / MANIFEST).is_file() or any(folder.glob("*.onnx")):
        return True
    return any(folder.glob("onnx/*.onnx")) and not any(folder.glob("*.safetensors"))


def onnx_files(folder: Path) -> list[OnnxFile]:
    """Return the decoder graphs of a folder, all files of its manifest checked by hash.

    Without a manifest: `model.onnx`, else the first .onnx file. Raise UsageError if a listed file
    is missing or changed.
    """
    if (folder / MANIFEST).is_file():
        return listed_graphs(folder)
    candidates = sorted(p for pattern in _GRAPHS for p in folder.glob(pattern))
    preferred = [p for p in candidates if p.name == "model.onnx"]
    chosen = (preferred or candidates)[:1]
    exporter = "genai" if (folder / "genai_config.json").is_file() else "onnx"
    return [OnnxFile(path=p, precision=None, exporter=exporter, recipe="as found") for p in chosen]


def onnx_graphs(where: Path) -> list[OnnxFile]:
    """Return the graphs of a folder, or one file as a graph. Raise UsageError if there are none."""
    if where.is_file():
        return [OnnxFile(path=where, precision=None, exporter="onnx", recipe="as found")]
    graphs = onnx_files(where) if where.is_dir() else []
    if not graphs:
        problem = "holds no .onnx file" if where.is_dir() else "is not there"
        raise UsageError(f"{where} {problem}; give an ONNX file or a folder with one")
    return graphs
