"""What may travel as a model: ONNX graphs, their weights, tokenizer and config, as `edgecap export` writes them.

Pickles and Python files are none of these, so that no model that is sent holds code. Both sides ask here: the client
before it sends, a device before it asks for the first file.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import msgspec

from edgecap.errors import UsageError
from edgecap.graph.export import CONFIG_FILES
from edgecap.model.manifest import manifest_files
from edgecap.record import File
from edgecap.spec import PRECISIONS

WEIGHTS = (".onnx", ".data", ".onnx_data")  # of a graph and what lies beside it
MOST_FILES = 4096  # a large model has a few hundred, where each tensor is a file
MOST_LETTERS = 4_000_000  # of a manifest


def model_files(manifest: str) -> tuple[File, ...]:
    """Every file of a model by its path in the folder.

    Raises UsageError where the manifest is none, or lists what is no part of an export.
    """
    if len(manifest) > MOST_LETTERS:
        raise UsageError("the manifest is too large for one")
    try:
        told = msgspec.json.decode(manifest)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UsageError(f"the manifest is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise UsageError("the manifest is no object")
    files = manifest_files(told)
    if len(files) > MOST_FILES:
        raise UsageError(f"the manifest lists {len(files)} files; a model has {MOST_FILES} at most")
    for file in files:
        _check(file)
    if len({file.path.lower() for file in files}) != len(files):
        raise UsageError("the manifest lists a file twice")
    return files


def _check(file: File) -> None:
    path = PurePosixPath(file.path)
    beside = len(path.parts) == 1 and path.name in CONFIG_FILES
    graph = len(path.parts) == 2 and path.parts[0] in PRECISIONS and path.suffix in WEIGHTS
    if not beside and not graph:
        raise UsageError(
            f"a manifest lists {file.path[:100]!r}: only ONNX graphs ({', '.join(WEIGHTS)}), tokenizer and config travel"
        )
