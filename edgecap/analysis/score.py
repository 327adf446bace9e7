"""Joins gain, FLOPs, seconds and joules into the scores of docs/method.md, each with its interval.

    information_capacity = (G + b) / log2 N                               arXiv 2511.08066
    time_capacity        = (G + b) / log2(t x 1e12 FLOP/s)
    energy_capacity      = (G + b) / log2(E x 1e12 FLOP/J)
    hardware_capacity    = (G + b) / (1/2 log2(t x 1e12) + 1/2 log2(E x 1e12))
    gain_bits_per_s      = G / t          gain_bits_per_j = G / E

G bits gained per token, b bias of the corpus, N FLOPs, t seconds, E joules per decoded token.
Documents are resampled for G, rounds for t, windows for E.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgecap import stats
from edgecap.record import (
    Absent,
    Compression,
    Energy,
    Estimate,
    Flops,
    Latency,
    Measurement,
    Score,
    Window,
)

if TYPE_CHECKING:
    from edgecap.stats import Floats

FORMULA = "edgecap-1"
REFERENCE = 1e12  # FLOP/s and FLOP/J of the reference machine: 1 TFLOP/s at 1 W

Quantity = tuple[float, "Floats | None"]  # a value and its bootstrap draws


NOT_DECODED = Absent(reason="an encoder does not decode")
_NO_PEAKS = Absent(reason="the peaks of this machine were not measured")


def score(
    measured: Measurement,
    flops: Flops | Absent,
    bias_bits: float,
    roofline_ratio: Estimate | Absent = _NO_PEAKS,
) -> Score:
    """All scores of one measured cell; each that lacks an input is Absent with the input's reason.

    `roofline_ratio` is that of a decoded token.
    """
    found = {name: estimated(q) for name, q in quantities(measured, flops, bias_bits).items()}
    return Score(
        formula=FORMULA,
        bias_bits=bias_bits,
        roofline_ratio=roofline_ratio,
        **found,
    )


def quantities(
    measured: Measurement, flops: Flops | Absent, bias_bits: float, seed: int = stats.SEED
) -> dict[str, Quantity | Absent]:
    """Each score by name with its draws; `seed` moves the draws of rounds and windows, not of documents."""
    gain = quantity_of(measured.compression, gain_draws)
    seconds = quantity_of(measured.latency, lambda m: decode_seconds(m, seed + 1))
    joules = quantity_of(scored_energy(measured.energy), lambda m: decode_joules(m, seed + 3))
    return joined(gain, seconds, joules, flops, bias_bits)


def joined(
    gain: Quantity | Absent,
    seconds: Quantity | Absent,
    joules: Quantity | Absent,
    flops: Flops | Absent,
    bias_bits: float,
) -> dict[str, Quantity | Absent]:
    """Each score by name, from bits gained, seconds and joules a decoded token with their draws."""
    import numpy as np

    work = (
        flops if isinstance(flops, Absent) else np.log2(flops.per_token)
    )  # counted, so that it has no draws
    return {
        "information_capacity": work
        if isinstance(work, Absent)
        else _join(lambda g: (g + bias_bits) / work, gain),
        "time_capacity": _join(lambda g, t: (g + bias_bits) / _log_cost(t), gain, seconds),
        "energy_capacity": _join(lambda g, e: (g + bias_bits) / _log_cost(e), gain, joules),
        "hardware_capacity": _join(
            lambda g, t, e: (g + bias_bits) / ((_log_cost(t) + _log_cost(e)) / 2),
            gain,
            seconds,
            joules,
        ),
        "gain_bits_per_s": _join(lambda g, t: g / t, gain, seconds),
        "gain_bits_per_j": _join(lambda g, e: g / e, gain, joules),
    }


def estimated(found: Quantity | Absent) -> Estimate | Absent:
    """A quantity with its interval, or why it is absent."""
    return found if isinstance(found, Absent) else stats.interval(*found)


def _log_cost(cost: Any) -> Any:
    import numpy as np

    return np.log2(cost * REFERENCE)


def quantity_of(found: Any, read: Callable[[Any], Quantity | Absent]) -> Quantity | Absent:
    """What is read from a part of a measurement, or why that part is absent."""
    return found if isinstance(found, Absent) else read(found)


def _join(formula: Callable[..., Any], *parts: Quantity | Absent) -> Quantity | Absent:
    """The formula on the values, and on their draws where all have some: what was measured once is not exact."""
    import numpy as np

    missing = [p for p in parts if isinstance(p, Absent)]
    if missing:
        return missing[0]
    had = [p for p in parts if not isinstance(p, Absent)]
    try:
        value = float(formula(*(v for v, _ in had)))
    except ZeroDivisionError:
        return Absent(reason="division by zero")
    if not math.isfinite(value):
        return Absent(reason="not a finite number")
    draws = [np.asarray(d) for _, d in had if d is not None]
    return value, formula(*draws) if len(draws) == len(had) else None


def document_columns(c: Compression) -> Floats:
    """Bits of text, bits under the model and tokens of each document, shape (documents, 3)."""
    import numpy as np

    found = np.array([(d.bytes, d.nll_bits, d.tokens) for d in c.per_document], np.float64)
    found[:, 0] *= 8
    return found


def text_draws(c: Compression) -> tuple[Quantity, Quantity]:
    """Bits per byte and bits gained per token, documents resampled, the same ones in both."""
    if len(c.per_document) < 2:
        return (c.bits_per_byte, None), (c.gain_bits_per_token, None)
    sums = stats.bootstrap_sums(document_columns(c))
    gain = (
        _published_gain(c)
        if c.protocol == "paper"
        else (sums[:, 0] - sums[:, 1]) / sums[:, 2].clip(1)
    )
    return (c.bits_per_byte, 8 * sums[:, 1] / sums[:, 0].clip(1)), (c.gain_bits_per_token, gain)


def gain_draws(c: Compression) -> Quantity:
    """Bits gained per token, documents resampled."""
    return text_draws(c)[1]


def _published_gain(c: Compression) -> Floats:
    """Mean of the documents' text bits, less the bits pooled over tokens: the paper's two different means."""
    import numpy as np

    columns = document_columns(c)
    tokens = columns[:, 2]
    own = np.where(tokens > 0, columns[:, 0] / tokens.clip(1), 0.0)
    sums = stats.bootstrap_sums(np.column_stack([columns[:, 1:], own, tokens > 0]))
    drawn: Floats = sums[:, 2] / sums[:, 3].clip(1) - sums[:, 0] / sums[:, 1].clip(1)
    return drawn


def _medians(samples: tuple[float, ...], rounds: tuple[int, ...], seed: int | None) -> Quantity:
    """The median of the round medians; its draws unless there is no seed."""
    medians = stats.round_medians(samples, rounds)
    draws = (
        stats.bootstrap_medians(medians, seed) if seed is not None and len(medians) > 1 else None
    )
    return stats.median(medians), draws


def decode_seconds(found: Latency, seed: int | None) -> Quantity | Absent:
    """Seconds of one decoded token: median of the round medians, rounds resampled; Absent of an encoder."""
    if isinstance(found.decode, Absent):
        return found.decode
    return _medians(found.decode.samples_s, found.decode.rounds, seed)


def prefill_seconds(found: Latency, seed: int | None) -> Quantity:
    """Seconds of the prompt: median of the round medians, rounds resampled."""
    return _medians(found.prefill.samples_s, found.prefill.rounds, seed)


def decode_joules(found: Energy, seed: int | None, net: bool = False) -> Quantity | Absent:
    """Joules of one decoded token: median of the windows, windows resampled; `net` of idle power; Absent of an encoder."""
    return _window_joules(found, found.decode, seed, net) if found.decode else NOT_DECODED


def prefill_joules(found: Energy, seed: int | None, net: bool = False) -> Quantity:
    """Joules of one prompt token: median of the windows, windows resampled; `net` of idle power."""
    return _window_joules(found, found.prefill, seed, net)


def nll_joules(found: Energy, seed: int | None, net: bool = False) -> Quantity | Absent:
    """Joules of one scored token, likewise; Absent where scoring had no windows."""
    return (
        _window_joules(found, found.nll, seed, net)
        if found.nll
        else Absent(reason="scoring had no energy windows")
    )


def scored_energy(found: Energy | Absent) -> Energy | Absent:
    """An energy that may enter scores: measured, not assumed."""
    if isinstance(found, Energy) and found.provenance not in ("counter", "sampled"):
        return Absent(reason=f"the joules are {found.provenance} (--assume-watts), not measured")
    return found


def _window_joules(
    found: Energy, windows: Sequence[Window], seed: int | None, net: bool
) -> Quantity:
    """Joules a token; net is gross less the mean of idle power before and after, for as long as the window."""
    idle = sum(found.idle_w) / 2 if net else 0.0
    values = tuple((w.joules - idle * w.seconds) / max(w.tokens, 1) for w in windows)
    value, draws = _medians(values, tuple(range(len(values))), seed)
    if draws is None or seed is None or not found.quantisation:
        return value, draws
    gross = stats.median([w.joules / max(w.tokens, 1) for w in windows])
    return value, _blurred(draws, found.quantisation * gross, seed)


def _blurred(draws: Floats, error: float, seed: int) -> Floats:
    """Draws with what the counter's step can add: begin and end each fall anywhere within one."""
    import numpy as np

    begin, end = np.random.default_rng(seed).random((2, len(draws)))
    blurred: Floats = draws + error * (begin - end)
    return blurred
