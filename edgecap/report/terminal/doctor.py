"""Results of `edgecap doctor` as text: what works, what does not, and what would help."""

from __future__ import annotations

import click

from edgecap.machine.diagnosis import CounterCheck, Diagnosis
from edgecap.record import Absent, Gpu, Machine, Peaks
from edgecap.report.format import wrapped
from edgecap.report.machine_text import container_limits
from edgecap.report.terminal.roofline import peaks_line
from edgecap.units import si, size


def diagnosis(diagnosis: Diagnosis, width: int = 100) -> str:
    """Return a section a subject, one line an item, then advice and the verdict."""
    sections = {
        "Machine": _machine(diagnosis.machine),
        "Providers": _providers(diagnosis),
        "Energy": _energy(diagnosis),
        "Peaks": _peaks(diagnosis),
        "Disk": [_cache(diagnosis)],
        "Advice": [f"{r.problem}: {r.advice}" for r in diagnosis.remedies],
    }
    parts = [
        "\n".join([click.style(title, bold=True), *(_indented(line, width) for line in lines)])
        for title, lines in sections.items()
        if lines
    ]
    verdict = (
        "edgecap profile can run here"
        if diagnosis.can_run
        else "edgecap profile cannot run here: see the advice"
    )
    return "\n\n".join([*parts, click.style(verdict, fg="green" if diagnosis.can_run else "red")])


def _indented(line: str, width: int) -> str:
    """Indent and wrap a line; leave commands in one piece, so that they can be copied."""
    return (
        f"  {line}"
        if "sudo" in line
        else wrapped(line, width - 2, None).replace("\n", "\n    ").join(["  ", ""])
    )


def _machine(m: Machine) -> list[str]:
    flags = f": {' '.join(m.flags)}" if m.flags else ""
    return [
        f"{m.processor}, {m.physical_cores or '?'} cores, {m.logical_cores} usable threads, "
        f"{size(m.memory_bytes)}{flags}",
        *([f"container: {limits}"] if (limits := container_limits(m)) else []),
        f"governor {_value(m.governor)}; turbo {_value(m.turbo)}; SMT {_value(m.smt)}",
        f"power {_value(m.power_source)}; temperature {_value(m.temperature_c, ' °C')}; load "
        f"average {_value(m.load_average)}",
        *[_gpu(g) for g in m.gpus],
    ]


def _gpu(gpu: Gpu) -> str:
    taken = f" ({size(gpu.used_bytes)} taken)" if gpu.used_bytes else ""
    number = "" if gpu.device is None else f"CUDA device {gpu.device}: "
    return (
        f"{number}{gpu.name}, {size(gpu.memory_bytes)}{taken}, driver {gpu.driver}, "
        f"{gpu.users} other processes"
    )


def _value(value: object, unit: str = "") -> str:
    if isinstance(value, Absent):
        return f"unknown ({value.reason})"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}{unit}" if isinstance(value, float) else f"{value}{unit}"


def _providers(diagnosis: Diagnosis) -> list[str]:
    versions = ", ".join(
        f"{k} {v}" for k, v in diagnosis.machine.versions.items() if k.startswith("onnx")
    )
    exporter = (
        f"no: {diagnosis.exporter.reason}"
        if isinstance(diagnosis.exporter, Absent)
        else diagnosis.exporter
    )
    lines = [
        f"{name}: {'no: ' + reason if reason else 'runs a node'}"
        for name, reason in diagnosis.providers.items()
    ]
    return [*lines, f"versions: {versions}", f"exporting models: {exporter}"]


def _energy(diagnosis: Diagnosis) -> list[str]:
    totals = [
        f"total of a run on {name}: {', '.join(t.domains)} ({t.counter})"
        if t.counter
        else f"none on {name}: {t.reason}"
        for name, t in diagnosis.totals.items()
    ]
    refused = [f"{r.name}: not counted, {r.reason}" for r in diagnosis.refused]
    return [*map(_counter, diagnosis.counters), *totals, *refused]


def _counter(counter: CounterCheck) -> str:
    watts = ", ".join(
        f"{d} {si(counter.idle_w[d], 'W')} idle, {si(w, 'W')} loaded"
        for d, w in counter.load_w.items()
    )
    still = "" if any(counter.load_w.values()) else "; it did not move in two seconds"
    return f"{counter.name} ({counter.provenance}): {watts}{still}"


def _peaks(diagnosis: Diagnosis) -> list[str]:
    return [
        f"{peaks_line(p)}; measured {p.measured_utc}"
        if isinstance(p, Peaks)
        else f"{name}: {p.reason}"
        for name, p in diagnosis.peaks.items()
    ]


def _cache(diagnosis: Diagnosis) -> str:
    place = diagnosis.cache
    writable = "" if place.writable else ", not writable"
    return f"cache {place.path}: {size(place.bytes)}, {size(place.free_bytes)} free{writable}"
