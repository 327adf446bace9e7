"""Records and comparisons as plain values for `--json`: the record, and its medians with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from edgecap import stats
from edgecap.analysis import score
from edgecap.record import Absent, Cell, Energy, Estimate, Latency, Measurement, Profile

if TYPE_CHECKING:
    from edgecap.analysis.compare import Comparison


def record_values(record: Profile) -> dict[str, Any]:
    """The record as JSON values; each measured cell has `medians` beside its outcome."""
    values: dict[str, Any] = msgspec.to_builtins(record)
    for plain, cell in zip(values["cells"], record.cells, strict=True):
        plain["medians"] = msgspec.to_builtins(medians(cell))
    return values


def measured_cells(record: Profile) -> list[tuple[Cell, Measurement]]:
    """The cells that were measured, with what was."""
    return [(c, c.outcome) for c in record.cells if isinstance(c.outcome, Measurement)]


def comparison_values(comparisons: list[Comparison]) -> list[dict[str, Any]]:
    """Comparisons as JSON values."""
    return [msgspec.to_builtins(c) for c in comparisons]


def medians(cell: Cell, intervals: bool = True) -> dict[str, Estimate | Absent]:
    """`prefill_s`, `decode_s`, `decode_tokens_per_s`, `decode_p50_s` to `decode_p99_s`, joules a token (gross, and `_net_`), with 95 % intervals."""
    seed = stats.SEED if intervals else None
    outcome = cell.outcome
    if not isinstance(outcome, Measurement):
        return {}
    found: dict[str, Estimate | Absent] = {}
    if isinstance(outcome.latency, Latency):
        found["prefill_s"] = stats.interval(*score.prefill_seconds(outcome.latency, seed))
        found |= _of_decoding(outcome.latency, seed)
    if isinstance(outcome.energy, Energy):
        energy = outcome.energy
        found["prefill_j"] = stats.interval(*score.prefill_joules(energy, seed))
        found["decode_j"] = score.estimated(score.decode_joules(energy, seed))
        found["prefill_net_j"] = stats.interval(*score.prefill_joules(energy, seed, net=True))
        found["decode_net_j"] = score.estimated(score.decode_joules(energy, seed, net=True))
        found["nll_j"] = score.estimated(score.nll_joules(energy, seed))
    else:
        found["decode_j"] = outcome.energy
    return found


def _of_decoding(latency: Latency, seed: int | None) -> dict[str, Estimate | Absent]:
    decode = score.estimated(score.decode_seconds(latency, seed))
    if isinstance(decode, Absent) or isinstance(latency.decode, Absent):
        return {"decode_s": decode}
    quantiles = {f"decode_p{p}_s": _quantile(latency.decode.samples_s, p) for p in (50, 90, 99)}
    return {"decode_s": decode, **quantiles, "decode_tokens_per_s": _inverse(decode)}


def _quantile(samples: tuple[float, ...], percent: int) -> Estimate:
    """Of single samples, without an interval: they are no sample of another run."""
    return Estimate(value=stats.quantile(samples, percent / 100), low=None, high=None)


def _inverse(e: Estimate) -> Estimate:
    return Estimate(
        value=1 / e.value,
        low=None if e.high is None else 1 / e.high,
        high=None if e.low is None else 1 / e.low,
    )
