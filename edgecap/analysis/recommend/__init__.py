"""Recommend a variant under limits: the best, the runner-up, and the cost of each limit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from edgecap.analysis.cell_view import CellView, cell_views
from edgecap.analysis.compare import Comparison, compare
from edgecap.analysis.recommend.candidates import (
    Candidate,
    Considered,
    consider,
    with_noise,
    with_worth,
)
from edgecap.analysis.recommend.costs import Key, LimitCost, Relaxation, costs, nearest, relaxations
from edgecap.analysis.recommend.limits import OPTIONS, Limit, parse_limit
from edgecap.analysis.recommend.notes import notes
from edgecap.analysis.recommend.preference import (
    Preference,
    choose,
    differences,
    refuse_unlike,
    sort_key,
)
from edgecap.analysis.recommend.steps import next_steps
from edgecap.analysis.verdict import Decision, decide
from edgecap.errors import UsageError
from edgecap.record import Profile

__all__ = ["OPTIONS", "SHOWN", "Candidate", "Limit", "Recommendation", "parse_limit", "recommend"]
SHOWN = 12  # rows of the table; only their intervals are computed


class Recommendation(msgspec.Struct, frozen=True):
    """The variant to ship, or the nearest one if nothing fits.

    `candidates` are all cells, the best first. `beside` compares the best with the runner-up,
    metric by metric; `costs` has one row per limit. If nothing fits, `best` is None, `nearest` and
    `relaxations` show how near the cells come, and `steps` what to try. `cautions` concern the
    answer as a whole.
    """

    preference: Preference
    limits: tuple[Limit, ...]
    best: Candidate | None
    runner_up: Candidate | None
    beside: Comparison | None
    costs: tuple[LimitCost, ...]
    nearest: Candidate | None
    relaxations: tuple[Relaxation, ...]
    steps: tuple[str, ...]
    cautions: tuple[str, ...]
    candidates: tuple[Candidate, ...]


def recommend(
    records: Sequence[Profile], limits: Sequence[Limit] = (), prefer: str | None = None
) -> Recommendation:
    """Choose the best cell of the records within the limits.

    `prefer` is capacity (the default), speed, quality, memory, energy or size. Raise UsageError if
    no cell was measured, or if quality decides between records that cannot be compared.
    """
    cells = with_worth([consider(view, limits) for view in cell_views(records)])
    measured = [c for c in cells if c.measured]
    if not measured:
        raise UsageError(_nothing_measured(cells))
    different = differences(measured)
    refuse_unlike(limits, prefer, different)
    preference = choose(prefer, [c for c in measured if c.fits()] or measured, different)
    decision = _decision(cells, preference)
    judged = decision is not None and not decision.doubt
    key = partial(sort_key, preference.metric, decision.shipped if decision and judged else None)
    ranked = [
        with_noise(c, limits) if n < SHOWN else c
        for n, c in enumerate(sorted(cells, key=partial(_rank, key)))
    ]
    return _answer(ranked, tuple(limits), preference, key, notes(ranked, different))


def _decision(cells: Sequence[Considered], preference: Preference) -> Decision | None:
    """Return the verdict on the cells of most worth that fit: what is better beyond doubt.

    None if something else decides, or if several models or machines are to choose from.
    """
    if preference.metric != "worth":
        return None
    fitting = [c for c in cells if c.fits()]
    first = [c for c in fitting if c.view.cell.precision == "fp32"][:1]
    best = sorted(fitting, key=partial(sort_key, "worth", None))[:SHOWN]
    decisions = decide([*dict.fromkeys(c.view for c in (*first, *best))])
    return decisions[0] if len(decisions) == 1 else None


def _nothing_measured(cells: Sequence[Considered]) -> str:
    if not cells:
        return (
            "nothing to recommend: the record holds no cell; the run was cut off before the first"
        )
    first = cells[0].candidate
    return f"nothing to recommend: no cell was measured; {first.name} failed: {first.failure}"


def _rank(key: Key, cell: Considered) -> tuple[object, ...]:
    """Order cells: those that fit, the best first; those that miss, the nearest first; the rest."""
    place = ("fits", "misses", "not measured", "failed").index(cell.candidate.state)
    return place, cell.over if place == 1 else 0.0, key(cell)


def _answer(
    ranked: Sequence[Considered],
    limits: tuple[Limit, ...],
    preference: Preference,
    key: Key,
    cautions: tuple[str, ...],
) -> Recommendation:
    fitting = [c for c in ranked if c.fits()]
    near = None if fitting else nearest(ranked, key)
    return Recommendation(
        preference=preference,
        limits=limits,
        best=fitting[0].candidate if fitting else None,
        runner_up=fitting[1].candidate if len(fitting) > 1 else None,
        beside=_beside(fitting[0].view, fitting[1].view) if len(fitting) > 1 else None,
        costs=costs(ranked, limits, key, _cost_metrics(preference.metric)) if fitting else (),
        nearest=near.candidate if near else None,
        relaxations=() if fitting else relaxations(ranked, limits, key),
        steps=() if fitting else next_steps(ranked, limits),
        cautions=cautions,
        candidates=tuple(c.candidate for c in ranked),
    )


def _cost_metrics(preferred: str) -> list[str]:
    """Return the metrics that show the cost of a limit: the preferred, quality and speed."""
    speed = "prefill_s" if preferred == "prefill_s" else "decode_s"
    return list(dict.fromkeys((preferred, "bits_per_byte", speed)))


def _beside(best: CellView, second: CellView) -> Comparison:
    """Compare the best with the runner-up, as `edgecap compare` does."""
    base = f"precision={second.cell.precision}"
    if second.place == best.place:
        records = [msgspec.structs.replace(best.record, cells=(second.cell, best.cell))]
    else:
        records = [msgspec.structs.replace(c.record, cells=(c.cell,)) for c in (second, best)]
    return compare(records, base)[0]
