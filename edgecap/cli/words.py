"""How commands print: JSON on standard output, text as wide as the terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

import click


def print_json(value: Any) -> None:
    """A value for programs."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def width() -> int:
    """Columns to wrap text at: the terminal's, 100 where there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 100


def print_text(text: str) -> None:
    """A result; colours only where a terminal shows them and NO_COLOR does not forbid it."""
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)
