"""Records and comparisons as plain values for `--json`: the record, and its medians with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from edgecap import score, stats
from edgecap.record import Absent, Cell, Energy, Estimate, Latency, Measurement, Profile

if TYPE_CHECKING:
    from edgecap.compare import Comparison


def record_values(record: Profile) -> dict[str, Any]:
    """The record as JSON values; each measured cell has `medians` beside its outcome."""
    values: dict[str, Any] = msgspec.to_builtins(record)
    for plain, cell in zip(values["cells"], record.cells, strict=True):
        plain["medians"] = msgspec.to_builtins(medians(cell))
    return values


def comparison_values(comparisons: list[Comparison]) -> list[dict[str, Any]]:
    """Comparisons as JSON values."""
    return [msgspec.to_builtins(c) for c in comparisons]


def medians(cell: Cell, intervals: bool = True) -> dict[str, Estimate | Absent]:
    """`prefill_s`, `decode_s`, `decode_tokens_per_s`, `prefill_j` and `decode_j` a token, with 95 % intervals."""
    seed = stats.SEED if intervals else None
    outcome = cell.outcome
    if not isinstance(outcome, Measurement):
        return {}
    found: dict[str, Estimate | Absent] = {}
    if isinstance(outcome.latency, Latency):
        decode = score.estimate(*score.decode_seconds(outcome.latency, seed))
        found["prefill_s"] = score.estimate(*score.prefill_seconds(outcome.latency, seed))
        found["decode_s"] = decode
        found["decode_tokens_per_s"] = _inverse(decode)
    if isinstance(outcome.energy, Energy):
        found["prefill_j"] = score.estimate(*score.prefill_joules(outcome.energy, seed))
        found["decode_j"] = score.estimate(*score.decode_joules(outcome.energy, seed))
    else:
        found["decode_j"] = outcome.energy
    return found


def _inverse(e: Estimate) -> Estimate:
    return Estimate(
        value=1 / e.value, low=None if e.high is None else 1 / e.high, high=None if e.low is None else 1 / e.low
    )
