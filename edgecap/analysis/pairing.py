"""Choose the pairs of cells to compare: a baseline with each other cell, or like with like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.outcomes import status
from edgecap.errors import UsageError
from edgecap.parsing import parse_pairs
from edgecap.provider_options import base_name
from edgecap.record import Profile


class MissingCell(NamedTuple):
    """A candidate that a record lacks, by the label that it would have."""

    label: str


CellPair = tuple[CellView, CellView | MissingCell]  # baseline, candidate


def pair_cells(
    records: Sequence[Profile], views: Sequence[CellView], baseline: str | None
) -> list[CellPair]:
    """Return the pairs of baseline and candidate; the pairs of one baseline are adjacent.

    Raise UsageError if no measured cell matches `baseline`, or no other record has a like cell.
    """
    if len(records) > 1 and baseline is None:
        return _like_with_like(records, views)
    base_view = _find_baseline([view for view in views if view.place == 0], baseline)
    return [(base_view, view) for view in views if view is not base_view and _took_part(view)]


def _took_part(view: CellView) -> bool:
    return status(view.cell) != "left out"


def _like_with_like(records: Sequence[Profile], views: Sequence[CellView]) -> list[CellPair]:
    """Pair each measured cell of the first record with those of equal precision and provider.

    A record that lacks such a cell gives a MissingCell, so that the loss is reported.
    """
    like: dict[tuple[str, str, int], list[CellView]] = {}
    for view in views:
        like.setdefault((view.cell.precision, view.cell.provider, view.place), []).append(view)
    first = [view for view in views if view.place == 0 and view.measured]
    pairs: list[CellPair] = []
    for view in first:
        for place, record in list(enumerate(records))[1:]:
            others = like.get((view.cell.precision, view.cell.provider, place), [])
            pairs += [(view, other) for other in others if _took_part(other)]
            if not others:
                pairs.append((view, _missing(view, record)))
    if first and all(isinstance(candidate, MissingCell) for _, candidate in pairs):
        raise UsageError(
            f"nothing to compare: no other record holds {_variants(first)}; "
            "--baseline compares unlike cells"
        )
    return pairs


def _missing(view: CellView, record: Profile) -> MissingCell:
    return MissingCell(f"{view.cell.precision} ({record.source.name}, {record.created_utc})")


def _variants(views: Sequence[CellView]) -> str:
    return ", ".join(dict.fromkeys(f"{v.cell.precision} on {v.cell.provider}" for v in views))


def _find_baseline(views: Sequence[CellView], baseline: str | None) -> CellView:
    measured = [view for view in views if view.measured]
    if not measured:
        raise UsageError("nothing to compare: no cell was measured")
    if baseline is None:
        return next((v for v in measured if v.cell.precision == "fp32"), measured[0])
    required = _required(baseline)
    matching = [view for view in measured if _matches(view, required)]
    if not matching:
        known = ", ".join(
            f"precision={v.cell.precision},provider={v.cell.provider}" for v in measured
        )
        raise UsageError(f"no measured cell matches --baseline {baseline}; there are: {known}")
    return matching[0]


def _matches(view: CellView, required: dict[str, str]) -> bool:
    """Compare precision and provider; a provider matches with or without its options."""
    fields = {"precision": view.cell.precision, "provider": view.cell.provider}
    return all(value in (fields[key], base_name(fields[key])) for key, value in required.items())


def _required(baseline: str) -> dict[str, str]:
    try:
        return parse_baseline(baseline)
    except UsageError as error:
        raise UsageError(f"baseline {error}") from None


def parse_baseline(text: str) -> dict[str, str]:
    """Parse `precision=NAME[,provider=NAME]`. Raise UsageError for any other key."""
    return parse_pairs(text, ("precision", "provider"))
