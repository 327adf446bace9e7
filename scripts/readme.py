#!/usr/bin/env python3
"""Writes the README's tables from a committed record: python scripts/readme.py profiles/RECORD.json"""

import re
import sys
from pathlib import Path

import click

import edgecap
from edgecap.report.comparing import comparison
from edgecap.report.tables import show

README = Path(__file__).parent.parent / "README.md"


def as_text(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in click.unstyle(text).splitlines())


def fill(text: str, name: str, block: str) -> str:
    return re.sub(
        rf"(<!-- {name}[^\n]*-->\n).*?(<!-- /{name} -->)", lambda m: f"{m[1]}{block}\n{m[2]}", text, flags=re.DOTALL
    )


def main() -> None:
    path = Path(sys.argv[1])
    record = edgecap.load(path)
    int8 = next(c for c in edgecap.compare([record], "precision=fp16") if c.candidate == "int8")
    text = fill(README.read_text(), "profile", f"    $ edgecap profile\n{as_text(show(record))}")
    text = fill(text, "compare", f"    $ edgecap compare {path} --baseline precision=fp16\n{as_text(comparison(int8))}")
    README.write_text(text)


if __name__ == "__main__":
    main()
