"""Cautions, failures and the provenance of joules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.outcomes import failure_of, status
from edgecap.names import shortened
from edgecap.record import Absent, Energy, Profile
from edgecap.report.cautions import CautionGroup, grouped_cautions
from edgecap.units import si

_NAMED = 6  # cells that a note names


class Note(NamedTuple):
    """A message and its advice."""

    text: str
    advice: str


def cautions(views: Sequence[CellView]) -> list[Note]:
    """Return each kind of caution once, with the cells that it concerns."""
    measured = sum(1 for view in views if view.measured)
    groups = grouped_cautions((view.cell, view.name) for view in views)
    return [Note(_messages(group, measured), shortened(group.advice, 600)) for group in groups]


def _messages(group: CautionGroup, measured: int) -> str:
    """Join the messages, with the cells' names unless one concerns all of several cells."""
    texts = [(shortened(m, 600), names) for m, names in group.names_by_message.items()]
    return "; ".join(
        text if len(names) == measured > 1 else f"{listed(names)}: {text}" for text, names in texts
    )


def listed(names: Sequence[str]) -> str:
    """Join the first names, and say how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def failures(views: Sequence[CellView], records: Sequence[Profile]) -> list[Note]:
    """Return each cell that failed or was left out, and incomplete records."""
    failed = [
        Note(f"{x.label}: {status(x.cell)}", shortened(failure_of(x.cell), 1000))
        for x in views
        if not x.measured
    ]
    incomplete = [r for r in records if not r.complete]
    return failed + [
        Note(f"{shortened(r.source.name)}, {shortened(r.created_utc, 40)}", _INCOMPLETE)
        for r in incomplete
    ]


_INCOMPLETE = "the run was cut off: cells are missing"


def mismatches(records: Sequence[Profile]) -> str:
    """Return what makes the numbers of two records incomparable; nothing where all agree."""
    values_by_name: dict[str, set[object]] = {
        "the corpus": {r.corpus.sha256 for r in records},
        "its bias": {r.corpus.bias_bits for r in records},
        "the protocol": {
            (r.spec.protocol, r.spec.context, r.spec.stride, r.spec.documents) for r in records
        },
    }
    names = [name for name, values in values_by_name.items() if len(values) > 1]
    if not names:
        return ""
    return (
        f"The records differ in {' and '.join(names)}: bits and capacities of one do not compare "
        "with those of another."
    )


# --- provenance of joules -----------------------------------------------------------------------

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


def provenances(views: Iterable[CellView]) -> list[list[str]]:
    """Return rows in the order of `PROVENANCE`: the counter of which cells, or why none."""
    grouped: dict[tuple[str, ...], list[str]] = {}
    for view in views:
        if view.measured:
            grouped.setdefault(tuple(_provenance(view)), []).append(view.name)
    return [[listed(names), *provenance] for provenance, names in grouped.items()]


def _provenance(view: CellView) -> list[str]:
    energy = view.energy
    if energy:
        return _counted(energy)
    absent = view.measured.energy if view.measured else None
    reason = absent.reason if isinstance(absent, Absent) else ""
    return ["-", f"absent: {shortened(reason, 400)}", "-", "-", "-", "-", "-"]


def _counted(energy: Energy) -> list[str]:
    left_out = "; ".join(
        f"{o.name}: {o.reason}{' (belongs to it)' if o.missing else ''}" for o in energy.left_out
    )
    if energy.provenance == "assumed":
        return [
            "nothing",
            f"assumed: {si(energy.idle_w[0], 'W')} x seconds (--assume-watts)",
            "-",
            "-",
            "-",
            "-",
            "-",
        ]
    return [
        shortened(energy.counter),
        {"counter": "counted by the device", "sampled": "sampled power, integrated"}.get(
            energy.provenance, energy.provenance
        ),
        shortened(", ".join(energy.domains), 300) or "-",
        si(energy.tick_s, "s"),
        "-" if energy.quantisation is None else f"{100 * energy.quantisation:.2g} %",
        ", ".join(si(w, "W") for w in energy.idle_w),
        shortened(left_out, 600) or "-",
    ]
