"""Compute the scores of docs/method.md from gain, FLOPs, seconds and joules, with intervals.

    information_capacity = (G + b) / log2 N                               arXiv 2511.08066
    time_capacity        = (G + b) / log2(t x 1e12 FLOP/s)
    energy_capacity      = (G + b) / log2(E x 1e12 FLOP/J)
    hardware_capacity    = (G + b) / (1/2 log2(t x 1e12) + 1/2 log2(E x 1e12))
    gain_bits_per_s      = G / t          gain_bits_per_j = G / E
    effective_flops      = 2^((G + b) / c)                                see `law`
    effective_flops_per_s, effective_flops_per_j: those of decoded tokens / t, / E

G bits gained per token, b bias of the corpus in bits, c slope of its law, N FLOPs, t seconds and E
joules per decoded token. All but information capacity and effective FLOPs take the G of decoded
tokens, where it differs (see `decoding`). Documents are resampled for G, rounds for t, energy
windows for E.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from edgecap import stats
from edgecap.analysis.law import effective_flops
from edgecap.record import (
    Absent,
    Compression,
    Energy,
    Estimate,
    Flops,
    Latency,
    Law,
    Measurement,
    Score,
    Window,
)
from edgecap.stats import Quantity

if TYPE_CHECKING:
    from edgecap.stats import Floats

FORMULA = "edgecap-2"
REFERENCE = 1e12  # FLOP/s and FLOP/J of the reference machine: 1 TFLOP/s at 1 W

NOT_DECODED = Absent(reason="an encoder does not decode")
_NO_LAW = Absent(reason="the text has no card of a series of models")
_NO_PEAKS = Absent(reason="the peaks of this machine were not measured")


def score(
    measured: Measurement,
    flops: Flops | Absent,
    bias_bits: float,
    roofline_ratio: Estimate | Absent = _NO_PEAKS,
    decoding_shift: float = 0.0,
    law: Law | Absent = _NO_LAW,
) -> Score:
    """Compute all scores of a measured cell.

    A score that lacks an input is Absent, with the reason of that input. `roofline_ratio` is the
    share of the roofline that a decoded token reaches, `decoding_shift` the bits that a decoded
    token gains less than one of the text.
    """
    quantities = score_quantities(
        measured, flops, bias_bits, decoding_shift=decoding_shift, law=law
    )
    estimates = {name: to_estimate(quantity) for name, quantity in quantities.items()}
    return Score(formula=FORMULA, bias_bits=bias_bits, roofline_ratio=roofline_ratio, **estimates)


def score_quantities(
    measured: Measurement,
    flops: Flops | Absent,
    bias_bits: float,
    seed: int = stats.SEED,
    decoding_shift: float = 0.0,
    law: Law | Absent = _NO_LAW,
) -> dict[str, Quantity | Absent]:
    """Compute each score with its bootstrap draws, by name.

    `seed` changes the draws of rounds and windows; documents are always drawn alike.
    """
    gain = quantity_of(measured.compression, gain_draws)
    seconds = quantity_of(measured.latency, lambda m: decode_seconds(m, seed + 1))
    joules = quantity_of(scored_energy(measured.energy), lambda m: decode_joules(m, seed + 3))
    return join_scores(gain, seconds, joules, flops, bias_bits, decoding_shift, law)


def join_scores(
    gain: Quantity | Absent,
    seconds: Quantity | Absent,
    joules: Quantity | Absent,
    flops: Flops | Absent,
    bias_bits: float,
    decoding_shift: float = 0.0,
    law: Law | Absent = _NO_LAW,
) -> dict[str, Quantity | Absent]:
    """Compute each score by name from bits gained, seconds and joules per decoded token."""
    decoded = decoded_gain(gain, decoding_shift)
    return {
        **effective_scores(gain, decoded, seconds, joules, flops, law),
        **capacities(gain, decoded, log_cost(seconds), log_cost(joules), flops, bias_bits),
        **gain_rates(decoded, seconds, joules),
    }


def gain_rates(
    decoded: Quantity | Absent, seconds: Quantity | Absent, joules: Quantity | Absent
) -> dict[str, Quantity | Absent]:
    """Compute the bits gained a second and a joule of decoding, by name."""
    return {
        "gain_bits_per_s": join(lambda g, t: g / t, decoded, seconds),
        "gain_bits_per_j": join(lambda g, e: g / e, decoded, joules),
    }


def capacities(
    gain: Quantity | Absent,
    decoded: Quantity | Absent,
    log_seconds: Quantity | Absent,
    log_joules: Quantity | Absent,
    flops: Flops | Absent,
    bias_bits: float,
) -> dict[str, Quantity | Absent]:
    """Compute the capacities by name; the last two are log2 of costs on the reference machine."""
    return {
        "information_capacity": _information_capacity(gain, flops, bias_bits),
        "time_capacity": join(lambda g, t: (g + bias_bits) / t, decoded, log_seconds),
        "energy_capacity": join(lambda g, e: (g + bias_bits) / e, decoded, log_joules),
        "hardware_capacity": join(
            lambda g, t, e: (g + bias_bits) / ((t + e) / 2), decoded, log_seconds, log_joules
        ),
    }


def effective_scores(
    gain: Quantity | Absent,
    decoded: Quantity | Absent,
    seconds: Quantity | Absent,
    joules: Quantity | Absent,
    flops: Flops | Absent,
    law: Law | Absent,
) -> dict[str, Quantity | Absent]:
    """Compute what the bits of text and of decoded tokens are worth in FLOPs, by name."""
    read = _effective(gain, flops, law)
    effective = read if decoded is gain else _effective(decoded, flops, law)
    return {
        "effective_flops": read,
        "effective_flops_per_s": join(lambda n, t: n / t, effective, seconds),
        "effective_flops_per_j": join(lambda n, e: n / e, effective, joules),
    }


def decoded_gain(gain: Quantity | Absent, shift: float) -> Quantity | Absent:
    """Return the bits that a decoded token gains: `shift` less than one of the text."""
    return join(lambda g: g - shift, gain) if shift else gain


def _effective(
    gain: Quantity | Absent, flops: Flops | Absent, law: Law | Absent
) -> Quantity | Absent:
    if isinstance(gain, Absent):
        return gain
    if isinstance(flops, Absent):
        return flops
    return effective_flops(gain, law, flops.per_token)


def _information_capacity(
    gain: Quantity | Absent, flops: Flops | Absent, bias_bits: float
) -> Quantity | Absent:
    import numpy as np

    if isinstance(flops, Absent):
        return flops
    work = np.log2(flops.per_token)  # counted, so that it has no draws
    return join(lambda g: (g + bias_bits) / work, gain)


def log_cost(cost: Quantity | Absent) -> Quantity | Absent:
    """Return log2 of what the reference machine does at a cost of seconds or joules."""
    return join(reference_log, cost)


def reference_log(cost: Any) -> Any:
    """Return log2 of the FLOPs of the reference machine in a time, or at an energy."""
    import numpy as np

    return np.log2(cost * REFERENCE)


def to_estimate(quantity: Quantity | Absent) -> Estimate | Absent:
    """Return a quantity with its 95 % interval, or the reason of its absence."""
    return quantity if isinstance(quantity, Absent) else stats.interval(*quantity)


def quantity_of(part: Any, read: Callable[[Any], Quantity | Absent]) -> Quantity | Absent:
    """Read a quantity from a part of a measurement, or return why that part is absent."""
    return part if isinstance(part, Absent) else read(part)


def join(formula: Callable[..., Any], *parts: Quantity | Absent) -> Quantity | Absent:
    """Apply a formula to values, and to their draws if all have some.

    A value measured once has no draws, and is not exact: a result of it has none either. Values of
    several cells at once (see `draws`) are not checked to be finite.
    """
    present: list[Quantity] = []
    for part in parts:
        if isinstance(part, Absent):
            return part
        present.append(part)
    try:
        value = formula(*[v for v, _ in present])
    except ZeroDivisionError:
        return Absent(reason="division by zero")
    if not getattr(value, "ndim", 0):
        value = float(value)
        if not math.isfinite(value):
            return Absent(reason="not a finite number")
    draws = [d for _, d in present if d is not None]
    return value, formula(*draws) if len(draws) == len(present) else None


# --- text -------------------------------------------------------------------------------------


def domains(c: Compression) -> list[str]:
    """Return the domain of each document, within which documents are resampled."""
    return [d.domain for d in c.per_document]


def document_columns(c: Compression) -> Floats:
    """Return bits of text, bits under the model and tokens of each document, (documents, 3)."""
    import numpy as np

    columns = np.array([(d.bytes, d.nll_bits, d.tokens) for d in c.per_document], np.float64)
    columns[:, 0] *= 8
    return columns


def text_draws(c: Compression) -> tuple[Quantity, Quantity]:
    """Return bits per byte and bits gained per token, with draws of the same documents."""
    if len(c.per_document) < 2:
        return (c.bits_per_byte, None), (c.gain_bits_per_token, None)
    sums = stats.bootstrap_sums(document_columns(c), strata=domains(c)).T
    bits, gain = text_from_sums(documents(c), sums[1], c.protocol)
    return (c.bits_per_byte, bits), (c.gain_bits_per_token, gain)


def gain_draws(c: Compression) -> Quantity:
    """Return bits gained per token, documents resampled."""
    return text_draws(c)[1]


Documents = tuple[tuple[str, int, int], ...]  # domain, bytes and tokens of each
_DOCUMENT = attrgetter("domain", "bytes", "tokens")


def documents(c: Compression) -> Documents:
    """Return what the documents of a text hold, whatever model scored them."""
    return tuple(map(_DOCUMENT, c.per_document))


@lru_cache(maxsize=16)  # the cells of a run score the same documents
def _shared_sums(of: Documents) -> Floats:
    """Draw the sums that do not depend on the model's bits, shape (4, DRAWS).

    They are bits of text, tokens, the sum over documents of text bits per token, and the number of
    documents that have tokens.
    """
    import numpy as np

    text = 8 * np.array([size for _, size, _ in of], np.float64)
    tokens = np.array([count for _, _, count in of], np.float64)
    own = np.where(tokens > 0, text / tokens.clip(1), 0.0)
    shared = np.column_stack([text, tokens, own, tokens > 0])
    sums: Floats = stats.bootstrap_sums(shared, strata=[domain for domain, _, _ in of]).T
    return sums


def text_from_sums(of: Documents, bits: Floats, protocol: str) -> tuple[Floats, Floats]:
    """Return draws of bits per byte and of bits gained per token, in the shape of `bits`.

    `bits` are draws of the bits under the model, (..., DRAWS). The protocol "paper" takes the mean
    over documents of text bits per token, less the model's bits pooled over tokens
    (arXiv 2511.08066 takes these two different means).
    """
    text, tokens, own, number = _shared_sums(of)
    tokens = tokens.clip(1)
    per_byte = bits / (text.clip(1) / 8)
    if protocol == "paper":
        return per_byte, own / number.clip(1) - bits / tokens
    return per_byte, (text - bits) / tokens


# --- seconds and joules -----------------------------------------------------------------------


def _medians(samples: tuple[float, ...], rounds: tuple[int, ...], seed: int | None) -> Quantity:
    """Return the median of the round medians; with a seed, and of several rounds, with draws."""
    medians = stats.round_medians(samples, rounds)
    draws = (
        stats.bootstrap_medians(medians, seed) if seed is not None and len(medians) > 1 else None
    )
    return stats.median(medians), draws


def decode_seconds(latency: Latency, seed: int | None) -> Quantity | Absent:
    """Return seconds per decoded token: median of round medians, rounds resampled.

    An encoder decodes nothing: its value is Absent.
    """
    if isinstance(latency.decode, Absent):
        return latency.decode
    return _medians(latency.decode.samples_s, latency.decode.rounds, seed)


def prefill_seconds(latency: Latency, seed: int | None) -> Quantity:
    """Return seconds of the whole prompt: median of round medians, rounds resampled."""
    return _medians(latency.prefill.samples_s, latency.prefill.rounds, seed)


def decode_joules(energy: Energy, seed: int | None, net: bool = False) -> Quantity | Absent:
    """Return joules per decoded token: median of windows, windows resampled.

    `net` subtracts idle power. An encoder decodes nothing: its value is Absent.
    """
    return _window_joules(energy, energy.decode, seed, net) if energy.decode else NOT_DECODED


def prefill_joules(energy: Energy, seed: int | None, net: bool = False) -> Quantity:
    """Return joules per prompt token: median of windows, resampled; `net` subtracts idle power."""
    return _window_joules(energy, energy.prefill, seed, net)


def nll_joules(energy: Energy, seed: int | None, net: bool = False) -> Quantity | Absent:
    """Return joules per scored token, likewise; Absent if scoring had no energy windows."""
    if not energy.nll:
        return Absent(reason="scoring had no energy windows")
    return _window_joules(energy, energy.nll, seed, net)


def scored_energy(energy: Energy | Absent) -> Energy | Absent:
    """Return the energy if it was measured; Absent if its joules were assumed (--assume-watts)."""
    if isinstance(energy, Energy) and energy.provenance not in ("counter", "sampled"):
        return Absent(reason=f"the joules are {energy.provenance} (--assume-watts), not measured")
    return energy


def _window_joules(
    energy: Energy, windows: Sequence[Window], seed: int | None, net: bool
) -> Quantity:
    """Return joules per token.

    Net joules are gross joules less idle power over the window; idle power is the mean of that
    measured before and after.
    """
    idle = sum(energy.idle_w) / 2 if net else 0.0
    values = tuple((w.joules - idle * w.seconds) / max(w.tokens, 1) for w in windows)
    value, draws = _medians(values, tuple(range(len(values))), seed)
    if draws is None or seed is None or not energy.quantisation:
        return value, draws
    gross = stats.median([w.joules / max(w.tokens, 1) for w in windows])
    return value, add_counter_error(draws, energy.quantisation * gross, seed)


def add_counter_error(draws: Floats, error: float | Floats, seed: int) -> Floats:
    """Add the error of the counter's step: begin and end each fall anywhere within one step."""
    import numpy as np

    begin, end = np.random.default_rng(seed).random((2, draws.shape[-1]))
    blurred: Floats = draws + error * (begin - end)
    return blurred
