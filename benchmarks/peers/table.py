"""The tables of a comparison in Markdown, from its record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from peers.verdicts import Row, fixed_rows, rows

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "bytes": ("MB", lambda v: f"{v / 1e6:.1f}"),
    "kl": ("KL", lambda v: f"{max(v, 0):.4f}"),
    "moved_kl": ("moved", lambda v: f"{max(v, 0):.4f}"),
    "kl_back": ("KL back", lambda v: f"{max(v, 0):.4f}"),
    "bits_per_byte": ("bits/byte", lambda v: f"{v:.4f}"),
    "prefill 512": ("512", lambda v: f"{1e3 * v:.0f}"),
    "prefill 1024": ("1024", lambda v: f"{1e3 * v:.0f}"),
    "decode 512": ("decode", lambda v: f"{1e3 * v:.2f}"),
    "peak_bytes": ("peak", lambda v: f"{v / 1e6:.0f}"),
    "load_s": ("load", lambda v: f"{v:.2f}"),
}
MEANING = (
    "KL: KL(fp32 || format) in bits a token; moved: the same with scales moved; KL back: "
    "KL(format || fp32); 512, 1024: ms of a prefill; decode: ms of a token at 512; peak: resident "
    "MB after a prefill of 1024; load: s."
)


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


def contestants_table(record: dict[str, Any]) -> str:
    """Return a row for each contestant; columns that nobody has are left out."""
    found = numbers(record)
    keys = [key for key in COLUMNS if any(key in values for values in found.values())]
    cells = [
        [name, *(COLUMNS[key][1](values[key]) if key in values else "" for key in keys)]
        for name, values in found.items()
    ]
    return _markdown(["", *(COLUMNS[key][0] for key in keys)], cells)


def targets_table(record: dict[str, Any]) -> str:
    """Return a row for each ratio to a peer, with its interval over rounds and its target."""
    header = ["edgecap / peer", "ratio", "95 % interval", "target", ""]
    kept = record.get("kept", {}).get("times", {})
    compared = [*rows(record.get("seconds", {}), kept), *fixed_rows(numbers(record))]
    return _markdown(header, [_target(row) for row in compared])


def kept_line(record: dict[str, Any]) -> str:
    """Return a sentence on the contestants of earlier runs, or nothing."""
    runs: dict[str, list[str]] = {}
    for part, names in record.get("kept", {}).items():
        for name, run in names.items():
            runs.setdefault(f"{part.replace('_', ' ')} of {run}", []).append(name)
    return "; ".join(f"Kept from {of}: {', '.join(names)}" for of, names in sorted(runs.items()))


def _target(row: Row) -> list[str]:
    most = "below" if row.limit == 1 else "at most"
    return [
        f"{row.task}: {row.ours.removeprefix('edgecap ')} / {row.peer}",
        f"{row.ratio:.2f}",
        f"{row.low:.2f} to {row.high:.2f}" if row.low < row.high else "",
        f"{most} {row.limit:g}" if row.limit else "",
        row.verdict,
    ]


def _markdown(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
