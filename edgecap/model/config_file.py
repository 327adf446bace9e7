"""Read the JSON objects in a model folder: `config.json` and files like it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgecap.errors import UsageError
from edgecap.storage.files import json_text


def read_json_object(file: Path) -> dict[str, Any]:
    """Read a JSON object from a UTF-8 file. Raise UsageError if it cannot be read or is not one."""
    try:
        value = json.loads(json_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{file} is not a JSON object")
    return value


def read_folder_config(folder: Path, required: bool) -> dict[str, Any]:
    """Read `config.json` of a folder, or return an empty config if there is none.

    Raise UsageError if the file is `required` and missing, or is not a JSON object.
    """
    file = folder / "config.json"
    if file.is_file():
        return read_json_object(file)
    if required:
        raise UsageError(f"{folder} is not a model folder: no config.json and no .onnx file in it")
    return {}
