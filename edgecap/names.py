"""Make text from models, machines, records and errors safe for files, terminals and pages."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

_BUFFERS = re.compile(
    r"(^|\.)(attn|attention|self_attn)\.((masked_)?bias|causal_mask)\Z"
    r"|rotary_emb\.inv_freq\Z|embeddings\.position_ids\Z"
)


def safe_filename(name: str) -> str:
    """Reduce a name to at most 80 letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "unnamed"


def printable(text: str) -> str:
    """Replace characters that a terminal could act on with question marks."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def one_line(text: object, most: int | None = None) -> str:
    """Return text, such as an error's message, in one line of at most `most` characters."""
    return " ".join(str(text).split())[:most]


def shortened(name: str, most: int = 90) -> str:
    """Return a name in one printable line of at most `most` characters; `…` marks a cut."""
    line = printable(name[: most + 1])
    return line if len(line) <= most else f"{line[: most - 1]}…"


def shortened_list(names: Sequence[str], most: int = 6) -> str:
    """Return the first names of a list, with commas, and how many are left out."""
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")


def shortened_unique(text: str, most: int = 160) -> str:
    """Return text in one printable line of at most `most` characters.

    A cut line ends in a checksum of the whole text, so that different texts stay different.
    """
    line = printable(one_line(text))
    if len(line) <= most:
        return line
    return f"{line[: most - 9]}…{zlib.crc32(text.encode('utf-8', 'replace')):08x}"


def is_buffer(weight: str) -> bool:
    """Return True for a name of what old checkpoints store beside weights: masks and positions."""
    return bool(_BUFFERS.search(weight))
