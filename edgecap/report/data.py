"""Records as plain values for `--json`, with their medians."""

from __future__ import annotations

from typing import Any

import msgspec

from edgecap import stats
from edgecap.analysis import score
from edgecap.record import Absent, Cell, Energy, Estimate, Graph, Latency, Measurement, Profile
from edgecap.report.format import name_of
from edgecap.units import counted


def record_values(record: Profile) -> dict[str, Any]:
    """Return the record as JSON values; each measured cell has `medians` beside its outcome."""
    values: dict[str, Any] = msgspec.to_builtins(record)
    for plain, cell in zip(values["cells"], record.cells, strict=True):
        plain["medians"] = msgspec.to_builtins(medians(cell))
    return values


def measured_cells(record: Profile) -> list[tuple[Cell, Measurement]]:
    """Return the measured cells, each with its measurement."""
    return [(c, c.outcome) for c in record.cells if isinstance(c.outcome, Measurement)]


def fidelity_notes(record: Profile) -> list[str]:
    """Say how far each fp32 graph of a record is from the framework's model, once each."""
    graphs = (cell.graph for cell in record.cells if isinstance(cell.graph, Graph))
    return list(dict.fromkeys(fidelity_note(graph) for graph in graphs))


def fidelity_note(graph: Graph) -> str:
    """Say how far the fp32 graph of a graph is from the framework's model, or why not."""
    bits = graph.fidelity_bits
    if isinstance(bits, Absent):
        return f"not compared with the model in transformers: {bits.reason}"
    parts = ", ".join(
        f"{part} not compared: {x.reason}" if isinstance(x, Absent) else f"{part} {x:.1g}"
        for part, x in graph.fidelity.items()
    )
    return f"{bits:.1g} bits a token from the model in transformers in fp32 ({parts})"


def graph_notes(record: Profile) -> list[str]:
    """Say in what types the cells compute, how launches were issued, and what KL is from."""
    named = [
        (name_of(cell, record.cells), cell.graph, cell.outcome)
        for cell in record.cells
        if isinstance(cell.graph, Graph)
    ]
    types = [f"{name} {g.weights} x {g.arithmetic}" for name, g, _ in named if g.arithmetic]
    launches: dict[str, list[str]] = {}
    for name, _, outcome in named:
        if isinstance(outcome, Measurement) and isinstance(outcome.latency, Latency):
            launches.setdefault(outcome.latency.launches, []).append(name)
    others = [f"{name} from {g.divergence_from}" for name, g, _ in named if not _is_from_fp32(g)]
    return [
        *([f"weights x arithmetic: {', '.join(types)}"] if types else []),
        *(f"launches {how} ({', '.join(names)})" for how, names in launches.items() if how),
        *([f"KL not from fp32: {', '.join(others)}"] if others else []),
    ]


def _is_from_fp32(graph: Graph) -> bool:
    return graph.divergence_from == "fp32" or isinstance(graph.divergence_bits, Absent)


def medians(cell: Cell, intervals: bool = True) -> dict[str, Estimate | Absent]:
    """Return the medians of a cell by name, with 95 % intervals unless `intervals` is false.

    `prefill_s`, `decode_s`, `decode_tokens_per_s`, `decode_p50_s` to `decode_p99_s`, and joules per
    token: gross, and net of idle power (`_net_`). Empty for a cell that failed.
    """
    seed = stats.SEED if intervals else None
    outcome = cell.outcome
    if not isinstance(outcome, Measurement):
        return {}
    of_latency = _of_latency(outcome.latency, seed) if isinstance(outcome.latency, Latency) else {}
    return of_latency | _of_energy(outcome.energy, seed)


def _of_latency(latency: Latency, seed: int | None) -> dict[str, Estimate | Absent]:
    prefill = stats.interval(*score.prefill_seconds(latency, seed))
    return {"prefill_s": prefill, **_of_decoding(latency, seed)}


def _of_energy(energy: Energy | Absent, seed: int | None) -> dict[str, Estimate | Absent]:
    if isinstance(energy, Absent):
        return {"decode_j": energy}
    return {
        "prefill_j": stats.interval(*score.prefill_joules(energy, seed)),
        "decode_j": score.to_estimate(score.decode_joules(energy, seed)),
        "prefill_net_j": stats.interval(*score.prefill_joules(energy, seed, net=True)),
        "decode_net_j": score.to_estimate(score.decode_joules(energy, seed, net=True)),
        "nll_j": score.to_estimate(score.nll_joules(energy, seed)),
    }


def _of_decoding(latency: Latency, seed: int | None) -> dict[str, Estimate | Absent]:
    decode = score.to_estimate(score.decode_seconds(latency, seed))
    if isinstance(decode, Absent) or isinstance(latency.decode, Absent):
        return {"decode_s": decode}
    quantiles = {f"decode_p{p}_s": _quantile(latency.decode.samples_s, p) for p in (50, 90, 99)}
    return {"decode_s": decode, **quantiles, "decode_tokens_per_s": inverse(decode)}


def _quantile(samples: tuple[float, ...], percent: int) -> Estimate:
    """Return a quantile of single samples; it has no interval, since samples of a run correlate."""
    return Estimate(value=stats.quantile(samples, percent / 100), low=None, high=None)


def inverse(e: Estimate) -> Estimate:
    """Return 1 / e with its interval, of a positive estimate."""
    return Estimate(
        value=1 / e.value,
        low=None if e.high is None else 1 / e.high,
        high=None if e.low is None else 1 / e.low,
    )


def documents_text(record: Profile) -> str:
    """Return how many documents were scored, or pieces if some are parts of longer ones."""
    corpus = record.corpus
    number = counted(corpus.documents, "piece" if corpus.pieces else "document")
    return f"{number} (--quick)" if record.spec.quick else number
