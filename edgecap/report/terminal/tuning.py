"""Result of `edgecap tune`: tuned variants beside fixed recipes of equal bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from edgecap.analysis.cell_view import cell_views
from edgecap.record import Profile
from edgecap.report.format import table
from edgecap.report.metric_text import metric_text

_SHOWN = ("file_bytes", "divergence_bits", "bits_per_byte", "decode_s")
_HEADER = ("", "file", "KL bits/token", "bits/byte", "ms/token")


def duel_lines(record: Profile, pairs: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Return a table of fixed recipes and the tuned variants of their bytes, with a verdict."""
    views = {v.cell.precision: v for v in cell_views([record])}
    rows: list[list[str]] = []
    verdicts = []
    for pair in pairs:
        if not all(name in views for name in pair):
            continue
        for name in pair:
            values = [views[name].value(metric) for metric in _SHOWN]
            cells = [
                metric_text(metric, value) if value is not None else "-"
                for metric, value in zip(_SHOWN, values, strict=True)
            ]
            rows.append([name, *cells])
        verdicts.append(_verdict(*pair, *(views[n].value("divergence_bits") for n in pair)))
    if not verdicts:
        return []
    title = click.style("Tuned beside the fixed recipes, at their bytes", bold=True)
    return [title, table(_HEADER, rows, width), *verdicts]


def _verdict(fixed: str, tuned: str, before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return f"  {tuned} and {fixed} cannot be compared: one of them was not measured"
    percent = round(100 * (after / before - 1)) if before > 0 else 0
    if percent >= 0:
        return f"  {tuned} does not beat {fixed}: {percent:+d} % KL divergence"
    return f"  {tuned} beats {fixed}: {percent:+d} % KL divergence"


def formats_line(folder: Path, formats: dict[str, int]) -> str:
    """Return where the graph is, and how many groups of matrices have each format."""
    counts = ", ".join(f"{count} groups in {code}" for code, count in formats.items())
    return f"{folder}: {counts}" if counts else f"{folder}: a fixed recipe, which is best"
