"""Make names from models, machines and records safe for file systems and terminals."""

from __future__ import annotations

import re


def safe_filename(name: str) -> str:
    """Reduce a name to at most 80 letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "unnamed"


def printable(text: str) -> str:
    """Replace characters that a terminal could act on with question marks."""
    return "".join(c if c.isprintable() else "?" for c in text)
