"""Roofline, time by operator, and growth with the context, as tables."""

from __future__ import annotations

from edgecap import stats
from edgecap.record import Bound, Latency, Peaks, Placement, Profile, Roofline
from edgecap.report.data import measured_cells
from edgecap.report.format import name_of, table, wrapped
from edgecap.units import si, significant

_OPERATORS = 10  # rows; the others are one

_EXPLANATION = "shortest time that these peaks allow, and the share of each peak that was used"


def rooflines(record: Profile, width: int) -> str:
    """Return the shortest time of each step, the used shares of both peaks, and the limit."""
    cells = [(c, c.roofline) for c in record.cells if isinstance(c.roofline, Roofline)]
    if not cells:
        return ""
    phase = ("of FLOP/s", "of bytes/s", "FLOP/B", "")
    steps = [n for n in ("prefill", "decode") if any(getattr(r, n) for _, r in cells)]
    header = ["", *[word for n in steps for word in (f"{n} at best", *phase)]]
    rows = [
        [name_of(c, record.cells), *[x for n in steps for x in _bound(getattr(r, n))]]
        for c, r in cells
    ]
    peaks = [wrapped(peaks_line(p), width, None) for p in _measured_peaks(record)]
    return "\n".join(
        [
            *peaks,
            wrapped(_EXPLANATION, width, None),
            table(header, rows, width),
        ]
    )


def _measured_peaks(record: Profile) -> list[Peaks]:
    return [p for p in record.peaks.values() if isinstance(p, Peaks)]


def peaks_line(peaks: Peaks) -> str:
    """Return the measured peaks of a provider in a line."""
    gemm = ", ".join(
        f"{name} {si(rate, 'FLOP/s')}" for name, rate in peaks.gemm_flops_per_s.items()
    )
    memory = ", ".join(
        f"{si(b.read_bytes_per_s, 'B/s')} ({si(b.working_set_bytes, 'B')})" for b in peaks.bandwidth
    )
    return f"peaks on {peaks.provider}, {peaks.threads} threads: {gemm}; reading {memory}"


def _bound(bound: Bound | None) -> list[str]:
    if bound is None:
        return ["-"] * 5
    used = (bound.compute_utilisation, bound.bandwidth_utilisation)
    return [
        si(bound.attainable_s, "s"),
        *(f"{significant(100 * u, 2)} %" for u in used),
        significant(bound.intensity, 2),
        f"{bound.limit}-bound",
    ]


def operators(record: Profile, width: int) -> str:
    """Return shares of operator time in prefill and decode, the most expensive first."""
    placements = [
        (c, o.placement.operators)
        for c, o in measured_cells(record)
        if isinstance(o.placement, Placement)
    ]
    columns = {
        f"{name_of(cell, record.cells)} {phase}": shares
        for cell, phases in placements
        for phase, shares in phases.items()
        if shares
    }
    if not columns:
        return ""
    names = sorted(
        {n for s in columns.values() for n in s},
        key=lambda n: -max(s.get(n, 0) for s in columns.values()),
    )
    rows = [[name, *[_share(s.get(name)) for s in columns.values()]] for name in names[:_OPERATORS]]
    if names[_OPERATORS:]:
        rest = [sum(s.get(n, 0.0) for n in names[_OPERATORS:]) for s in columns.values()]
        rows.append([f"{len(names) - _OPERATORS} others", *map(_share, rest)])
    return table(["", *columns], rows, width)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def growth(record: Profile, width: int) -> str:
    """Return seconds of a prompt of each length, and of a token decoded after it."""
    sweeps = [
        (c, o.latency.sweep)
        for c, o in measured_cells(record)
        if isinstance(o.latency, Latency) and o.latency.sweep
    ]
    if not sweeps:
        return ""
    steps = [
        n
        for n in ("prefill", "decode")
        if any(getattr(p, f"{n}_s") for _, sweep in sweeps for p in sweep)
    ]
    header = ["", *[f"{name_of(c, record.cells)} {step}" for c, _ in sweeps for step in steps]]
    rows = []
    for place, point in enumerate(sweeps[0][1]):
        points = [sweep[place] for _, sweep in sweeps]
        samples = [getattr(p, f"{step}_s") for p in points for step in steps]
        rows.append(
            [f"{point.context}", *[si(stats.median(s), "s") if s else "-" for s in samples]]
        )
    return table(header, rows, width)
