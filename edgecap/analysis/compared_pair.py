"""Two measured cells side by side: how they differ, and what a law says of both."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from edgecap import stats
from edgecap.analysis import score
from edgecap.analysis.cell_view import CellView
from edgecap.analysis.decoding import decoding_shift
from edgecap.analysis.draws import likeness
from edgecap.analysis.law import Slopes, law_of, slopes_for
from edgecap.analysis.run_conditions import mismatches
from edgecap.record import Absent, Flops

_NONE = Absent(reason="not measured")


class ComparedCell(NamedTuple):
    """A measured cell, its effective FLOPs by metric, and what cells drawn with it share."""

    view: CellView
    effective: dict[str, float | None]
    likeness: Hashable


class ComparedPair(NamedTuple):
    """Two measured cells, and the sentence for each condition in which they differ.

    `in_turns` is true if the two were timed round by round together. `slopes` of the law may hold
    for both. `drift` bounds the relative drift of seconds by the spread of rounds in each; cells
    timed in turns have none.
    """

    below: ComparedCell
    above: ComparedCell
    mismatches: dict[str, str]
    in_turns: bool
    slopes: Slopes
    drift: dict[str, float]

    @property
    def likeness(self) -> Hashable:
        """Return what two pairs must have in common to be drawn together."""
        return (
            *(self.below.likeness, self.above.likeness),
            *(tuple(self.mismatches), self.in_turns, self.slopes),
        )

    @property
    def baseline(self) -> CellView:
        """Return the baseline."""
        return self.below.view

    @property
    def candidate(self) -> CellView:
        """Return the candidate."""
        return self.above.view

    @property
    def views(self) -> tuple[CellView, CellView]:
        """Return both cells."""
        return self.baseline, self.candidate


def compared_cell(view: CellView) -> ComparedCell:
    """Return a measured cell with its effective FLOPs."""
    return ComparedCell(view, _effective(view), likeness(view))


def compared_pair(below: ComparedCell, above: ComparedCell) -> ComparedPair:
    """Return a baseline with one candidate."""
    different = mismatches(below.view.conditions, above.view.conditions)
    in_turns = _in_turns(below.view, above.view)
    drift = {} if in_turns else _drift(below.view, above.view)
    return ComparedPair(below, above, different, in_turns, _slopes(below, above), drift)


def _drift(baseline: CellView, candidate: CellView) -> dict[str, float]:
    return {name: max(x, candidate.spreads[name]) for name, x in baseline.spreads.items()}


def _in_turns(baseline: CellView, candidate: CellView) -> bool:
    return baseline.place == candidate.place and all(
        view.latency is not None and view.latency.in_turns for view in (baseline, candidate)
    )


def _effective(view: CellView) -> dict[str, float | None]:
    """Return effective FLOPs by metric, None where the cell has none."""
    record, text, energy = view.record, view.compression, score.scored_energy(view.energy or _NONE)
    gain = (text.gain_bits_per_token, None) if text else _NONE
    decoded = score.decoded_gain(gain, decoding_shift(record, view.cell))
    rounds = list(view.rounds["decode_s"].values())
    seconds = (stats.median(rounds), None) if rounds else _NONE
    joules = score.quantity_of(energy, lambda e: score.decode_joules(e, None))
    found = score.effective_scores(gain, decoded, seconds, joules, record.flops, law_of(record))
    return {name: None if isinstance(q, Absent) else q[0] for name, q in found.items()}


def _slopes(below: ComparedCell, above: ComparedCell) -> Slopes:
    """Return the slopes of the law that may hold for both, here and where their bits place them."""
    sides = (below, above)
    counted = [f.per_token for s in sides if isinstance(f := s.view.record.flops, Flops)]
    placed = [n for s in sides if (n := s.effective["effective_flops"]) is not None]
    return slopes_for(law_of(below.view.record), [*counted, *placed])
