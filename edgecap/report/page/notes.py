"""What a reader should know beside the numbers: cautions, failures, and where every joule comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.outcomes import energy_of, failure_of, status
from edgecap.record import Absent, Energy, Profile
from edgecap.report.cells import shortened
from edgecap.units import si

_NAMED = 6  # cells that a note names


class Note(NamedTuple):
    """What is to know, and what to do about it."""

    text: str
    advice: str


def cautions(lines: Sequence[CellView]) -> list[Note]:
    """Each kind of caution once, with the cells that it concerns."""
    grouped: dict[tuple[str, str], dict[str, list[str]]] = {}
    for line in lines:
        for caution in line.cell.cautions:
            messages = grouped.setdefault((caution.code, caution.advice), {})
            messages.setdefault(caution.message, []).append(line.name)
    measured = sum(1 for line in lines if line.measured)
    return [
        Note(
            "; ".join(_where(m, found, measured) for m, found in messages.items()),
            shortened(advice, 600),
        )
        for (_, advice), messages in grouped.items()
    ]


def _where(message: str, found: list[str], measured: int) -> str:
    """The message, with the cells' names unless it concerns all of several."""
    told = shortened(message, 600)
    return told if len(found) == measured > 1 else f"{listed(found)}: {told}"


def listed(found: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more


def failures(lines: Sequence[CellView], records: Sequence[Profile]) -> list[Note]:
    """Every cell that was not measured, and what went wrong or why it was left out."""
    found = [
        Note(f"{x.label}: {status(x.cell)}", shortened(failure_of(x.cell), 1000))
        for x in lines
        if not x.measured
    ]
    cut = [r for r in records if not r.complete]
    return found + [
        Note(f"{shortened(r.source.name)}, {shortened(r.created_utc, 40)}", _INCOMPLETE)
        for r in cut
    ]


_INCOMPLETE = "the run was cut off: cells are missing"


def mismatches(records: Sequence[Profile]) -> str:
    """What records differ in, so that numbers of one do not stand beside those of another; nothing where all agree."""
    held: dict[str, set[object]] = {
        "the corpus": {r.corpus.sha256 for r in records},
        "its bias": {r.corpus.bias_bits for r in records},
        "the protocol": {
            (r.spec.protocol, r.spec.context, r.spec.stride, r.spec.documents) for r in records
        },
    }
    differing = [what for what, values in held.items() if len(values) > 1]
    if not differing:
        return ""
    return f"The records differ in {' and '.join(differing)}: bits and capacities of one do not compare with those of another."


# --- where joules come from -------------------------------------------------------------------

PROVENANCE = (
    *(
        "cells",
        "joules from",
        "provenance",
        "domains",
        "step",
        "largest error of a window",
        "idle before, after",
    ),
    "not in the total",
)


def provenances(lines: Iterable[CellView]) -> list[list[str]]:
    """Rows in the order of `PROVENANCE`: what counted the joules of which cells, or why nothing did."""
    grouped: dict[tuple[str, ...], list[str]] = {}
    for line in lines:
        if line.measured:
            grouped.setdefault(tuple(_provenance(line)), []).append(line.name)
    return [[listed(found), *told] for told, found in grouped.items()]


def _provenance(line: CellView) -> list[str]:
    found = energy_of(line.cell)
    if found:
        return _counted(found)
    had = line.measured.energy if line.measured else None
    reason = had.reason if isinstance(had, Absent) else ""
    return ["-", f"absent: {shortened(reason, 400)}", "-", "-", "-", "-", "-"]


def _counted(found: Energy) -> list[str]:
    left_out = "; ".join(
        f"{o.name}: {o.reason}{' (belongs to it)' if o.missing else ''}" for o in found.left_out
    )
    if found.provenance == "assumed":
        return [
            "nothing",
            f"assumed: {si(found.idle_w[0], 'W')} x seconds (--assume-watts)",
            "-",
            "-",
            "-",
            "-",
            "-",
        ]
    return [
        shortened(found.counter),
        {"counter": "counted by the device", "sampled": "sampled power, integrated"}.get(
            found.provenance, found.provenance
        ),
        shortened(", ".join(found.domains), 300) or "-",
        si(found.tick_s, "s"),
        "-" if found.quantisation is None else f"{100 * found.quantisation:.2g} %",
        ", ".join(si(w, "W") for w in found.idle_w),
        shortened(left_out, 600) or "-",
    ]
