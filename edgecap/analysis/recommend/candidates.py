"""Cells checked against the limits: the metrics of each, and whether each limit is met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from edgecap import stats
from edgecap.analysis import metrics, score
from edgecap.analysis.cell_view import CellView
from edgecap.analysis.decoding import decoding_shift
from edgecap.analysis.law import law_of, slopes_for
from edgecap.analysis.metrics import METRICS
from edgecap.analysis.outcomes import failure_of
from edgecap.analysis.recommend.limits import Limit
from edgecap.analysis.verdict import Decision
from edgecap.record import Absent, Compression, Estimate, Flops

# The metrics that an answer shows, and that may be preferred or limited, in the order of columns.
FIGURES = (
    *("worth", "bits_per_byte", "divergence_bits", "decode_s"),
    *("prefill_s", "decode_j", "prefill_j", "peak_bytes", "file_bytes"),
)
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
    """Add the worth of each cell beside the first fp32 cell that was scored and timed, or any."""
    points = [_point(c) for c in cells]
    known = [(c, p) for c, p in zip(cells, points, strict=True) if isinstance(p, _Point)]
    first = next((p for c, p in known if c.view.cell.precision == "fp32"), None)
    first = first or next((p for _, p in known), None)
    records = {id(c.view.record): c.view.record for c, _ in known}.values()
    flops = [r.flops.per_token for r in records if isinstance(r.flops, Flops)]
    slope = slopes_for(next(map(law_of, records), _NO_LAW), flops).middle
    return [
        _with_figure(c, "worth", _worth(first, p, slope) if isinstance(p, _Point) else p)
        if c.measured
        else c
        for c, p in zip(cells, points, strict=True)
    ]


_NO_LAW = Absent(reason="no cell was scored and timed")


class _Point(NamedTuple):
    """Bits that a decoded token gains, and its seconds."""

    gain: float
    seconds: float


def _point(considered: Considered) -> _Point | Absent:
    view, seconds = considered.view, considered.candidate.figures.get("decode_s")
    if not isinstance(seconds, float):
        return seconds or Absent(reason="it was not measured")
    text = view.measured.compression if view.measured else None
    if not isinstance(text, Compression):
        return text or Absent(reason="no text was scored")
    return _Point(text.gain_bits_per_token - decoding_shift(view.record, view.cell), seconds)


def _worth(first: _Point | None, point: _Point, slope: float) -> float:
    first = first or point
    gain: float = 2.0 ** ((point.gain - first.gain) / slope)
    return gain * first.seconds / point.seconds


def _with_figure(considered: Considered, name: str, value: float | Absent) -> Considered:
    figures = {**considered.candidate.figures, name: value}
    return considered._replace(
        candidate=msgspec.structs.replace(considered.candidate, figures=figures)
    )


def with_ratios(cells: Sequence[Considered], decision: Decision) -> list[Considered]:
    """Take the worth of the verdict, of rounds in turns, where it has the same baseline."""
    same = any(c.view is decision.baseline and c.figure("worth") == 1 for c in cells)
    ratios = {id(o.view): o.against.ratio(decision.metric) for o in decision.options if same}
    return [
        _with_figure(c, "worth", ratio.value) if (ratio := ratios.get(id(c.view))) else c
        for c in cells
    ]


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
