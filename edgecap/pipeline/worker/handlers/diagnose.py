"""Inspect the runtime and graphs, diagnose providers and counters, measure peaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecap.graph.onnx_file import inspect_graph
from edgecap.machine.diagnosis import CounterCheck, EnergyTotal
from edgecap.machine.energy import Resolution, find_counters, providers_of_scope, resolve
from edgecap.machine.info import pin_process
from edgecap.machine.nvidia import cuda_uuids
from edgecap.machine.roots import sysfs
from edgecap.meters.counter_check import measure_watts
from edgecap.meters.peaks import measure_peaks
from edgecap.pipeline.worker.answers import (
    Answer,
    Calibrated,
    Diagnosed,
    Inspected,
)
from edgecap.pipeline.worker.handlers.energy import counters_of
from edgecap.pipeline.worker.sessions import Report, SystemClock, progress_of
from edgecap.pipeline.worker.steps import (
    Calibrate,
    Diagnose,
    Inspect,
)
from edgecap.provider_options import any_on_cuda, base_name
from edgecap.record import Absent, LeftOut
from edgecap.runtime import providers
from edgecap.runtime.microbench import OrtProbes

# Matrix products that load a processor and a board: rows, inner, columns.
CPU_LOAD, BOARD_LOAD = (256, 1024, 1024), (2048, 2048, 2048)


def _inspect(step: Inspect, report: Report) -> Inspected:
    names = {base_name(p) for p in step.providers} - {"cpu"}
    reasons = {
        p: providers.provider_problem(p) if p in names else None
        for p in providers.built_providers()
    }
    with_options = [
        p for p in step.providers if ":" in p and not reasons.get(base_name(p), "not built in")
    ]
    reasons |= {p: providers.provider_problem(p) for p in with_options}
    return Inspected(
        providers=tuple(p for p, reason in reasons.items() if reason is None and ":" not in p),
        refused={p: reason for p, reason in reasons.items() if reason is not None},
        no_energy=_no_energy(step) if step.energy else {},
        graphs=tuple(inspect_graph(Path(g)) for g in step.graphs),
    )


def _no_energy(step: Inspect) -> dict[str, str]:
    """Return the reason why energy cannot be counted, for each provider where it cannot."""
    totals = {p: counters_of(p, step.meter, None).counter for p in step.providers}
    return {p: total.reason for p, total in totals.items() if isinstance(total, Absent)}


def _calibrate(step: Calibrate, report: Report) -> Calibrated:
    pin_process(step.affinity)
    probes = OrtProbes(step.provider, step.threads)
    peaks = measure_peaks(probes, SystemClock(), step.memory_bytes, progress_of(report, "peaks"))
    return Calibrated(**peaks._asdict())


def _diagnose(step: Diagnose, report: Report) -> Diagnosed:
    report("providers and counters", 0, 1)
    reasons = {name: providers.provider_problem(name) or "" for name in providers.built_providers()}
    working = tuple(name for name, reason in reasons.items() if not reason)
    counters = find_counters(sysfs(), uuids=cuda_uuids() if any_on_cuda(working) else None)
    totals = {name: _total(resolve(name, counters)) for name in working}
    checked = [
        c if isinstance(c, LeftOut) else _check_counter(c, step.threads, working) for c in counters
    ]
    return Diagnosed(
        providers=reasons,
        counters=tuple(c for c in checked if isinstance(c, CounterCheck)),
        refused=tuple(c for c in checked if isinstance(c, LeftOut)),
        totals=totals,
    )


def _total(resolution: Resolution) -> EnergyTotal:
    counter = resolution.counter
    if isinstance(counter, Absent):
        return EnergyTotal(
            counter="", domains=(), reason=counter.reason, left_out=resolution.left_out
        )
    return EnergyTotal(
        counter=counter.name,
        domains=counter.domains,
        reason="",
        left_out=resolution.left_out,
    )


def _check_counter(counter: Any, threads: int, working: tuple[str, ...]) -> CounterCheck | LeftOut:
    """Read a counter idle and under the load of a provider that draws on it."""
    provider = next((p for p in working if p in providers_of_scope(counter.scope)), "cpu")
    shape = CPU_LOAD if provider == "cpu" else BOARD_LOAD
    load = OrtProbes(provider, threads).gemm("fp32", *shape)
    try:
        idle, loaded = (
            measure_watts(counter, SystemClock()),
            measure_watts(counter, SystemClock(), load),
        )
    except OSError as error:
        return LeftOut(name=counter.name, reason=str(error), scope=counter.scope)
    finally:
        counter.close()
    return CounterCheck(
        name=counter.name,
        scope=counter.scope,
        provenance=counter.provenance,
        idle_w=idle,
        load_w=loaded,
    )


HANDLERS: dict[type, Callable[[Any, Report], Answer]] = {
    Inspect: _inspect,
    Calibrate: _calibrate,
    Diagnose: _diagnose,
}
