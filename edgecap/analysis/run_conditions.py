"""Conditions of a run beside the variant: text, lengths, threads, provider, machine, versions.

Two cells compare fairly in a metric only if the conditions that the metric needs are equal
(`Metric.needs` in `metrics`).
"""

from __future__ import annotations

import re

from edgecap.analysis.law import law_conditions, law_of
from edgecap.analysis.outcomes import compression_of, energy_of, latency_of
from edgecap.record import Absent, Cell, Decode, Profile

MOST_VERSIONS = 4  # library versions that a mismatch names


def conditions(record: Profile, cell: Cell) -> dict[str, object]:
    """Return the value of each condition by name; None where the cell does not have it."""
    text, latency, energy = compression_of(cell), latency_of(cell), energy_of(cell)
    decode = latency.decode if latency and isinstance(latency.decode, Decode) else None
    return {
        "model": record.source.weights_sha256,
        "tokenizer": record.source.tokenizer_sha256,
        "corpus": record.corpus.sha256,
        "bias": record.corpus.bias_bits,
        **law_conditions(law_of(record)),
        "protocol": text and text.protocol,
        "window of the text": text and text.context,
        "stride of the windows": text and (text.stride or "none"),
        "prompt length": latency and latency.prefill.tokens,
        "decode context": round(decode.context) if decode else None,
        "provider": cell.provider,
        "machine": record.machine.name,
        "processor": record.machine.processor,
        "CPU quota": _quota(record),
        "number of threads": latency and latency.threads,
        "affinity": record.spec.affinity or "none",
        "graph optimisation level": record.spec.graph_level,
        "use of the memory arena": record.spec.arena,
        "way of counting joules": energy and (energy.provenance, energy.domains),
        "power source": record.machine.power_source,
        "set of library versions": record.machine.versions,
    }


def _quota(record: Profile) -> str:
    """Return the CPU quota of the container; "none" also in records that do not hold it."""
    quota = record.machine.cpu_quota
    return "none" if quota is None else f"{quota:.3g} processors"


def mismatches(baseline: dict[str, object], candidate: dict[str, object]) -> dict[str, str]:
    """Return the conditions in which two cells differ, each with a sentence that says so.

    A condition that either cell lacks is left out.
    """
    return {
        name: _mismatch(name, x, y)
        for name, x in baseline.items()
        if x != (y := candidate[name]) and x is not None and y is not None
    }


def _mismatch(name: str, x: object, y: object) -> str:
    """Describe a mismatch: `number of threads differs: 2 against 4`; hashes are not shown."""
    if isinstance(x, dict) and isinstance(y, dict):
        return f"{name} differs: {_different_versions(x, y)}"
    words = [_words(value) for value in (x, y)]
    return f"{name} differs" if None in words else f"{name} differs: {words[0]} against {words[1]}"


def _different_versions(x: dict[str, str], y: dict[str, str]) -> str:
    names = [name for name in {**x, **y} if x.get(name) != y.get(name)]
    versions = [f"{n} {x.get(n, 'none')} against {y.get(n, 'none')}" for n in names[:MOST_VERSIONS]]
    rest = f" and {len(names) - MOST_VERSIONS} more" if names[MOST_VERSIONS:] else ""
    return f"{', '.join(versions)}{rest}"


def _words(value: object) -> str | None:
    """Return the value of a condition in words; None for a hash."""
    if value is None or isinstance(value, Absent):
        return "unknown"
    if isinstance(value, tuple):
        return " ".join(" ".join(part) if isinstance(part, tuple) else str(part) for part in value)
    return None if re.fullmatch("[0-9a-f]{64}", str(value)) else str(value)
