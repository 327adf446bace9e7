"""Which documents a small model keeps and which go on to a large one, by how hard the small one finds them. Pure.

The device-edge-cloud use that arXiv 2511.08066 has in mind, from the bits of each document and the measured costs. The
router sees only the small model's bits per byte of a document; above a threshold the large one works too, and the
small one's work of judging is paid all the same. A token costs what a decoded one was measured to cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from edgecap import stats
from edgecap.analysis.cell_labels import machine_names
from edgecap.analysis.cell_view import cell_views
from edgecap.analysis.routing.sides import RoutedPair, Side, pair_of, refuse_unlike, scored, too_few
from edgecap.analysis.routing.splits import Split, decide, shown, splits_of
from edgecap.errors import UsageError
from edgecap.record import Estimate, Profile

__all__ = ["FEW", "Route", "Side", "Split", "route"]
FEW = 10  # documents
UNITS = {"time": "s", "energy": "J"}


class Route(msgspec.Struct, frozen=True):
    """The two models, the splits that are shown, and what to do.

    `verdict` is "split" with the `best` one; "small alone" or "large alone", which does better by itself; "no gain", or
    "out of reach" of `at_most` bits per byte; `reason` says why. `best` is the cheapest split within `at_most`, or else
    the one that lies furthest below what a random share of the same cost would give. `saved` are its bits per byte
    below the small model alone, `domains` the share of each domain's bytes that it sends on. `unit` is of the costs.
    """

    by: str
    unit: str
    documents: int
    small: Side
    large: Side
    at_most: float | None
    splits: tuple[Split, ...]
    verdict: str
    reason: str
    best: Split | None
    saved: Estimate | None
    domains: dict[str, float]
    left_out: dict[str, str]
    cautions: tuple[str, ...]


def route(records: Sequence[Profile], by: str = "time", at_most: float | None = None) -> Route:
    """The small and the large model among the cells of the records, and how to split the documents between them.

    `by` is time or energy, `at_most` bits per byte. Raises UsageError where fewer than two cells have what it takes,
    or where they did not score the same text alike.
    """
    if by not in UNITS:
        raise UsageError(f"--route-by takes time or energy, not '{by}'")
    found, left_out = scored(cell_views(records), by)
    if len(found) < 2:
        raise UsageError(too_few(found, left_out, by))
    refuse_unlike(found)
    pair = pair_of(found)
    splits = [] if pair.small is pair.large else splits_of(pair)
    verdict = decide(splits, pair, at_most)
    return Route(
        by=by,
        unit=UNITS[by],
        documents=len(pair.order),
        small=pair.low,
        large=pair.high,
        at_most=at_most,
        splits=shown(splits),
        verdict=verdict.word,
        reason=verdict.reason,
        best=verdict.best,
        saved=_saved(pair, verdict.best) if verdict.best else None,
        domains=_domains(pair, verdict.best) if verdict.best else {},
        left_out=left_out,
        cautions=_cautions(pair, by),
    )


def _saved(pair: RoutedPair, best: Split) -> Estimate:
    """Bits per byte below the small model alone, documents resampled."""
    import numpy as np

    own, other = pair.small.documents, pair.large.documents
    sent = set(pair.order[: best.documents])
    saved = [d.nll_bits - other[n].nll_bits if n in sent else 0.0 for n, d in enumerate(own)]
    sums = stats.bootstrap_sums(np.array([[d.bytes for d in own], saved], np.float64).T)
    draws = sums[:, 1] / sums[:, 0].clip(1) if len(own) > 1 else None
    return stats.interval(pair.low.bits_per_byte - best.bits_per_byte, draws)


def _domains(pair: RoutedPair, best: Split) -> dict[str, float]:
    """The share of each domain's bytes that goes on, the largest first."""
    total, sent = Counter[str](), Counter[str]()
    for place, n in enumerate(pair.order):
        document = pair.small.documents[n]
        total[document.domain] += document.bytes
        sent[document.domain] += document.bytes if place < best.documents else 0
    shares = {domain: sent[domain] / max(total[domain], 1) for domain in total}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _cautions(pair: RoutedPair, by: str) -> tuple[str, ...]:
    found = []
    if len(pair.order) < FEW:
        found.append(f"{len(pair.order)} documents are few to find a threshold with; score more")
    machines = machine_names(s.view.record for s in (pair.small, pair.large))
    if len(machines) > 1:
        found.append(
            f"measured on two machines ({', '.join(machines)}): each cost holds on its own one only, "
            "and what it costs to move text is not counted"
        )
    ways = {(e.provenance, e.domains) for s in (pair.small, pair.large) if (e := s.view.energy)}
    if by == "energy" and len(ways) > 1:
        found.append(
            "the joules of the two were counted in different ways: edgecap show --details tells which"
        )
    return tuple(found)
