"""How commands print: JSON on standard output, text as wide as the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

GENERATED = '<meta name="generator" content="edgecap">'  # what a page of edgecap's begins with


def print_json(value: Any) -> None:
    """A value for programs."""
    click.echo(to_json(value))


def to_json(value: Any) -> str:
    """JSON as it is printed, one key a line."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode()


def print_or_write(text: str, output: Path | None, inputs: Iterable[Path] = ()) -> None:
    """Prints a result, or writes it to a file, without colours and with a line end."""
    if output is None:
        print_text(text)
    else:
        write(output, f"{click.unstyle(text)}\n", inputs)


def write(output: Path, text: str, inputs: Iterable[Path] = (), mark: str | None = None) -> None:
    """Writes a result at once or not at all; through a link, and into what is no file (a pipe, a device).

    Raises UsageError as `check_output` does.
    """
    from edgecap.errors import UsageError
    from edgecap.storage.files import write_atomically

    check_output(output, {"one of the records": inputs}, mark)
    place = output.resolve()
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
    """Tells now what `write` would refuse later; `inputs` are files that are read, by what they are.

    Raises UsageError where `output` is a folder, one of the inputs, or, where a `mark` is given, a file that does
    not begin with it, so that nothing but a former result is written over.
    """
    from edgecap.errors import UsageError

    place = output.resolve()
    what = next(
        (what for what, paths in inputs.items() if place in {path.resolve() for path in paths}),
        None,
    )
    if what:
        raise UsageError(f"{option} {output} is {what}; give another file")
    if place.is_dir():
        raise UsageError(f"cannot write {output}: it is a folder; give another file")
    try:
        foreign = mark is not None and place.is_file() and not _begins(place, mark)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}") from error
    if foreign:
        raise UsageError(
            f"{output} is there, and no former result of this command: move it away, or give another {option}"
        )


def _begins(path: Path, mark: str) -> bool:
    """Whether a file has the mark within its first characters; an empty one is free."""
    with path.open("rb") as file:
        beginning = file.read(1000).decode("utf-8", "replace")
    return not beginning or mark in beginning


def width() -> int:
    """Columns to wrap text at: the terminal's, 100 where there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 100


def print_text(text: str) -> None:
    """A result; colours only where a terminal shows them and NO_COLOR does not forbid it."""
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)
