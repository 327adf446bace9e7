"""Who takes part in a split of documents: the cells that scored the same text alike, the cheapest and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from edgecap.analysis import score
from edgecap.analysis.cell_view import CellView
from edgecap.errors import UsageError
from edgecap.record import Absent, DocumentBits, Failure, Measurement

_EQUAL = 1e-4  # of the bits per byte: what fp16 differs from fp32 by is no reason to pay for it


class Side(msgspec.Struct, frozen=True):
    """A model that does all documents alone: seconds or joules a kilobyte of text, and bits per byte."""

    name: str
    cost_per_kb: float
    bits_per_byte: float


class ScoredSide(NamedTuple):
    """A cell that scored the documents, with the cost of a token."""

    view: CellView
    documents: tuple[DocumentBits, ...]
    cost: float

    @property
    def bytes(self) -> int:
        """Of all documents."""
        return sum(d.bytes for d in self.documents)

    @property
    def side(self) -> Side:
        """What it does alone."""
        tokens, bits = (
            sum(getattr(d, name) for d in self.documents) for name in ("tokens", "nll_bits")
        )
        return Side(self.view.label, 1000 * self.cost * tokens / self.bytes, bits / self.bytes)


class RoutedPair(NamedTuple):
    """Two cells with what each does alone, and the places of the documents, the hardest for the small one first."""

    small: ScoredSide
    large: ScoredSide
    low: Side
    high: Side
    order: tuple[int, ...]


def scored(everything: Sequence[CellView], by: str) -> tuple[list[ScoredSide], dict[str, str]]:
    """The cells that can take part, and why the others cannot; `by` is time or energy."""
    found, left_out = [], {}
    for view in everything:
        text, cost = view.compression, _cost(view, by)
        documents = text.per_document if text else ()
        if isinstance(cost, Absent):
            left_out[view.label] = cost.reason
        elif not any(d.tokens for d in documents) or not any(d.bytes for d in documents):
            left_out[view.label] = "no text was scored"
        else:
            found.append(ScoredSide(view, documents, cost))
    return found, left_out


def _cost(view: CellView, by: str) -> float | Absent:
    """Measured seconds or joules of a decoded token."""
    outcome = view.cell.outcome
    if isinstance(outcome, Failure):
        return Absent(reason=f"failed: {outcome.message}")
    cost = _seconds(view) if by == "time" else _joules(outcome)
    return cost if isinstance(cost, Absent) else cost[0]


def _seconds(view: CellView) -> score.Quantity | Absent:
    latency = view.latency
    return (
        score.decode_seconds(latency, None) if latency else Absent(reason="no latency was measured")
    )


def _joules(outcome: Measurement) -> score.Quantity | Absent:
    energy = score.scored_energy(outcome.energy)
    return energy if isinstance(energy, Absent) else score.decode_joules(energy, None)


_NEEDED = {
    "time": "--route needs two measured cells that scored text",
    "energy": "--route-by energy needs measured joules of two cells that scored text",
}


def too_few(found: Sequence[ScoredSide], left_out: dict[str, str], by: str) -> str:
    """Why there is nothing to split."""
    why = "".join(f"; {name}: {reason}" for name, reason in list(left_out.items())[:2])
    return f"{_NEEDED[by]}, there {'is one' if found else 'are none'}{why}"


_ALIKE: dict[str, Callable[[ScoredSide], object]] = {
    "corpus": lambda s: s.view.record.corpus.sha256,
    "protocol": lambda s: _text(s)[0],
    "window of the text (--context)": lambda s: _text(s)[1],
    "stride of the windows": lambda s: _text(s)[2],
    "set of documents": lambda s: [(d.id, d.bytes) for d in s.documents],
}


def _text(found: ScoredSide) -> tuple[object, ...]:
    text = found.view.compression
    return (text.protocol, text.context, text.stride) if text else (None, None, None)


def refuse_unlike(found: Sequence[ScoredSide]) -> None:
    """Raises UsageError, naming the difference, unless all scored the same documents alike."""
    for what, read in _ALIKE.items():
        first = read(found[0])
        other = next((s for s in found if read(s) != first), None)
        if other:
            raise UsageError(
                f"--route needs cells that scored the same text alike, but the {what} of {other.view.label} is not "
                f"that of {found[0].view.label}; profile them alike, or give other records"
            )


def pair_of(found: Sequence[ScoredSide]) -> RoutedPair:
    """The cheapest for a byte of text, and the one that needs the fewest bits for it, or hardly more and is cheaper."""
    sides = [(s, s.side) for s in found]
    small, low = min(sides, key=lambda x: (x[1].cost_per_kb, x[1].bits_per_byte))
    fewest = min(side.bits_per_byte for _, side in sides)
    near = [(s, side) for s, side in sides if side.bits_per_byte <= fewest * (1 + _EQUAL)]
    large, high = min(near, key=lambda x: (x[1].cost_per_kb, x[1].bits_per_byte))
    own = small.documents
    order = tuple(sorted(range(len(own)), key=lambda n: (-difficulty(own[n]), n)))
    return RoutedPair(small, large, low, high, order)


def difficulty(document: DocumentBits) -> float:
    """Bits per byte."""
    return document.nll_bits / max(document.bytes, 1)
