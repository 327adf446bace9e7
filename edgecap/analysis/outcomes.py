"""The outcome of a cell: its parts if it was measured, its failure in a line, its status."""

from __future__ import annotations

from edgecap.record import (
    LEFT_OUT,
    Absent,
    Cell,
    Compression,
    Energy,
    Failure,
    Latency,
    Measurement,
)

# Codes of cautions that concern seconds; those that concern joules begin with "energy-".
TIMING_CAUTIONS = frozenset(
    [
        "above-peak",
        "battery",
        "bimodal",
        "board-busy",
        "board-busy-meanwhile",
        "board-clock",
        "board-throttled",
        "clock-step",
        "cpu-quota-throttled",
        "fallback",
        "few-rounds",
        "frequency",
        "governor",
        "interrupted",
        "latency-failed",
        "no-kv-cache",
        "noisy",
        "one-after-another",
        "other-load",
        "other-load-meanwhile",
        "slept",
        "slow-first-round",
        "steal",
        "threads-above-quota",
        "throttled",
    ]
)


def failure_text(failure: Failure) -> str:
    """Return stage, error and message of a failure as one line."""
    return f"{failure.stage}: {failure.error}: {failure.message}"


def failure_of(cell: Cell) -> str:
    """Return the failure of a cell as one line; empty if the cell was measured."""
    return failure_text(cell.outcome) if isinstance(cell.outcome, Failure) else ""


def cost_cautions(cell: Cell) -> tuple[str, ...]:
    """Return the codes of a cell's cautions that concern seconds or joules, sorted."""
    codes = {caution.code for caution in cell.cautions}
    return tuple(
        sorted(code for code in codes if code in TIMING_CAUTIONS or code.startswith("energy-"))
    )


def status(cell: Cell) -> str:
    """Return `measured`, `failed`, or `left out` (by --skip-unfit)."""
    if not isinstance(cell.outcome, Failure):
        return "measured"
    return "left out" if cell.outcome.stage == LEFT_OUT else "failed"


def has_failure(cell: Cell) -> bool:
    """Return True if the cell or a part of it failed; False if --skip-unfit left it out."""
    outcome = cell.outcome
    if isinstance(outcome, Failure):
        return status(cell) == "failed"
    latency = outcome.latency if isinstance(outcome.latency, Latency) else None
    return (
        any(isinstance(x, Absent) and x.failed for x in (outcome.latency, outcome.memory))
        or any(isinstance(point, Failure) for point in (latency.throughput if latency else ()))
        or any(point.failed for point in (latency.sweep if latency else ()))
    )


def latency_of(cell: Cell) -> Latency | None:
    """Return the latency of a cell, or None if it was not timed."""
    part = cell.outcome.latency if isinstance(cell.outcome, Measurement) else None
    return part if isinstance(part, Latency) else None


def compression_of(cell: Cell) -> Compression | None:
    """Return the scored text of a cell, or None if none was scored."""
    part = cell.outcome.compression if isinstance(cell.outcome, Measurement) else None
    return part if isinstance(part, Compression) else None


def energy_of(cell: Cell) -> Energy | None:
    """Return the energy of a cell, or None if it was not measured."""
    part = cell.outcome.energy if isinstance(cell.outcome, Measurement) else None
    return part if isinstance(part, Energy) else None
