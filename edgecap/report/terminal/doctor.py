"""What `edgecap doctor` found, as text: what works, what does not and why, and what would help."""

from __future__ import annotations

import click

from edgecap.machine.diagnosis import CounterCheck, Diagnosis
from edgecap.record import Absent, Gpu, Machine, Peaks
from edgecap.report.format import wrapped
from edgecap.report.terminal.roofline import peaks_line
from edgecap.units import si, size


def diagnosis(found: Diagnosis, width: int = 100) -> str:
    """Sections of one line a thing, remedies last, and the verdict."""
    sections = {
        "Machine": _machine(found.machine),
        "Providers": _providers(found),
        "Energy": _energy(found),
        "Peaks": _peaks(found),
        "Disk": [_cache(found)],
        "Advice": [f"{r.problem}: {r.advice}" for r in found.remedies],
    }
    parts = [
        "\n".join([click.style(title, bold=True), *(_indented(line, width) for line in lines)])
        for title, lines in sections.items()
        if lines
    ]
    verdict = (
        "edgecap profile can run here"
        if found.can_run
        else "edgecap profile cannot run here: see the advice"
    )
    return "\n\n".join([*parts, click.style(verdict, fg="green" if found.can_run else "red")])


def _indented(line: str, width: int) -> str:
    """A long command stays in one piece, so that it can be copied."""
    return (
        f"  {line}"
        if "sudo" in line
        else wrapped(line, width - 2, None).replace("\n", "\n    ").join(["  ", ""])
    )


def _machine(m: Machine) -> list[str]:
    flags = f": {' '.join(m.flags)}" if m.flags else ""
    return [
        f"{m.cpu}, {m.physical_cores or '?'} cores, {m.logical_cores} usable threads, {size(m.memory_bytes)}{flags}",
        f"governor {_said(m.governor)}; turbo {_said(m.turbo)}; SMT {_said(m.smt)}",
        f"power {_said(m.power_source)}; temperature {_said(m.temperature_c, ' °C')}; load average {_said(m.load_average)}",
        *[_gpu(g) for g in m.gpus],
    ]


def _gpu(found: Gpu) -> str:
    return f"{found.name}, {size(found.memory_bytes)}, driver {found.driver}, {found.users} other processes"


def _said(value: object, unit: str = "") -> str:
    if isinstance(value, Absent):
        return f"unknown ({value.reason})"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}{unit}" if isinstance(value, float) else f"{value}{unit}"


def _providers(found: Diagnosis) -> list[str]:
    versions = ", ".join(
        f"{k} {v}" for k, v in found.machine.versions.items() if k.startswith("onnx")
    )
    exporter = (
        f"no: {found.exporter.reason}" if isinstance(found.exporter, Absent) else found.exporter
    )
    lines = [
        f"{name}: {'no: ' + reason if reason else 'runs a node'}"
        for name, reason in found.providers.items()
    ]
    return [*lines, f"versions: {versions}", f"exporting models: {exporter}"]


def _energy(found: Diagnosis) -> list[str]:
    totals = [
        f"total of a run on {name}: {', '.join(t.domains)} ({t.counter})"
        if t.counter
        else f"none on {name}: {t.reason}"
        for name, t in found.totals.items()
    ]
    refused = [f"{r.name}: not counted, {r.reason}" for r in found.refused]
    return [*map(_counter, found.counters), *totals, *refused]


def _counter(seen: CounterCheck) -> str:
    watts = ", ".join(
        f"{d} {si(seen.idle_w[d], 'W')} idle, {si(w, 'W')} loaded" for d, w in seen.load_w.items()
    )
    still = "" if any(seen.load_w.values()) else "; it did not move in two seconds"
    return f"{seen.name} ({seen.provenance}): {watts}{still}"


def _peaks(found: Diagnosis) -> list[str]:
    return [
        f"{peaks_line(p)}; measured {p.measured_utc}"
        if isinstance(p, Peaks)
        else f"{name}: {p.reason}"
        for name, p in found.peaks.items()
    ]


def _cache(found: Diagnosis) -> str:
    place = found.cache
    writable = "" if place.writable else ", not writable"
    return f"cache {place.path}: {size(place.bytes)}, {size(place.free_bytes)} free{writable}"
