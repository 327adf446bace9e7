"""Joules a token, gross and net, by domain; which counter was read, and what the total lacks."""

from __future__ import annotations

from collections.abc import Callable

from edgecap import stats
from edgecap.analysis import score
from edgecap.record import Absent, Cell, Energy, Measurement, Profile, Window
from edgecap.report.data import measured_cells
from edgecap.report.format import name_of, table, wrapped
from edgecap.units import si, significant

Joules = Callable[[Energy], "stats.Quantity | Absent"]


def energies(record: Profile, width: int) -> str:
    """Return one row a cell and phase, then the counter, its domains and what is left out."""
    measured = [(c, o.energy) for c, o in measured_cells(record) if isinstance(o.energy, Energy)]
    if not measured:
        return ""
    header = ["J a token", "gross", "net of idle", "95 % of gross", "watts", "by domain"]
    rows = [row for cell, energy in measured for row in _rows(name_of(cell, record.cells), energy)]
    notes = dict.fromkeys(note for _, energy in measured for note in _notes(energy))
    return "\n".join([table(header, rows, width), *[wrapped(n, width, None) for n in notes]])


def _rows(name: str, energy: Energy) -> list[list[str]]:
    phases = {
        "prefill": (score.prefill_joules, energy.prefill),
        "decode": (score.decode_joules, energy.decode),
        "score": (score.nll_joules, energy.nll),
    }
    return [
        _row(f"{name} {phase}", energy, joules, windows)
        for phase, (joules, windows) in phases.items()
        if windows
    ]


def _row(
    name: str,
    energy: Energy,
    joules: Callable[..., stats.Quantity | Absent],
    windows: tuple[Window, ...],
) -> list[str]:
    gross, net = joules(energy, stats.SEED + 3), joules(energy, None, net=True)
    assert not isinstance(gross, Absent) and not isinstance(net, Absent)
    span = stats.interval(*gross)
    interval = (
        "-"
        if span.low is None or span.high is None
        else f"{si(span.low, 'J')}..{si(span.high, 'J')}"
    )
    watts = stats.median([w.joules / w.seconds for w in windows])
    less_idle = "-" if energy.provenance == "assumed" else si(net[0], "J")
    return [name, si(gross[0], "J"), less_idle, interval, si(watts, "W"), _domains(windows)]


def _domains(windows: tuple[Window, ...]) -> str:
    """Return each domain's share of the joules."""
    total = sum(w.joules for w in windows)
    names = dict.fromkeys(d for w in windows for d in w.by_domain)
    shares = {d: sum(w.by_domain.get(d, 0.0) for w in windows) / total for d in names}
    return ", ".join(f"{d} {significant(100 * s, 2)} %" for d, s in shares.items())


def _notes(energy: Energy) -> list[str]:
    before, after = energy.idle_w
    if energy.provenance == "assumed":
        return [f"assumed: {si(before, 'W')} x seconds (--assume-watts); nothing was measured"]
    lines = [
        f"counted by {energy.counter} ({energy.provenance}): {', '.join(energy.domains)}; idle "
        f"{si(before, 'W')} before and "
        f"{si(after, 'W')} after"
    ]
    return lines + [f"not in the total: {o.name}, {o.reason}" for o in energy.left_out]


def provenance_of(cell: Cell) -> str:
    """Return "sampled" or "assumed", or nothing of joules that the device counted."""
    energy = cell.outcome.energy if isinstance(cell.outcome, Measurement) else None
    return (
        energy.provenance if isinstance(energy, Energy) and energy.provenance != "counter" else ""
    )
