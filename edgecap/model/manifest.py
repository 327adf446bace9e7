"""Read the manifest that `edgecap export` writes beside its graphs, and check the files it lists.

A manifest may come from another machine, so its paths, sizes and hashes are not trusted.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec

from edgecap.errors import UsageError
from edgecap.record import Absent, File
from edgecap.storage.files import link_note, sha256_of_file

MANIFEST = "edgecap.json"
NOT_COMPARED = Absent(reason="the folder holds graphs without the model's own weights")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_][\w.-]{0,99}(/[A-Za-z0-9_][\w.-]{0,99})?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INVALID = (IndexError, KeyError, TypeError, ValueError, msgspec.ValidationError)


class OnnxFile(msgspec.Struct, frozen=True):
    """An ONNX graph of a folder.

    `precision`, checked `files` and fidelity (see `record.Graph`) come from its manifest, if any.
    """

    path: Path
    precision: str | None
    exporter: str
    recipe: str
    files: tuple[File, ...] = ()
    fidelity_bits: float | Absent = NOT_COMPARED
    fidelity: dict[str, float | Absent] = {}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a folder, or return an empty one if there is none.

    Raise UsageError if the file is not a manifest.
    """
    path = folder / MANIFEST
    return _parse(path) if path.is_file() else {}


def _parse(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
        return {**value, "graphs": list(value["graphs"]), "source": dict(value["source"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _not_a_manifest(path, error) from error


def _not_a_manifest(what: object, error: Exception) -> UsageError:
    return UsageError(
        f"{what} is not a manifest of edgecap export: {type(error).__name__} {error}; "
        "export the model again"
    )


def listed_graphs(folder: Path) -> list[OnnxFile]:
    """Return the graphs that a folder's manifest lists, after hashing every listed file.

    Raise UsageError if a file is missing, changed or outside the folder; tokenizer and config
    files are checked as well.
    """
    manifest = read_manifest(folder)
    try:
        for file in msgspec.convert(manifest.get("files", ()), tuple[File, ...]):
            _check_file(folder, file.path, file)
        return [_listed_graph(folder, graph) for graph in manifest["graphs"]]
    except _INVALID as error:
        raise _not_a_manifest(folder / MANIFEST, error) from error


def _listed_graph(folder: Path, graph: dict[str, Any]) -> OnnxFile:
    files = msgspec.convert(graph["files"], tuple[File, ...])
    for file in files:
        _check_file(folder, f"{graph['folder']}/{file.path}", file)
    return OnnxFile(
        folder / graph["folder"] / files[0].path,
        str(graph["precision"]),
        str(graph["exporter"]),
        str(graph["recipe"]),
        files,
        msgspec.convert(graph.get("fidelity_bits", NOT_COMPARED), float | Absent),
        msgspec.convert(graph.get("fidelity", {}), dict[str, float | Absent]),
    )


def _check_file(folder: Path, name: str, expected: File) -> None:
    path = Path(os.path.normpath((folder / name).absolute()))
    if not path.is_relative_to(os.path.normpath(folder.absolute())):
        raise UsageError(f"{folder / MANIFEST} points outside its folder: {name}")
    if not path.is_file():
        raise UsageError(
            f"{folder} is incomplete: {name} is missing{link_note(path)}; export the model again"
        )
    if path.stat().st_size != expected.bytes or sha256_of_file(path) != expected.sha256:
        raise UsageError(
            f"{path} is not what {MANIFEST} says: it was changed or cut short; export it again"
        )


def manifest_files(manifest: dict[str, Any]) -> tuple[File, ...]:
    """Return every file that a manifest lists, with its path relative to the folder.

    Raise UsageError if a path is not a plain path below the folder. Reads no file.
    """
    try:
        beside = msgspec.convert(manifest.get("files", ()), tuple[File, ...])
        graphs = [
            msgspec.structs.replace(file, path=f"{graph['folder']}/{file.path}")
            for graph in manifest["graphs"]
            for file in msgspec.convert(graph["files"], tuple[File, ...])
        ]
    except _INVALID as error:
        raise _not_a_manifest("the manifest", error) from error
    for file in (*beside, *graphs):
        if not _is_plain(file):
            raise UsageError(
                f"a manifest lists {file.path[:100]!r}, which is not a plain file below its folder"
            )
    return (*beside, *graphs)


def _is_plain(file: File) -> bool:
    return bool(
        _PLAIN_PATH.fullmatch(file.path) and file.bytes >= 0 and _SHA256.fullmatch(file.sha256)
    )
