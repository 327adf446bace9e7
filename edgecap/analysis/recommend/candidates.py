"""Cells checked against the limits: the metrics of each, and whether each limit is met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from edgecap import stats
from edgecap.analysis import metrics, score
from edgecap.analysis.cell_view import CellView
from edgecap.analysis.metrics import METRICS
from edgecap.analysis.outcomes import failure_of
from edgecap.analysis.recommend.limits import Limit
from edgecap.analysis.verdict import DECIDING, Differences, differences_from
from edgecap.record import Absent, Estimate

# The metrics that an answer shows, and that may be preferred or limited, in the order of columns.
FIGURES = (
    *("worth", "bits_per_byte", "divergence_bits", "decode_s"),
    *("prefill_s", "decode_j", "prefill_j", "peak_bytes", "file_bytes"),
)
WORTH = DECIDING[0]  # the metric of the verdict whose ratio is the worth of a cell
JOULES = tuple(metric.name for metric in METRICS if metric.unit == "J")


class Held(msgspec.Struct, frozen=True):
    """A metric beside its limit: `met`, `missed` or `not measured`, then with the reason.

    `over` is value / limit - 1. `in_noise` is true if the limit lies within the 95 % interval; None
    if that was not computed, since only the cells of the table are drawn.
    """

    metric: str
    state: str
    value: float | None = None
    over: float | None = None
    in_noise: bool | None = None
    reason: str | None = None


class Candidate(msgspec.Struct, frozen=True):
    """A flat row of the answer, as `--json` prints it, built from a CellView.

    `state` is `fits`, `misses` (a limit), `not measured` (a metric that is limited) or `failed`.
    """

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
    """A row of the answer with the view that it was built from, which JSON leaves out."""

    candidate: Candidate
    view: CellView

    @property
    def measured(self) -> bool:
        """Return True unless the cell failed."""
        return self.candidate.state != "failed"

    @property
    def over(self) -> float:
        """Return the largest excess over a limit, relative to it; at most 0 if all are met."""
        return max((h.over for h in self.candidate.held if h.over is not None), default=0.0)

    def figure(self, metric: str) -> float | None:
        """Return the value of a metric, or None if it is absent."""
        value = self.candidate.figures.get(metric)
        return value if isinstance(value, float) else None

    def fits(self, but: int | None = None) -> bool:
        """Return True if all limits are met, apart from the one at position `but`."""
        return self.measured and all(
            h.state == "met" for n, h in enumerate(self.candidate.held) if n != but
        )


def consider(view: CellView, limits: Sequence[Limit]) -> Considered:
    """Check a cell against the limits, by its values alone."""
    figures = _figures(view) if view.measured else {}
    held = tuple(_check(limit, figures[limit.metric]) for limit in limits) if figures else ()
    candidate = Candidate(
        name=view.label,
        precision=view.cell.precision,
        provider=view.cell.provider,
        model=view.record.source.name,
        machine=view.device,
        state=_state(held) if view.measured else "failed",
        figures=figures,
        held=held,
        prompt=view.latency.prefill.tokens if view.latency else None,
        failure=failure_of(view.cell) or None,
    )
    return Considered(candidate, view)


def _figures(view: CellView) -> dict[str, float | Absent]:
    """Return values without draws; assumed joules count as absent."""
    values = metrics.quantities(view.record, view.cell)
    energy = score.scored_energy(view.energy) if view.energy else None
    if isinstance(energy, Absent):
        values |= dict.fromkeys(JOULES, energy)
    return {
        name: q if isinstance(q, Absent) else float(q[0])
        for name, q in values.items()
        if name in FIGURES
    }


def with_worth(cells: Sequence[Considered]) -> list[Considered]:
    """Add the worth of each cell beside the first fp32 cell that was scored and timed, or any.

    It is the ratio that the verdict takes, which is Absent where the verdict has none.
    """
    known = [c for c in cells if c.measured and not _missing(c)]
    first = next((c for c in known if c.view.cell.precision == "fp32"), next(iter(known), None))
    worth: dict[int, float | Absent] = {}
    if first is not None:
        others = differences_from(first.view, [c.view for c in known], drawn=False)
        worth = {id(view): _worth(differences) for view, differences in others}
        worth[id(first.view)] = 1.0
    return [
        _with_figure(c, "worth", _missing(c) or worth[id(c.view)]) if c.measured else c
        for c in cells
    ]


def _missing(considered: Considered) -> Absent | None:
    """Return why a cell was not timed, or not scored; None if it was."""
    figures = considered.candidate.figures
    needed = (figures[name] for name in ("decode_s", "bits_per_byte"))
    return next((figure for figure in needed if isinstance(figure, Absent)), None)


def _worth(differences: Differences) -> float | Absent:
    ratio = differences.by_metric[WORTH].ratio
    return ratio if isinstance(ratio, Absent) else ratio.value


def _with_figure(considered: Considered, name: str, value: float | Absent) -> Considered:
    figures = {**considered.candidate.figures, name: value}
    return considered._replace(
        candidate=msgspec.structs.replace(considered.candidate, figures=figures)
    )


def _check(limit: Limit, figure: float | Absent) -> Held:
    if isinstance(figure, Absent):
        return Held(limit.metric, "not measured", reason=figure.reason)
    state = "met" if figure <= limit.most else "missed"
    return Held(limit.metric, state, figure, figure / limit.most - 1)


def _state(held: Sequence[Held]) -> str:
    """Return the state of a cell: a missed limit outweighs one that was not measured."""
    states = {h.state for h in held}
    if "missed" in states:
        return "misses"
    return "not measured" if "not measured" in states else "fits"


def with_noise(considered: Considered, limits: Sequence[Limit]) -> Considered:
    """Add to each limit whether it lies within the metric's interval."""
    candidate, view = considered
    if not candidate.held:
        return considered
    drawn = metrics.quantities(view.record, view.cell, stats.SEED)
    held = tuple(
        _with_noise(h, drawn[h.metric], limit)
        for h, limit in zip(candidate.held, limits, strict=True)
    )
    return Considered(msgspec.structs.replace(candidate, held=held), view)


def _with_noise(held: Held, drawn: stats.Quantity | Absent, limit: Limit) -> Held:
    if held.value is None or isinstance(drawn, Absent):
        return held
    in_noise = _contains(stats.interval(*drawn), limit.most)
    return msgspec.structs.replace(held, in_noise=in_noise)


def _contains(estimate: Estimate, value: float) -> bool:
    low, high = estimate.low, estimate.high
    return low is not None and high is not None and low < value < high
