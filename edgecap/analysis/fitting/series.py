"""A series of models out of records: one cell a model, all scored on the same text in the same way.

Models are told apart by the hash of their weights: a model that was profiled twice is one size, not two. Records
without such a cell are left out with a note.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgecap.analysis import score
from edgecap.analysis.metrics import compression_of, status, why
from edgecap.errors import UsageError
from edgecap.record import Absent, Cell, Compression, Flops, Measurement, Profile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class SeriesModel(NamedTuple):
    """A model of a series: its record, the cell that was chosen of it, its text and its FLOPs."""

    name: str
    record: Profile
    cell: Cell
    text: Compression
    flops: Flops

    @property
    def work(self) -> float:
        """log2 of the FLOPs of a decoded token."""
        return math.log2(self.flops.per_token)


class Series(NamedTuple):
    """Models by rising FLOPs, and what a reader should know of how they were chosen."""

    points: tuple[SeriesModel, ...]
    notes: tuple[str, ...]

    @property
    def work(self) -> Floats:
        """log2 of the FLOPs of each model."""
        import numpy as np

        return np.array([p.work for p in self.points])

    @property
    def gains(self) -> Floats:
        """Bits gained a token by each model."""
        import numpy as np

        return np.array([p.text.gain_bits_per_token for p in self.points])

    @property
    def drawn_gains(self) -> Floats | None:
        """The gains with documents resampled, the same ones for all models, shape (draws, models); None of one document."""
        import numpy as np

        draws = [score.gain_draws(p.text)[1] for p in self.points]
        had = [d for d in draws if d is not None]
        return np.column_stack(had) if len(had) == len(draws) else None


def series_by_corpus(
    records: Sequence[Profile], precision: str, provider: str | None = None
) -> list[Series]:
    """The series of each corpus among the records, in the order given.

    Without a `provider` the one that most models share is preferred. Raises UsageError where no record has such a
    cell, and, naming both records, where those of one corpus were not scored alike.
    """
    preferred = provider or _common_provider(records, precision)
    points, left = list[SeriesModel](), list[tuple[Profile, str]]()
    for record in records:
        found = _point(record, precision, provider, preferred)
        if isinstance(found, SeriesModel):
            points.append(found)
        else:
            left.append((record, found))
    if not points:
        raise UsageError(left[0][1])
    grouped: dict[str, list[SeriesModel]] = {}
    for point in points:
        grouped.setdefault(point.record.corpus.sha256, []).append(point)
    return _with_note([_series(group, preferred) for group in grouped.values()], left)


def _common_provider(records: Sequence[Profile], precision: str) -> str:
    """That on which the most models were scored; of several the first."""
    models: dict[str, set[str]] = {}
    for record in records:
        for cell in record.cells:
            if cell.precision == precision and compression_of(cell):
                models.setdefault(cell.provider, set()).add(record.source.weights_sha256)
    return max(models, key=lambda p: len(models[p]), default="cpu")


def _with_note(found: list[Series], left: Sequence[tuple[Profile, str]]) -> list[Series]:
    """The records that have no such cell, told to the first series."""
    if not left:
        return found
    others = [_dated(record) for record, _ in left[1:]]
    more = f" and {len(others) - _TOLD} more" if len(others) > _TOLD else ""
    note = f"left out: {left[0][1]}" + (
        f"; likewise {', '.join(others[:_TOLD])}{more}" if others else ""
    )
    return [found[0]._replace(notes=(*found[0].notes, note)), *found[1:]]


def _dated(record: Profile) -> str:
    return f"{record.source.name} of {record.created_utc[:19]}"


_TOLD = 3  # records that are named in a note


def one_series(records: Sequence[Profile], precision: str, provider: str | None = None) -> Series:
    """The one series that all records belong to. Raises UsageError, also where their corpora differ."""
    found = series_by_corpus(records, precision, provider)
    if len(found) > 1:
        raise UsageError(two_corpora_message(found))
    return found[0]


def two_corpora_message(found: Sequence[Series]) -> str:
    """Why several series are not one."""
    one, other = _named([found[0].points[0], found[1].points[0]])
    return difference_message(one, other, "corpus", _corpus)


def difference_message(
    one: SeriesModel, other: SeriesModel, what: str, read: Callable[[SeriesModel], object]
) -> str:
    """Why two records are not of one series; what is no word or number is not written out."""
    first, second = (f" ({v})" if isinstance(v := read(p), str | int) else "" for p in (one, other))
    return (
        f"the {what} of {other.name}{second} is not that of {one.name}{first}: "
        "profile all models of a series alike, or give other records"
    )


def _point(
    record: Profile, precision: str, provider: str | None, preferred: str
) -> SeriesModel | str:
    """The cell of a record that is taken, or why there is none: nothing was scored, or counted."""
    name, cells = record.source.name, [c for c in record.cells if provider in (None, c.provider)]
    found = [
        (c, text)
        for c in cells
        if c.precision == precision and (text := compression_of(c)) and text.tokens
    ]
    if not found:
        return f"the record of {name} has no {precision} cell{_on(provider)} that scored text{_why_not(record)}"
    if isinstance(record.flops, Absent):
        return f"the record of {name} has no FLOPs: {record.flops.reason}"
    if not 1 < record.flops.per_token < math.inf:
        return f"the record of {name} says that a token costs {record.flops.per_token:g} FLOPs, which no model does"
    cell, text = min(found, key=lambda each: each[0].provider != preferred)
    return SeriesModel(name, record, cell, text, record.flops)


def _on(provider: str | None) -> str:
    return f" on {provider}" if provider else ""


def _why_not(record: Profile) -> str:
    scored = [f"{c.precision} on {c.provider}" for c in record.cells if compression_of(c)]
    if scored:
        return f"; it has {', '.join(scored)}"
    reasons = [_reason(cell) for cell in record.cells]
    return f": {reasons[0]}" if reasons else ""


def _reason(cell: Cell) -> str:
    text = cell.outcome.compression if isinstance(cell.outcome, Measurement) else None
    return text.reason if isinstance(text, Absent) else why(cell) or status(cell)


# --- of one corpus ----------------------------------------------------------------------------


def _series(group: Sequence[SeriesModel], preferred: str) -> Series:
    latest, notes = _once(group, preferred)
    for what, read in _ALIKE.items():
        other = next((p for p in latest if read(p) != read(latest[0])), None)
        if other:
            one, other = _named([latest[0], other])
            raise UsageError(difference_message(one, other, what, read))
    return Series(tuple(sorted(_named(latest), key=lambda p: p.work)), tuple(notes))


def _once(group: Sequence[SeriesModel], preferred: str) -> tuple[list[SeriesModel], list[str]]:
    """Each model once, from its latest record, if it can be on the preferred provider."""
    latest: dict[str, SeriesModel] = {}
    for point in sorted(group, key=lambda p: (p.cell.provider == preferred, p.record.created_utc)):
        latest[point.record.source.weights_sha256] = point
    given = Counter(p.record.source.weights_sha256 for p in group)
    notes = [
        f"{given[key]} records are of {p.name}, the same weights: that of {p.record.created_utc[:19]} is taken"
        for key, p in latest.items()
        if given[key] > 1
    ]
    return [latest[key] for key in given], notes


def _named(points: Sequence[SeriesModel]) -> list[SeriesModel]:
    """With the time of the record where two models have one name."""
    known = Counter(p.name for p in points)
    return [
        p._replace(name=f"{p.name} of {p.record.created_utc}") if known[p.name] > 1 else p
        for p in points
    ]


def _corpus(point: SeriesModel) -> str:
    return f"{point.record.corpus.name}, {point.record.corpus.sha256[:8]}"


# Of tokenizers, the tokens that they made: their files also hold what is said in a chat.
_ALIKE: dict[str, Callable[[SeriesModel], object]] = {
    "protocol": lambda p: p.text.protocol,
    "window (--context)": lambda p: p.text.context,
    "stride": lambda p: str(p.text.stride),
    "set of documents": lambda p: [(d.id, d.bytes) for d in p.text.per_document],
    "tokenizer": lambda p: f"{p.text.tokens} tokens",
    "division into tokens": lambda p: [d.tokens for d in p.text.per_document],
    "number of steps that FLOPs are averaged over": lambda p: p.flops.context,
    "count of FLOPs": lambda p: (
        "with the own position" if p.flops.own_position else "without the own position"
    ),
}
