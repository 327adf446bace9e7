"""Cells held against the limits: what each figure is, whether it is within, and why it cannot be told where it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from edgecap import stats
from edgecap.analysis import metrics, score
from edgecap.analysis.cell_labels import CellView
from edgecap.analysis.metrics import energy_of, latency_of, told
from edgecap.analysis.recommend.limits import Limit
from edgecap.record import Absent, Estimate, Failure

# What is shown of a cell, and what may be preferred or limited.
FIGURES = (
    *(
        "hardware_capacity",
        "time_capacity",
        "bits_per_byte",
        "divergence_bits",
        "decode_s",
        "prefill_s",
    ),
    *("decode_j", "prefill_j", "peak_bytes", "file_bytes"),
)
JOULES = ("decode_j", "prefill_j")


class Held(msgspec.Struct, frozen=True):
    """A figure beside its limit: `met`, `missed` or `not measured`, with the reason.

    `over` is value / limit - 1. `in_noise`: the limit lies within the figure's 95 % interval; None where that was not
    looked at, since only the cells of the table are drawn.
    """

    metric: str
    state: str
    value: float | None = None
    over: float | None = None
    in_noise: bool | None = None
    reason: str | None = None


class Candidate(msgspec.Struct, frozen=True):
    """A cell by name, its figures, and whether it `fits`, `misses` a limit, is `not measured` enough to tell, or `failed`."""

    name: str
    precision: str
    provider: str
    model: str
    machine: str
    state: str
    figures: dict[str, float | Absent]
    held: tuple[Held, ...]
    prompt: int | None = None
    failure: str | None = None


class Considered(NamedTuple):
    """A candidate, and the cell that it is."""

    candidate: Candidate
    choice: CellView

    @property
    def measured(self) -> bool:
        """Whether there are any figures."""
        return self.candidate.state != "failed"

    @property
    def over(self) -> float:
        """How far the worst figure is above its limit, as a share of it; not above 0 where all are met."""
        return max((h.over for h in self.candidate.held if h.over is not None), default=0.0)

    def figure(self, metric: str) -> float | None:
        """A figure, None where it is absent."""
        found = self.candidate.figures.get(metric)
        return found if isinstance(found, float) else None

    def fits(self, but: int | None = None) -> bool:
        """Whether all limits are met, apart from the one at place `but`."""
        return self.measured and all(
            h.state == "met" for n, h in enumerate(self.candidate.held) if n != but
        )


def consider(choice: CellView, limits: Sequence[Limit]) -> Considered:
    """A cell held against the limits, by its values alone."""
    failure = choice.cell.outcome if isinstance(choice.cell.outcome, Failure) else None
    figures: dict[str, float | Absent] = {} if failure else _figures(choice)
    held = tuple(_hold(limit, figures[limit.metric]) for limit in limits) if figures else ()
    latency = latency_of(choice.cell)
    candidate = Candidate(
        name=choice.label,
        precision=choice.cell.precision,
        provider=choice.cell.provider,
        model=choice.record.source.name,
        machine=choice.record.machine.name,
        state="failed" if failure else _state(held),
        figures=figures,
        held=held,
        prompt=latency.prefill.tokens if latency else None,
        failure=told(failure) if failure else None,
    )
    return Considered(candidate, choice)


def _figures(choice: CellView) -> dict[str, float | Absent]:
    """Values without draws. Joules that were assumed are no measurement."""
    found = metrics.quantities(choice.record, choice.cell)
    energy = energy_of(choice.cell)
    assumed = score.scored_energy(energy) if energy else None
    if isinstance(assumed, Absent):
        found |= dict.fromkeys(JOULES, assumed)
    return {
        name: q if isinstance(q, Absent) else float(q[0])
        for name, q in found.items()
        if name in FIGURES
    }


def _hold(limit: Limit, figure: float | Absent) -> Held:
    if isinstance(figure, Absent):
        return Held(limit.metric, "not measured", reason=figure.reason)
    return Held(
        limit.metric, "met" if figure <= limit.most else "missed", figure, figure / limit.most - 1
    )


def _state(held: Sequence[Held]) -> str:
    """A limit that is missed is missed, whatever else was not measured."""
    states = {h.state for h in held}
    return (
        "misses" if "missed" in states else "not measured" if "not measured" in states else "fits"
    )


def with_noise(found: Considered, limits: Sequence[Limit]) -> Considered:
    """The same, with each figure's interval beside its limit."""
    if not found.candidate.held:
        return found
    drawn = metrics.quantities(found.choice.record, found.choice.cell, stats.SEED)
    held = tuple(
        _beside(h, drawn[h.metric], limit)
        for h, limit in zip(found.candidate.held, limits, strict=True)
    )
    return found._replace(candidate=msgspec.structs.replace(found.candidate, held=held))


def _beside(held: Held, drawn: score.Quantity | Absent, limit: Limit) -> Held:
    if held.value is None or isinstance(drawn, Absent):
        return held
    return msgspec.structs.replace(held, in_noise=_straddles(score.estimate(*drawn), limit.most))


def _straddles(found: Estimate, most: float) -> bool:
    return found.low is not None and found.high is not None and found.low < most < found.high
