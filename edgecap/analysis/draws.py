"""Draws of many cells at once, for `compare`.

Cells are drawn together if they are alike: they hold the same parts, the same documents, and as
many rounds and windows. Of m alike cells a quantity has values of shape (m, 1) and draws of shape
(m, DRAWS), or no draws; under k slopes of a law, (k, m, DRAWS). The formulas of `score` take them
as they take those of one cell, whose value is a number and whose draws have shape (DRAWS,).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from edgecap import stats
from edgecap.analysis import score
from edgecap.analysis.cell_view import CellView
from edgecap.analysis.decoding import decoding_shift
from edgecap.record import Absent, Compression, Energy, Window
from edgecap.stats import Quantity

if TYPE_CHECKING:
    from edgecap.stats import Floats

Quantities = dict[str, Quantity | Absent]
BLOCK = 32  # most cells drawn at once: their draws of a metric are 0.5 MB, which caches hold


def likeness(view: CellView) -> Hashable:
    """Return what two measured cells must have in common to be drawn together."""
    m, stored = view.measured, view.cell.score
    if m is None:
        return None
    return (
        view.place,
        _documents(m.compression),
        *(tuple(view.rounds[name]) for name in ("prefill_s", "decode_s")),
        _windows(m.energy),
        isinstance(m.latency, Absent),
        isinstance(m.memory, Absent),
        isinstance(m.memory, Absent) or isinstance(m.memory.device_peak_bytes, Absent),
        isinstance(stored, Absent) or stored.bias_bits,
    )


def _documents(text: Compression | Absent) -> Hashable:
    if isinstance(text, Absent):
        return None
    return text.protocol, score.documents(text)


def _windows(energy: Energy | Absent) -> Hashable:
    if isinstance(energy, Absent):
        return None
    return (
        len(energy.prefill),
        len(energy.decode),
        isinstance(score.scored_energy(energy), Absent),
    )


def quantities(views: Sequence[CellView], seed: int | None) -> Quantities:
    """Return the quantities of alike cells by metric; rounds and windows are drawn with `seed`.

    `decoded_gain` are bits gained a decoded token, and `log_decode_s` is log2 of what the reference
    machine does in the seconds of one. Effective FLOPs have no draws of their own: `compare` draws
    their ratio. Without a seed nothing is drawn.
    """
    measured = [view.measured for view in views if view.measured]
    first, stored = measured[0], views[0].cell.score
    texts = [view.compression for view in views if view.compression]
    bits, gain = _text(texts, drawn=seed is not None)
    decoded = _decoded(gain, views)
    prefill, decode = (_rounds(views, name) for name in ("prefill_s", "decode_s"))
    seconds, log_seconds = _seconds(decode, seed), _seconds(decode, seed, score.reference_log)
    energies = [view.energy for view in views if view.energy]
    joules = _joules([(e, e.decode) for e in energies], seed)
    values: Quantities = {
        "bits_per_byte": bits,
        "gain_bits_per_token": gain,
        "decoded_gain": decoded,
        "prefill_s": _seconds(prefill, seed),
        "decode_s": seconds,
        "log_decode_s": log_seconds,
        "load_s": _once([m.latency for m in measured], "load_s"),
        "prefill_j": _joules([(e, e.prefill) for e in energies], seed),
        "decode_j": joules,
        **{name: _once([m.memory for m in measured], name) for name in _BYTES},
    }
    if isinstance(stored, Absent):
        return values | dict.fromkeys(_SCORES, stored)
    scored = score.scored_energy(first.energy)
    joules = scored if isinstance(scored, Absent) else joules
    costs, flops = (log_seconds, score.log_cost(joules)), views[0].record.flops
    return {
        **values,
        **score.capacities(gain, decoded, *costs, flops, stored.bias_bits),
        **score.gain_rates(decoded, seconds, joules),
    }


def round_ratios(below: Sequence[CellView], above: Sequence[CellView], name: str) -> Floats:
    """Return the ratio of each round that alike pairs share, shape (m, rounds).

    `below` holds the baseline of each pair, or one for all.
    """
    import numpy as np

    shared = [n for n in below[0].rounds[name] if n in above[0].rounds[name]]
    rows = [[[view.rounds[name][n] for n in shared] for view in views] for views in (above, below)]
    ratios: Floats = np.array(rows[0]) / np.array(rows[1])
    return ratios


def drawn_medians(
    rows: Floats, seed: int | None, of: Callable[[Any], Any] | None = None
) -> tuple[Floats, Floats | None]:
    """Return the median of each row, shape (m, n), or `of` it, with draws of several if seeded."""
    import numpy as np

    ordered, n = np.sort(rows), rows.shape[-1]
    medians = (ordered[:, (n - 1) // 2] + ordered[:, n // 2])[:, None] / 2
    draws = stats.bootstrap_medians(rows, seed, of) if n > 1 and seed is not None else None
    return of(medians) if of else medians, draws


def keep_freed_memory() -> None:
    """Have freed draws reused at once.

    The C library of Linux gives memory of their size back to the system, whose page faults cost a
    third of the time of many pairs, until a larger piece was freed. This one is never touched.
    """
    import numpy as np

    np.empty(3_900_000)  # just below 32 MB, the most that it takes as a measure


def _column(values: Iterable[float]) -> Floats:
    import numpy as np

    return np.array(list(values), np.float64)[:, None]


def _once(parts: Sequence[Any], name: str) -> Quantity | Absent:
    """Return what is measured once, so that it has no draws."""
    if isinstance(parts[0], Absent):
        return parts[0]
    values = [getattr(part, name) for part in parts]
    return values[0] if isinstance(values[0], Absent) else (_column(values), None)


def _text(texts: Sequence[Compression], drawn: bool) -> tuple[Quantity | Absent, Quantity | Absent]:
    """Return bits per byte and bits gained a token.

    The columns of bits are always as many, so that their sums do not depend on the number of cells.
    """
    import numpy as np

    if not texts:
        return _NO_TEXT, _NO_TEXT
    bits = _column(text.bits_per_byte for text in texts)
    gain = _column(text.gain_bits_per_token for text in texts)
    n, first = len(texts[0].per_document), texts[0]
    if n < 2 or not drawn:
        return (bits, None), (gain, None)
    columns = np.zeros((n, BLOCK))
    for column, text in zip(columns.T, texts, strict=False):
        column[:] = list(map(_BITS, text.per_document))
    sums = stats.bootstrap_columns(columns, strata=score.domains(first))[: len(texts)]
    of_bits, of_gain = score.text_from_sums(score.documents(first), sums, first.protocol)
    return (bits, of_bits), (gain, of_gain)


def _decoded(gain: Quantity | Absent, views: Sequence[CellView]) -> Quantity | Absent:
    shifts = [decoding_shift(view.record, view.cell) for view in views]
    return score.join(lambda g: g - _column(shifts), gain) if any(shifts) else gain


def _rounds(views: Sequence[CellView], name: str) -> Floats:
    """Return the seconds of each round of alike cells, shape (m, rounds)."""
    import numpy as np

    return np.array([list(view.rounds[name].values()) for view in views])


def _seconds(
    rows: Floats, seed: int | None, of: Callable[[Any], Any] | None = None
) -> Quantity | Absent:
    """Return the median of each row of rounds, or `of` it, with draws."""
    return drawn_medians(rows, seed, of) if rows.size else _NO_SECONDS


def _joules(
    energies: Sequence[tuple[Energy, Sequence[Window]]], seed: int | None
) -> Quantity | Absent:
    import numpy as np

    if not energies or not energies[0][1]:
        return _NO_JOULES
    rows = np.array([[w.joules / max(w.tokens, 1) for w in windows] for _, windows in energies])
    joules, draws = drawn_medians(rows, seed)
    steps = [energy.quantisation for energy, _ in energies]
    if draws is None or seed is None or not any(steps):
        return joules, draws
    return joules, score.add_counter_error(draws, joules * _column(s or 0.0 for s in steps), seed)


_BITS = attrgetter("nll_bits")
_BYTES = ("peak_bytes", "device_peak_bytes", "file_bytes")
_SCORES = (
    *("information_capacity", "time_capacity", "energy_capacity", "hardware_capacity"),
    *("gain_bits_per_s", "gain_bits_per_j"),
)
_NO_TEXT = Absent(reason="no text was scored")
_NO_SECONDS = Absent(reason="no rounds were timed")
_NO_JOULES = Absent(reason="no energy windows were measured")
