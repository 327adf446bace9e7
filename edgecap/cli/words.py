"""How commands print: JSON on standard output, text as wide as the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import click


def print_json(value: Any) -> None:
    """A value for programs."""
    click.echo(as_json(value))


def as_json(value: Any) -> str:
    """JSON as it is printed, one key a line."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode()


def put(text: str, output: Path | None) -> None:
    """Prints a result, or writes it to a file, without colours and with a line end."""
    if output is None:
        print_text(text)
    else:
        output.write_text(f"{click.unstyle(text)}\n", "utf-8")


def width() -> int:
    """Columns to wrap text at: the terminal's, 100 where there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 100


def print_text(text: str) -> None:
    """A result; colours only where a terminal shows them and NO_COLOR does not forbid it."""
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)
