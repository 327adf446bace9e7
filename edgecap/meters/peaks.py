"""Peak rates of a machine through a provider: matrix products, and memory reads by working set.

A peak is the fastest run, not the typical one. No shape and no operator is best everywhere, so
several are tried and each is repeated. Memory is measured at several sizes, since a model that fits
in a cache is not limited by main memory. Where launching a run takes most of its time, as on a GPU,
larger products and working sets follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgecap.protocols import Clock, Probe, Probes
from edgecap.record import Bandwidth

SHAPES = ((256, 1024, 1024), (512, 2048, 2048), (256, 4096, 4096), (256, 576, 16384))  # m, k, n
SIZES = (1 << 22, 1 << 24, 1 << 26, 1 << 27)  # bytes read once: from a small cache to main memory
PRECISIONS = ("fp32", "fp16", "int8")
ROUNDS, SECONDS = 3, 0.05  # per probe and round; noise in one round rarely hits all
SHORT_RUN_S, SQUARE = 1e-3, 4096  # a shorter run is followed by a larger one; side of the first
QUIET = 0.05  # seconds until the threads of the previous session stop spinning


class MeasuredPeaks(NamedTuple):
    """FLOP/s by precision and bytes/s by working set.

    A precision that the provider cannot multiply is left out.
    """

    gemm_flops_per_s: dict[str, float]
    bandwidth: tuple[Bandwidth, ...]


def measure_peaks(
    probes: Probes,
    clock: Clock,
    memory_bytes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> MeasuredPeaks:
    """Time all probes.

    Working sets take at most 1/16 of `memory_bytes`, matrices 1/64.
    """
    shapes = [s for s in SHAPES if 4 * s[1] * s[2] <= memory_bytes // 64] or list(SHAPES[:1])
    sizes = [s for s in SIZES if s <= memory_bytes // 16] or [SIZES[0]]
    progress(0, 1 + len(sizes))
    gemm = _gemm_rates(probes, clock, shapes, memory_bytes // 64)
    bandwidth = []
    for done, size in enumerate(sizes, 1):
        progress(done, 1 + len(sizes))
        bandwidth.append(_bandwidth(probes, clock, size))
    while _is_short(bandwidth[-1]) and 4 * bandwidth[-1].working_set_bytes <= memory_bytes // 16:
        bandwidth.append(_bandwidth(probes, clock, 4 * bandwidth[-1].working_set_bytes))
    return MeasuredPeaks(gemm, tuple(bandwidth))


def _bandwidth(probes: Probes, clock: Clock, size: int) -> Bandwidth:
    reads, copies = probes.reads(size), probes.copies(size)
    seconds = shortest_seconds([*reads, *copies], clock)
    read, copy = min(seconds[: len(reads)]), min(seconds[len(reads) :])
    return Bandwidth(
        working_set_bytes=size, read_bytes_per_s=size / read, copy_bytes_per_s=2 * size / copy
    )


def _is_short(bandwidth: Bandwidth) -> bool:
    return bandwidth.working_set_bytes / bandwidth.read_bytes_per_s < SHORT_RUN_S


def _gemm_rates(
    probes: Probes, clock: Clock, shapes: Sequence[tuple[int, int, int]], matrix_bytes: int
) -> dict[str, float]:
    """Return the FLOP/s of the fastest shape of each precision."""
    shapes_by_precision = [(precision, shape) for precision in PRECISIONS for shape in shapes]
    opened = [(p, shape, _open_probe(probes, p, shape)) for p, shape in shapes_by_precision]
    ready = [(p, shape, probe) for p, shape, probe in opened if probe]
    rates, longest = dict[str, float](), dict[str, float]()
    for (precision, shape, _), seconds in zip(
        ready, shortest_seconds([p for *_, p in ready], clock), strict=True
    ):
        rates[precision] = max(rates.get(precision, 0.0), 2 * math.prod(shape) / seconds)
        longest[precision] = max(longest.get(precision, 0.0), seconds)
    return {
        p: max(rate, _larger_gemm_rate(probes, clock, p, longest[p], matrix_bytes))
        for p, rate in rates.items()
    }


def _larger_gemm_rate(
    probes: Probes, clock: Clock, precision: str, seconds: float, matrix_bytes: int
) -> float:
    """Return the best FLOP/s of square products that grow until a run is long enough.

    Returns 0 if the run of `seconds` is long enough already.
    """
    side, best = SQUARE, 0.0
    while seconds < SHORT_RUN_S and 4 * side * side <= matrix_bytes:
        probe = _open_probe(probes, precision, (side, side, side))
        if probe is None:
            break
        (seconds,) = shortest_seconds([probe], clock)
        best, side = max(best, 2 * side**3 / seconds), 2 * side
    return best


def _open_probe(probes: Probes, precision: str, shape: tuple[int, int, int]) -> Probe | None:
    """Return a probe that ran once, or None if the provider lacks the operator."""
    try:
        probe = probes.gemm(precision, *shape)
        probe()
    except Exception:  # runtimes raise their own kinds for what they do not implement
        return None
    return probe


def shortest_seconds(probes: Sequence[Probe], clock: Clock) -> list[float]:
    """Return the seconds of the shortest run of each probe; probes take turns in rounds."""
    best = [math.inf] * len(probes)
    for _ in range(ROUNDS):
        for place, probe in enumerate(probes):
            clock.sleep(QUIET)
            best[place] = min(best[place], _shortest(probe, clock))
    return [max(b, 1e-9) for b in best]


def _shortest(probe: Probe, clock: Clock) -> float:
    """Return the seconds of the shortest of at least two runs within `SECONDS`."""
    started, best, runs = clock.now(), math.inf, 0
    while runs < 2 or clock.now() - started < SECONDS:
        before = clock.now()
        probe()
        best, runs = min(best, clock.now() - before), runs + 1
    return best
