"""The best variant under a user's limits, the runner-up, and what each limit costs; pure, from records alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from edgecap.analysis.cell_view import CellView, cell_views
from edgecap.analysis.compare import Comparison, compare
from edgecap.analysis.recommend.candidates import Candidate, Considered, consider, with_noise
from edgecap.analysis.recommend.costs import Key, LimitCost, Relaxation, costs, nearest, relaxations
from edgecap.analysis.recommend.limits import OPTIONS, Limit, parse_limit
from edgecap.analysis.recommend.notes import notes
from edgecap.analysis.recommend.preference import (
    Preference,
    better,
    choose,
    differences,
    refuse_unlike,
)
from edgecap.analysis.recommend.steps import next_steps
from edgecap.errors import UsageError
from edgecap.record import Profile

__all__ = ["OPTIONS", "SHOWN", "Candidate", "Limit", "Recommendation", "parse_limit", "recommend"]
SHOWN = 12  # rows of the table, whose intervals are looked at


class Recommendation(msgspec.Struct, frozen=True):
    """What to ship, or what is nearest where nothing fits.

    `candidates` are all cells, the best first. `beside` holds the best against the runner-up, metric by metric;
    `costs` has a row a limit. Where nothing fits, `best` is None, `nearest` and `relaxations` tell how near the cells
    come, and `steps` what to try. `cautions` are what should be known of the answer.
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
    """The best cell of the records within the limits, by `prefer`: capacity (the default), speed, quality, memory, energy, size.

    Raises UsageError where no cell was measured, or where quality is asked of records that cannot be compared.
    """
    everything = [consider(view, limits) for view in cell_views(records)]
    measured = [c for c in everything if c.measured]
    if not measured:
        raise UsageError(_nothing(everything))
    different = differences(measured)
    refuse_unlike(limits, prefer, different)
    preference = choose(prefer, [c for c in measured if c.fits()] or measured, different)
    key = partial(better, preference.metric)
    ranked = [
        with_noise(c, limits) if n < SHOWN else c
        for n, c in enumerate(sorted(everything, key=partial(_rank, key)))
    ]
    return _answer(ranked, tuple(limits), preference, key, notes(ranked, different))


def _nothing(everything: Sequence[Considered]) -> str:
    if not everything:
        return (
            "nothing to recommend: the record holds no cell; the run was cut off before the first"
        )
    first = everything[0].candidate
    return f"nothing to recommend: no cell was measured; {first.name} failed: {first.failure}"


def _rank(key: Key, found: Considered) -> tuple[object, ...]:
    """Those that fit, the best first; then those that miss, the nearest first; then what cannot be told."""
    place = ("fits", "misses", "not measured", "failed").index(found.candidate.state)
    return place, found.over if place == 1 else 0.0, key(found)


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
        costs=costs(ranked, limits, key, _told(preference.metric)) if fitting else (),
        nearest=near.candidate if near else None,
        relaxations=() if fitting else relaxations(ranked, limits, key),
        steps=() if fitting else next_steps(ranked, limits),
        cautions=cautions,
        candidates=tuple(c.candidate for c in ranked),
    )


def _told(metric: str) -> list[str]:
    """What a limit costs is told in what is preferred, in quality and in speed."""
    return list(
        dict.fromkeys(
            (metric, "bits_per_byte", "prefill_s" if metric == "prefill_s" else "decode_s")
        )
    )


def _beside(best: CellView, second: CellView) -> Comparison:
    """The best against the runner-up, as edgecap compare has it."""
    base = f"precision={second.cell.precision}"
    if second.place == best.place:
        records = [msgspec.structs.replace(best.record, cells=(second.cell, best.cell))]
    else:
        records = [msgspec.structs.replace(c.record, cells=(c.cell,)) for c in (second, best)]
    return compare(records, base)[0]
