"""A record with every table and every caution, which `--details` prints."""

from __future__ import annotations

import click

from edgecap import stats
from edgecap.analysis.warnings.energy import no_energy
from edgecap.names import shortened, shortened_list
from edgecap.record import Absent, CorpusInfo, Decode, Latency, Profile
from edgecap.report.cautions import full_message, grouped_cautions
from edgecap.report.data import fidelity_notes, graph_notes, measured_cells
from edgecap.report.format import name_of, wrapped
from edgecap.report.machine_text import container_limits
from edgecap.report.terminal.extra_tables import EXTRA_TABLES
from edgecap.report.terminal.failures import INCOMPLETE, failures
from edgecap.report.terminal.measured import machine_line, measured_table, model_line, text_line
from edgecap.report.terminal.verdict import opening
from edgecap.units import si

WHOLE = 10_000  # columns of a line that is wrapped later
OVERHEAD = 0.05  # share of a decoded token below which overhead is not mentioned


def details(record: Profile, width: int = 100) -> str:
    """Return the whole record: what was measured where, every table, every caution."""
    first = opening(record, width)
    parts = [
        *first.lines,
        _heading(record, width),
        "",
        click.style("Measured", bold=True),
        measured_table(record, width, first.shown),
    ]
    for extra in EXTRA_TABLES:
        text = extra.text(record, width)
        parts += ["", click.style(extra.title, bold=True), text] if text else []
    notes = [
        *[(text, "red") for text in failures(record)],
        *[(text, None) for text in (*_energy_note(record), *_overhead_note(record))],
        *[(text, "yellow") for text in _cautions(record)],
    ]
    if notes:
        parts += ["", *[wrapped(text, width, colour) for text, colour in notes]]
    return "\n".join(parts)


def _heading(record: Profile, width: int) -> str:
    state = "" if record.complete else f"  ({INCOMPLETE})"
    lines = [
        f"{model_line(record, WHOLE)}{state}",
        *_other_graphs(record),
        machine_line(record, WHOLE),
        *([f"in a container: {limits}"] if (limits := container_limits(record.machine)) else []),
        text_line(record, WHOLE, bias=True),
        *_baselines(record.corpus),
        *(f"fp32 graph: {note}" for note in fidelity_notes(record)),
        *graph_notes(record),
    ]
    return "\n".join(wrapped(line, width, None) for line in lines)


def _other_graphs(record: Profile) -> list[str]:
    """Name the graphs that lie beside the measured ones."""
    names = [shortened(name) for name in record.source.other_graphs]
    return [f"not measured, in the same folder: {shortened_list(names)}"] if names else []


def _baselines(corpus: CorpusInfo) -> list[str]:
    """Return the bits per byte of general compressors on the same bytes."""
    rates = ", ".join(f"{name} {b.bits_per_byte:.3f}" for name, b in corpus.baselines.items())
    return [f"general compressors on the same text: {rates} bits/byte"] if rates else []


def _energy_note(record: Profile) -> list[str]:
    energies = [outcome.energy for _, outcome in measured_cells(record)]
    reasons = dict.fromkeys(e.reason for e in energies if isinstance(e, Absent))
    return [no_energy(Absent(reason=reason)) for reason in reasons]


def _overhead_note(record: Profile) -> list[str]:
    """Return the time of Python and the runtime in a decoded token, where its share matters."""
    latencies = [(c, o.latency) for c, o in measured_cells(record)]
    shares = [
        (name_of(c, record.cells), x.overhead_s, x.overhead_s / stats.median(x.decode.samples_s))
        for c, x in latencies
        if isinstance(x, Latency) and x.overhead_s and isinstance(x.decode, Decode)
    ]
    large = [f"{name} {share:.0%}" for name, _, share in shares if share > OVERHEAD]
    if not large:
        return []
    return [
        f"{si(shares[0][1], 's')} of each decoded token is Python and runtime overhead, measured "
        f"on an empty graph ({', '.join(large)}); all numbers above include it"
    ]


def _cautions(record: Profile) -> list[str]:
    """Return each kind of caution once, with the cells that it concerns."""
    measured = len(measured_cells(record))
    groups = grouped_cautions((cell, name_of(cell, record.cells)) for cell in record.cells)
    return [f"caution: {full_message(group, measured)}; {group.advice}" for group in groups]
