"""Select a series of models from records: one cell per model, all scored on the same text alike.

The hash of the weights identifies a model: a model that was profiled twice is one size, not two.
Records without a suitable cell are left out with a note.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgecap.analysis import score
from edgecap.analysis.outcomes import compression_of, failure_of, status
from edgecap.errors import UsageError
from edgecap.record import Absent, Cell, Compression, Flops, Measurement, Profile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class SeriesModel(NamedTuple):
    """A model of a series: its record, the selected cell, its compression and FLOPs."""

    name: str
    record: Profile
    cell: Cell
    text: Compression
    flops: Flops

    @property
    def work(self) -> float:
        """Return log2 of the FLOPs of a decoded token."""
        return math.log2(self.flops.per_token)


class Series(NamedTuple):
    """Models by rising FLOPs, with notes for the reader on their selection."""

    points: tuple[SeriesModel, ...]
    notes: tuple[str, ...]

    @property
    def work(self) -> Floats:
        """Return log2 of the FLOPs of each model, shape (models,)."""
        import numpy as np

        return np.array([p.work for p in self.points])

    @property
    def gains(self) -> Floats:
        """Return the bits per token that each model gains, shape (models,)."""
        import numpy as np

        return np.array([p.text.gain_bits_per_token for p in self.points])

    @property
    def drawn_gains(self) -> Floats | None:
        """Return the gains with documents resampled, shape (draws, models); None for one document.

        All models have the same draws.
        """
        import numpy as np

        draws = [score.gain_draws(p.text)[1] for p in self.points]
        available = [d for d in draws if d is not None]
        return np.column_stack(available) if len(available) == len(draws) else None


def series_by_corpus(
    records: Sequence[Profile], precision: str, provider: str | None = None
) -> list[Series]:
    """Return the series of each corpus among the records, in the given order.

    Without a `provider`, prefers the one that most models share. Raises UsageError if no record has
    a suitable cell, or, naming both records, if those of one corpus were not scored alike.
    """
    preferred = provider or _common_provider(records, precision)
    points, left_out = list[SeriesModel](), list[tuple[Profile, str]]()
    for record in records:
        selection = _select_cell(record, precision, provider, preferred)
        if isinstance(selection, SeriesModel):
            points.append(selection)
        else:
            left_out.append((record, selection))
    if not points:
        raise UsageError(left_out[0][1])
    grouped: dict[str, list[SeriesModel]] = {}
    for point in points:
        grouped.setdefault(point.record.corpus.sha256, []).append(point)
    return _with_note([_series(group, preferred) for group in grouped.values()], left_out)


def _common_provider(records: Sequence[Profile], precision: str) -> str:
    """Return the provider on which most models were scored; the first of several."""
    models: dict[str, set[str]] = {}
    for record in records:
        for cell in record.cells:
            if cell.precision == precision and compression_of(cell):
                models.setdefault(cell.provider, set()).add(record.source.weights_sha256)
    return max(models, key=lambda p: len(models[p]), default="cpu")


def _with_note(series_list: list[Series], left_out: Sequence[tuple[Profile, str]]) -> list[Series]:
    """Add a note on the records without a suitable cell to the first series."""
    if not left_out:
        return series_list
    others = [_dated(record) for record, _ in left_out[1:]]
    more = f" and {len(others) - _NAMED_RECORDS} more" if len(others) > _NAMED_RECORDS else ""
    note = f"left out: {left_out[0][1]}" + (
        f"; likewise {', '.join(others[:_NAMED_RECORDS])}{more}" if others else ""
    )
    return [series_list[0]._replace(notes=(*series_list[0].notes, note)), *series_list[1:]]


def _dated(record: Profile) -> str:
    return f"{record.source.name} of {record.created_utc[:19]}"


_NAMED_RECORDS = 3  # records that are named in a note


def one_series(records: Sequence[Profile], precision: str, provider: str | None = None) -> Series:
    """Return the one series that all records belong to.

    Raises UsageError as `series_by_corpus` does, and if their corpora differ.
    """
    series_list = series_by_corpus(records, precision, provider)
    if len(series_list) > 1:
        raise UsageError(two_corpora_message(series_list))
    return series_list[0]


def two_corpora_message(series_list: Sequence[Series]) -> str:
    """Return why several series are not one."""
    one, other = _with_unique_names([series_list[0].points[0], series_list[1].points[0]])
    return difference_message(one, other, "corpus", _corpus)


def difference_message(
    one: SeriesModel, other: SeriesModel, what: str, read: Callable[[SeriesModel], object]
) -> str:
    """Return why two records are not of one series; only numbers and strings are written out."""
    first, second = (f" ({v})" if isinstance(v := read(p), str | int) else "" for p in (one, other))
    return (
        f"the {what} of {other.name}{second} differs from that of {one.name}{first}: "
        "profile all models of a series alike, or give other records"
    )


def _select_cell(
    record: Profile, precision: str, provider: str | None, preferred: str
) -> SeriesModel | str:
    """Return the selected cell of a record, or why it has none."""
    name, cells = record.source.name, [c for c in record.cells if provider in (None, c.provider)]
    scored_cells = [
        (c, text)
        for c in cells
        if c.precision == precision and (text := compression_of(c)) and text.tokens
    ]
    if not scored_cells:
        return (
            f"the record of {name} has no {precision} cell{_on_provider(provider)} that scored text"
            f"{_scored_instead(record)}"
        )
    if isinstance(record.flops, Absent):
        return f"the record of {name} has no FLOPs: {record.flops.reason}"
    if not 1 < record.flops.per_token < math.inf:
        return (
            f"the record of {name} has {record.flops.per_token:g} FLOPs per token, "
            "which no model has"
        )
    cell, text = min(scored_cells, key=lambda each: each[0].provider != preferred)
    return SeriesModel(name, record, cell, text, record.flops)


def _on_provider(provider: str | None) -> str:
    return f" on {provider}" if provider else ""


def _scored_instead(record: Profile) -> str:
    scored = [f"{c.precision} on {c.provider}" for c in record.cells if compression_of(c)]
    if scored:
        return f"; it has {', '.join(scored)}"
    reasons = [_cell_reason(cell) for cell in record.cells]
    return f": {reasons[0]}" if reasons else ""


def _cell_reason(cell: Cell) -> str:
    text = cell.outcome.compression if isinstance(cell.outcome, Measurement) else None
    return text.reason if isinstance(text, Absent) else failure_of(cell) or status(cell)


# --- one corpus -------------------------------------------------------------------------------


def _series(group: Sequence[SeriesModel], preferred: str) -> Series:
    latest, notes = _latest_of_each(group, preferred)
    for what, read in _ALIKE.items():
        other = next((p for p in latest if read(p) != read(latest[0])), None)
        if other:
            one, other = _with_unique_names([latest[0], other])
            raise UsageError(difference_message(one, other, what, read))
    return Series(tuple(sorted(_with_unique_names(latest), key=lambda p: p.work)), tuple(notes))


def _latest_of_each(
    group: Sequence[SeriesModel], preferred: str
) -> tuple[list[SeriesModel], list[str]]:
    """Keep each model once: its latest record, on the preferred provider if it can be."""
    latest: dict[str, SeriesModel] = {}
    for point in sorted(group, key=lambda p: (p.cell.provider == preferred, p.record.created_utc)):
        latest[point.record.source.weights_sha256] = point
    given = Counter(p.record.source.weights_sha256 for p in group)
    notes = [
        f"{given[key]} records are of {p.name}, the same weights: "
        f"the one of {p.record.created_utc[:19]} is used"
        for key, p in latest.items()
        if given[key] > 1
    ]
    return [latest[key] for key in given], notes


def _with_unique_names(points: Sequence[SeriesModel]) -> list[SeriesModel]:
    """Append the time of the record if two models share a name."""
    known = Counter(p.name for p in points)
    return [
        p._replace(name=f"{p.name} of {p.record.created_utc}") if known[p.name] > 1 else p
        for p in points
    ]


def _corpus(point: SeriesModel) -> str:
    return f"{point.record.corpus.name}, {point.record.corpus.sha256[:8]}"


# Tokenizers are compared by their tokens: their files also hold chat templates.
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
