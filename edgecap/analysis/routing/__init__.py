"""Route documents between a small and a large model, by how hard the small one finds them.

This is the device-edge-cloud use that arXiv 2511.08066 has in mind, computed from the bits of each
document and the measured costs. The router sees the small model's bits per byte of a document:
above a threshold the large model processes it too, and the small model's cost is paid all the same.
Each token costs as much as a decoded one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from edgecap import stats
from edgecap.analysis.cell_labels import record_devices
from edgecap.analysis.cell_view import cell_views
from edgecap.analysis.routing.sides import (
    RoutedPair,
    Side,
    choose_pair,
    price_cells,
    refuse_unlike,
    too_few,
)
from edgecap.analysis.routing.splits import Split, all_splits, decide, shown_splits
from edgecap.errors import UsageError
from edgecap.record import Estimate, Profile

__all__ = ["FEW", "Route", "Side", "Split", "route"]
FEW = 10  # documents, below which a threshold is uncertain
UNITS = {"time": "s", "energy": "J"}


class Route(msgspec.Struct, frozen=True):
    """The two models, a selection of splits, and the verdict.

    `verdict` is "split" (take the `best` one), "small alone" or "large alone" (that model does
    better by itself), "no gain", or "out of reach" (of `at_most` bits per byte); `reason` explains
    it. `best` is the cheapest split within `at_most`; without a limit, the one with the most bits
    per byte below a random share of the same cost. `saved` are its bits per byte below the small
    model alone, `domains` the share of each domain's bytes that it routes. `unit` is that of costs.
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
    """Choose the small and the large model among the cells, and split the documents between them.

    `by` is time or energy, `at_most` a limit in bits per byte. Raise UsageError if fewer than two
    cells can take part, or if they did not score the same text alike.
    """
    if by not in UNITS:
        raise UsageError(f"--route-by takes time or energy, not '{by}'")
    cells, left_out = price_cells(cell_views(records), by)
    if len(cells) < 2:
        raise UsageError(too_few(cells, left_out, by))
    refuse_unlike(cells)
    pair = choose_pair(cells)
    splits = [] if pair.small is pair.large else all_splits(pair)
    verdict = decide(splits, pair, at_most)
    return Route(
        by=by,
        unit=UNITS[by],
        documents=len(pair.order),
        small=pair.low,
        large=pair.high,
        at_most=at_most,
        splits=shown_splits(splits),
        verdict=verdict.word,
        reason=verdict.reason,
        best=verdict.best,
        saved=_saved(pair, verdict.best) if verdict.best else None,
        domains=_domains(pair, verdict.best) if verdict.best else {},
        left_out=left_out,
        cautions=_cautions(pair, by),
    )


def _saved(pair: RoutedPair, best: Split) -> Estimate:
    """Return bits per byte below the small model alone, documents resampled."""
    import numpy as np

    own, other = pair.small.documents, pair.large.documents
    sent = set(pair.order[: best.documents])
    saved = [d.nll_bits - other[n].nll_bits if n in sent else 0.0 for n, d in enumerate(own)]
    sums = stats.bootstrap_sums(np.array([[d.bytes for d in own], saved], np.float64).T)
    draws = sums[:, 1] / sums[:, 0].clip(1) if len(own) > 1 else None
    return stats.interval(pair.low.bits_per_byte - best.bits_per_byte, draws)


def _domains(pair: RoutedPair, best: Split) -> dict[str, float]:
    """Return the share of each domain's bytes that is routed, the largest first."""
    total, sent = Counter[str](), Counter[str]()
    for place, n in enumerate(pair.order):
        document = pair.small.documents[n]
        total[document.domain] += document.bytes
        sent[document.domain] += document.bytes if place < best.documents else 0
    shares = {domain: sent[domain] / max(total[domain], 1) for domain in total}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _cautions(pair: RoutedPair, by: str) -> tuple[str, ...]:
    views = (pair.small.view, pair.large.view)
    cautions = []
    if len(pair.order) < FEW:
        cautions.append(f"{len(pair.order)} documents are few to find a threshold with; score more")
    machines = list(dict.fromkeys(record_devices(view.record for view in views)))
    if len(machines) > 1:
        cautions.append(
            f"measured on two machines ({', '.join(machines)}): each cost holds on its own one "
            "only, and what it costs to move text is not counted"
        )
    counters = {(e.provenance, e.domains) for view in views if (e := view.energy)}
    if by == "energy" and len(counters) > 1:
        cautions.append(
            "the joules of the two were counted in different ways: edgecap show tells which"
        )
    return tuple(cautions)
