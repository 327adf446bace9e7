"""What the hardware would allow, where the time goes, and how it grows: tables beside the measured ones."""

from __future__ import annotations

from edgecap import stats
from edgecap.record import Bound, Latency, Peaks, Placement, Profile, Roofline
from edgecap.report.data import measured_cells
from edgecap.report.format import name_of, table, wrapped
from edgecap.units import si, significant

_OPERATORS = 10  # rows; the others are one


def rooflines(record: Profile, width: int) -> str:
    """The shortest possible time of each step, the shares of both peaks that were used, and which one binds."""
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
            "the shortest time that these allow, and the share of each that was used",
            table(header, rows, width),
        ]
    )


def _measured_peaks(record: Profile) -> list[Peaks]:
    return [p for p in record.peaks.values() if isinstance(p, Peaks)]


def peaks_line(found: Peaks) -> str:
    """What a provider reaches, in a line."""
    gemm = ", ".join(
        f"{name} {si(rate, 'FLOP/s')}" for name, rate in found.gemm_flops_per_s.items()
    )
    memory = ", ".join(
        f"{si(b.read_bytes_per_s, 'B/s')} ({si(b.working_set_bytes, 'B')})" for b in found.bandwidth
    )
    return f"peaks on {found.provider}, {found.threads} threads: {gemm}; reading {memory}"


def _bound(found: Bound | None) -> list[str]:
    if found is None:
        return ["-"] * 5
    used = (found.compute_utilisation, found.bandwidth_utilisation)
    return [
        si(found.attainable_s, "s"),
        *(f"{significant(100 * u, 2)} %" for u in used),
        significant(found.intensity, 2),
        f"{found.limit}-bound",
    ]


def operators(record: Profile, width: int) -> str:
    """Shares of operator time in prefill and decode, the most expensive first."""
    found = [
        (c, o.placement.operators)
        for c, o in measured_cells(record)
        if isinstance(o.placement, Placement)
    ]
    columns = {
        f"{name_of(cell, record.cells)} {phase}": shares
        for cell, phases in found
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
    """Seconds of a prompt of each length, and of a token decoded behind it, if any is."""
    found = [
        (c, o.latency.sweep)
        for c, o in measured_cells(record)
        if isinstance(o.latency, Latency) and o.latency.sweep
    ]
    if not found:
        return ""
    steps = [
        n
        for n in ("prefill", "decode")
        if any(getattr(p, f"{n}_s") for _, sweep in found for p in sweep)
    ]
    header = ["", *[f"{name_of(c, record.cells)} {step}" for c, _ in found for step in steps]]
    rows = []
    for place, point in enumerate(found[0][1]):
        points = [sweep[place] for _, sweep in found]
        samples = [getattr(p, f"{step}_s") for p in points for step in steps]
        rows.append(
            [f"{point.context}", *[si(stats.median(s), "s") if s else "-" for s in samples]]
        )
    return table(header, rows, width)
