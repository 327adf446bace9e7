"""Manifest of a model that travels: ONNX graphs, weights, tokenizer and config of `edgecap export`.

Pickles and Python files are refused, so that no transferred model contains code. Both sides check:
the client before it sends, the device before it requests the first file.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import msgspec

from edgecap.errors import UsageError
from edgecap.graph.export import CONFIG_FILES
from edgecap.model.manifest import manifest_files
from edgecap.record import File
from edgecap.spec import PRECISIONS

WEIGHTS = (".onnx", ".data", ".onnx_data")  # suffixes of graphs and external data
MOST_FILES = 4096  # a large model with one file per tensor has a few hundred
MOST_LETTERS = 4_000_000  # characters of a manifest


def model_files(manifest: str) -> tuple[File, ...]:
    """Return the files that a manifest lists, by their path in the folder.

    Raise UsageError if the manifest is invalid or lists a file that is not part of an export.
    """
    if len(manifest) > MOST_LETTERS:
        raise UsageError("the manifest is too large")
    try:
        content = msgspec.json.decode(manifest)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UsageError(f"the manifest is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError("the manifest is not a JSON object")
    files = manifest_files(content)
    if len(files) > MOST_FILES:
        raise UsageError(f"the manifest lists {len(files)} files; the limit is {MOST_FILES}")
    for file in files:
        _check(file)
    if len({file.path.lower() for file in files}) != len(files):
        raise UsageError("the manifest lists a file twice")
    return files


def _check(file: File) -> None:
    path = PurePosixPath(file.path)
    beside = len(path.parts) == 1 and path.name in CONFIG_FILES
    suffix = re.sub(r"_\d+\Z", "", path.suffix)  # .onnx_data_1 is a second file of weights
    graph = len(path.parts) == 2 and path.parts[0] in PRECISIONS and suffix in WEIGHTS
    if not beside and not graph:
        raise UsageError(
            f"a manifest lists {file.path[:100]!r}: "
            f"only ONNX graphs ({', '.join(WEIGHTS)}), tokenizer and config may be transferred"
        )
