"""The table of a comparison in Markdown, from its record. Imports nothing else of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "bytes": ("MB", lambda v: f"{v / 1e6:.1f}"),
    "kl": ("KL from fp32", lambda v: f"{max(v, 0):.4f}"),
    "moved_kl": ("scales moved", lambda v: f"{max(v, 0):.4f}"),
    "kl_back": ("KL to fp32", lambda v: f"{max(v, 0):.4f}"),
    "bits_per_byte": ("bits/byte", lambda v: f"{v:.4f}"),
    "prefill 512": ("prefill 512, ms", lambda v: f"{1e3 * v:.0f}"),
    "prefill 1024": ("prefill 1024, ms", lambda v: f"{1e3 * v:.0f}"),
    "decode 512": ("decode at 512, ms", lambda v: f"{1e3 * v:.2f}"),
    "peak_bytes": ("peak MB", lambda v: f"{v / 1e6:.0f}"),
    "load_s": ("load, s", lambda v: f"{v:.2f}"),
}


def numbers(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return what was measured of each contestant, under the names of `COLUMNS`."""
    found: dict[str, dict[str, float]] = {n: {"bytes": b} for n, b in record["files"].items()}
    for name, values in found.items():
        values |= record.get("quality", {}).get("of", {}).get(name, {})
        moved = record.get("moved_quality", {}).get("of", {}).get(name)
        values |= {"moved_kl": moved["kl"]} if moved else {}
        values |= record.get("footprints", {}).get(name, {})
        times = record.get("seconds", {})
        values |= {task: median(by[name]) for task, by in times.items() if name in by}
    return found


def table(record: dict[str, Any]) -> str:
    """Return the table; columns that nobody has are left out."""
    found = numbers(record)
    keys = [key for key in COLUMNS if any(key in values for values in found.values())]
    rows = [
        [name, *(COLUMNS[key][1](values[key]) if key in values else "" for key in keys)]
        for name, values in found.items()
    ]
    header = ["", *(COLUMNS[key][0] for key in keys)]
    return "\n".join(map(_line, [header, ["---"] * len(header), *rows]))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
