"""The two cells of a split: the cheapest, and the one with the fewest bits per byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from edgecap.analysis import score
from edgecap.analysis.cell_view import CellView
from edgecap.errors import UsageError
from edgecap.record import Absent, DocumentBits, Failure, Measurement
from edgecap.stats import Quantity

_TIE = 1e-4  # of bits per byte: the difference between fp16 and fp32 is not worth a higher cost
_NEEDED = {
    "time": "--route needs two measured cells that scored text",
    "energy": "--route-by energy needs measured joules of two cells that scored text",
}


class Side(msgspec.Struct, frozen=True):
    """A model that processes all documents alone, as `--json` prints it, built from a CellView.

    The cost is in seconds or joules per kilobyte of text.
    """

    name: str
    cost_per_kb: float
    bits_per_byte: float


class PricedCell(NamedTuple):
    """A view of a cell that scored the documents, and its seconds or joules per decoded token."""

    view: CellView
    token_cost: float

    @property
    def documents(self) -> tuple[DocumentBits, ...]:
        """Return the bits of each scored document."""
        text = self.view.compression
        return text.per_document if text else ()

    @property
    def bytes(self) -> int:
        """Return the bytes of all documents."""
        return sum(document.bytes for document in self.documents)

    def alone(self) -> Side:
        """Return cost and bits per byte of this cell on all documents."""
        tokens = sum(document.tokens for document in self.documents)
        bits = sum(document.nll_bits for document in self.documents)
        cost_per_kb = 1000 * self.token_cost * tokens / self.bytes
        return Side(self.view.label, cost_per_kb, bits / self.bytes)


class RoutedPair(NamedTuple):
    """The small and the large cell, their results alone (`low`, `high`), and the routing order.

    `order` has the positions of the documents, the hardest for the small cell first.
    """

    small: PricedCell
    large: PricedCell
    low: Side
    high: Side
    order: tuple[int, ...]


def price_cells(views: Sequence[CellView], by: str) -> tuple[list[PricedCell], dict[str, str]]:
    """Return the cells that can take part, and the reason for each that cannot, by label.

    `by` is time or energy.
    """
    priced, left_out = [], {}
    for view in views:
        cost = _token_cost(view, by)
        documents = view.compression.per_document if view.compression else ()
        if isinstance(cost, Absent):
            left_out[view.label] = cost.reason
        elif not any(d.tokens for d in documents) or not any(d.bytes for d in documents):
            left_out[view.label] = "no text was scored"
        else:
            priced.append(PricedCell(view, cost))
    return priced, left_out


def _token_cost(view: CellView, by: str) -> float | Absent:
    """Return measured seconds or joules per decoded token."""
    outcome = view.cell.outcome
    if isinstance(outcome, Failure):
        return Absent(reason=f"failed: {outcome.message}")
    cost = _seconds(view) if by == "time" else _joules(outcome)
    return cost if isinstance(cost, Absent) else cost[0]


def _seconds(view: CellView) -> Quantity | Absent:
    if view.latency is None:
        return Absent(reason="no latency was measured")
    return score.decode_seconds(view.latency, None)


def _joules(measured: Measurement) -> Quantity | Absent:
    energy = score.scored_energy(measured.energy)
    return energy if isinstance(energy, Absent) else score.decode_joules(energy, None)


def too_few(priced: Sequence[PricedCell], left_out: dict[str, str], by: str) -> str:
    """Return the message if fewer than two cells can take part."""
    reasons = "".join(f"; {name}: {reason}" for name, reason in list(left_out.items())[:2])
    return f"{_NEEDED[by]}, there {'is one' if priced else 'are none'}{reasons}"


def _text_setting(cell: PricedCell, name: str) -> object:
    text = cell.view.compression
    return getattr(text, name) if text else None


# What all cells of a split must share, by the words that a refusal uses.
_SHARED: dict[str, Callable[[PricedCell], object]] = {
    "corpus": lambda cell: cell.view.record.corpus.sha256,
    "protocol": lambda cell: _text_setting(cell, "protocol"),
    "window of the text (--context)": lambda cell: _text_setting(cell, "context"),
    "stride of the windows": lambda cell: _text_setting(cell, "stride"),
    "set of documents": lambda cell: [(d.id, d.bytes) for d in cell.documents],
}


def refuse_unlike(cells: Sequence[PricedCell]) -> None:
    """Raise UsageError, with the difference, unless all cells scored the same text alike."""
    for words, read in _SHARED.items():
        first = read(cells[0])
        other = next((cell for cell in cells if read(cell) != first), None)
        if other:
            raise UsageError(
                f"--route needs cells that scored the same text alike, but the {words} of "
                f"{other.view.label} is not that of {cells[0].view.label}; "
                "profile them alike, or give other records"
            )


def choose_pair(cells: Sequence[PricedCell]) -> RoutedPair:
    """Return the cheapest cell per byte of text, and the one with the fewest bits per byte.

    A cell with hardly more bits than the fewest takes its place if it is cheaper.
    """
    sides = [(cell, cell.alone()) for cell in cells]
    small, low = min(sides, key=_cost)
    fewest = min(side.bits_per_byte for _, side in sides)
    near = [(cell, side) for cell, side in sides if side.bits_per_byte <= fewest * (1 + _TIE)]
    large, high = min(near, key=_cost)
    own = small.documents
    order = tuple(sorted(range(len(own)), key=lambda n: (-difficulty(own[n]), n)))
    return RoutedPair(small, large, low, high, order)


def _cost(item: tuple[PricedCell, Side]) -> tuple[float, float]:
    return item[1].cost_per_kb, item[1].bits_per_byte


def difficulty(document: DocumentBits) -> float:
    """Return the bits per byte of a document."""
    return document.nll_bits / max(document.bytes, 1)
