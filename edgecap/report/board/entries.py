"""Cells of many records as flat entries of the leaderboard: model, device, text and every metric.

Metrics come without bootstrap draws: values, and the intervals that the record stores for scores.
Only the scores that the board ranks by get draws where a record of an old formula lacks them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from edgecap.analysis.cell_labels import Hardware, hardware_of
from edgecap.analysis.cell_view import CellView, cell_views
from edgecap.analysis.law import law_conditions, law_of
from edgecap.analysis.metrics import METRICS, SCORES, Metric, estimates
from edgecap.analysis.outcomes import failure_of, status
from edgecap.analysis.published import is_comparable
from edgecap.names import shortened_unique
from edgecap.record import OLD_FORMULA, Absent, Cell, Estimate, Flops, Profile, Score
from edgecap.spec import Spec

LONGEST_REASON = 300
COST = Metric("flops_per_token", "FLOP", "FLOPs, a token", True, 0.0)
FIGURES = (*METRICS, COST)  # of an entry, in this order
RANKED = "effective_flops_per_s"  # what the board ranks by
_EFFECTIVE = tuple(name for name in SCORES if name.startswith("effective_"))


class BoardText(NamedTuple):
    """The text that a cell scored, the way, and its law; only scores of the same text compare."""

    corpus: str
    sha256: str
    documents: int
    protocol: str
    context: int | None
    stride: int | None
    bias_bits: float
    law: str


class BoardEntry(NamedTuple):
    """A flat row of the board, built from a CellView and small enough to keep by the thousand.

    `tokenizer` is a SHA-256. `figures` are in the order of FIGURES; `failure` is empty for a
    measured cell; `joules` names provenance and counter; `context` is the number of positions
    behind a decoded token.
    """

    model: str
    hardware: Hardware
    provider: str
    precision: str
    text: BoardText
    tokenizer: str
    created_utc: str
    complete: bool
    figures: tuple[Estimate | Absent, ...]
    outcome: str
    failure: str
    joules: str
    context: float | None
    as_published: bool
    cautions: int


def entries(record: Profile) -> tuple[BoardEntry, ...]:
    """Return one entry per cell of a record, failed cells included."""
    views = cell_views([record])
    window = next((v.compression.context for v in views if v.compression), record.spec.context)
    return tuple(_entry(view, window) for view in views)


def _entry(view: CellView, window: int | None) -> BoardEntry:
    record, cell, energy = view.record, view.cell, view.energy
    return BoardEntry(
        model=shortened_unique(record.source.name),
        hardware=hardware_of(record.machine),
        provider=shortened_unique(", ".join([cell.provider, *_unusual_settings(record.spec)])),
        precision=shortened_unique(cell.precision),
        text=_text(view, window),
        tokenizer=record.source.tokenizer_sha256[:64],
        created_utc=shortened_unique(record.created_utc),
        complete=record.complete,
        figures=_figures(view),
        outcome=status(cell),
        failure=shortened_unique(failure_of(cell), LONGEST_REASON),
        joules=shortened_unique(f"{energy.provenance}: {energy.counter}") if energy else "",
        context=_decode_context(view),
        as_published=is_comparable(record, cell),
        cautions=len(cell.cautions),
    )


_SETTINGS = {
    "batches": "batch",
    "streams": "streams",
    "threads": "threads",
    "affinity": "processors",
}
_USUAL = Spec()


def _unusual_settings(spec: Spec) -> list[str]:
    """Name the settings that are not the default; they keep cells apart as runs of another kind."""
    words = [
        f"{word} {_joined(getattr(spec, name))}"
        for name, word in _SETTINGS.items()
        if getattr(spec, name) != getattr(_USUAL, name)
    ]
    if spec.graph_level != _USUAL.graph_level:
        words.append(f"graph level {spec.graph_level}")
    return [
        *words,
        *([] if spec.arena else ["no arena"]),
        *([] if spec.optimize else ["plain"]),
    ]


def _joined(value: object) -> str:
    return "+".join(map(str, value if isinstance(value, tuple) else (value,)))


def _text(view: CellView, window: int | None) -> BoardText:
    """Return the scored text of a cell; if it failed, the text that the run would have scored."""
    text, corpus, spec = view.compression, view.record.corpus, view.record.spec
    return BoardText(
        shortened_unique(corpus.name),
        corpus.sha256[:64],
        corpus.documents,
        shortened_unique(text.protocol if text else spec.protocol),
        text.context if text else window,
        text.stride if text else spec.stride,
        corpus.bias_bits,
        ", bias ".join(str(word) for word in law_conditions(law_of(view.record)).values() if word),
    )


def _figures(view: CellView) -> tuple[Estimate | Absent, ...]:
    values = estimates(view.record, view.cell, None)
    if isinstance(values[RANKED], Estimate) and _has_old_formula(view.cell):
        values |= {name: view.metrics[name] for name in _EFFECTIVE}
    flops = view.record.flops
    values[COST.name] = (
        Estimate(value=flops.per_token, low=None, high=None) if isinstance(flops, Flops) else flops
    )
    return tuple(_finite(values[metric.name]) for metric in FIGURES)


def _has_old_formula(cell: Cell) -> bool:
    return isinstance(cell.score, Score) and cell.score.effective_flops_per_s == OLD_FORMULA


def _finite(figure: Estimate | Absent) -> Estimate | Absent:
    """Return a figure that can be drawn: without an interval or Absent where it is not finite."""
    if isinstance(figure, Absent):
        return Absent(reason=shortened_unique(figure.reason, LONGEST_REASON))
    if not math.isfinite(figure.value):
        return Absent(reason="not a finite number")
    if all(end is None or math.isfinite(end) for end in (figure.low, figure.high)):
        return figure
    return Estimate(value=figure.value, low=None, high=None)


def _decode_context(view: CellView) -> float | None:
    latency = view.latency
    return None if latency is None or isinstance(latency.decode, Absent) else latency.decode.context


def latest(entries: Iterable[BoardEntry]) -> set[int]:
    """Return the positions of entries without a newer one of equal identity.

    Identity is model, hardware, provider, precision and text.
    """
    newest: dict[tuple[object, ...], tuple[str, int]] = {}
    for place, e in enumerate(entries):
        key = (e.model, e.hardware, e.provider, e.precision, e.text)
        newest[key] = max(newest.get(key, ("", -1)), (e.created_utc, place))
    return {place for _, place in newest.values()}
