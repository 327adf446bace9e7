"""Print and write the results of commands: JSON, text as wide as the terminal, files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

GENERATED = '<meta name="generator" content="edgecap">'  # marks a page that edgecap wrote


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    click.echo(to_json(value))


def to_json(value: Any) -> str:
    """Return a value as JSON, one key per line."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode()


def print_or_write(text: str, output: Path | None, inputs: Iterable[Path] = ()) -> None:
    """Print a result, or write it to a file without colours."""
    if output is None:
        print_text(text)
    else:
        write(output, f"{click.unstyle(text)}\n", inputs)


def write(output: Path, text: str, inputs: Iterable[Path] = (), mark: str | None = None) -> None:
    """Write a result atomically, to the target of a link; write pipes and devices in place.

    Raise UsageError as `check_output` does.
    """
    from edgecap.errors import UsageError
    from edgecap.storage.files import write_atomically

    check_output(output, {"one of the records": inputs}, mark)
    place = Path(os.path.realpath(output))
    try:
        if place.exists() and not place.is_file():
            with place.open("wb") as stream:
                stream.write(text.encode())
            return
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}") from error
    write_atomically(place, text.encode())


def check_output(
    output: Path, inputs: Mapping[str, Iterable[Path]], mark: str | None = None, option: str = "-o"
) -> None:
    """Raise UsageError if `write` would refuse `output`, before any work is done.

    Refused are a folder, a file of `inputs` (paths by their description), and, with a `mark`, an
    existing file without the mark near its start: only an earlier result is overwritten.
    """
    from edgecap.errors import UsageError

    place = Path(os.path.realpath(output))
    for description, paths in inputs.items():
        if str(place) in map(os.path.realpath, paths):
            raise UsageError(f"{option} {output} is {description}; give another file")
    if place.is_dir():
        raise UsageError(f"cannot write {output}: it is a folder; give another file")
    try:
        is_foreign = mark is not None and place.is_file() and not _has_mark(place, mark)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}") from error
    if is_foreign:
        raise UsageError(
            f"{output} exists and is not a result of this command: move it, "
            f"or give another {option}"
        )


def _has_mark(path: Path, mark: str) -> bool:
    """Return True if the mark is within the first 1000 bytes, or the file is empty."""
    with path.open("rb") as file:
        beginning = file.read(1000).decode("utf-8", "replace")
    return not beginning or mark in beginning


def width() -> int:
    """Return the columns to wrap text at: COLUMNS, else those of the terminal, else 80."""
    return shutil.get_terminal_size().columns


def print_text(text: str) -> None:
    """Print a result, with colours on a terminal unless NO_COLOR is set."""
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)
