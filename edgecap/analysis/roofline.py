"""The shortest time that the hardware allows a step, and the measured time's distance from it.

    attainable = max(flops / peak FLOP/s, bytes / peak bytes/s)        ratio = attainable / measured

Williams, Waterman and Patterson 2009. FLOPs are the analytic ones (the graph's own if no config
gives the architecture); bytes are the stored weights and the KV cache, which every step must read.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgecap import stats
from edgecap.analysis import score
from edgecap.record import (
    Absent,
    Bandwidth,
    Bound,
    Flops,
    GraphWork,
    Latency,
    Measurement,
    Peaks,
    Roofline,
    StepWork,
)

# Kernels that the products of an arithmetic may use, or those of a variant whose arithmetic is not
# known; the fastest sets the peak.
KERNELS = {
    "fp32": ("fp32",),
    "fp16": ("fp16", "fp32"),
    "bf16": ("fp16", "fp32"),
    "int8": ("int8", "fp32"),
    "int4": ("int8", "fp16", "fp32"),
}


def compute_roofline(
    measured: Measurement,
    flops: Flops | Absent,
    peaks: Peaks | Absent | None,
    precision: str,
    arithmetic: str = "",
) -> Roofline | Absent:
    """Compare prefill and decode of one measured cell with the peaks of its provider.

    `arithmetic` is that of its graph, "" if not known. Absent, with the reason, if work, latency or
    peaks are.
    """
    for part in (measured.work, measured.latency, peaks):
        if isinstance(part, Absent):
            return part
    work, latency = measured.work, measured.latency
    assert isinstance(work, GraphWork) and isinstance(latency, Latency)
    if not isinstance(peaks, Peaks):
        return Absent(reason="the peaks of this machine were not measured")
    counted = (flops.prefill, flops.per_token) if isinstance(flops, Flops) else (None, None)
    decoded = score.decode_seconds(latency, stats.SEED + 1)
    rate = peak_rate(peaks, precision, arithmetic)
    if isinstance(rate, Absent):
        return rate
    return Roofline(
        prefill=_bound(
            work.prefill, counted[0], rate, peaks, score.prefill_seconds(latency, stats.SEED + 1)
        ),
        decode=None
        if work.decode is None or isinstance(decoded, Absent)
        else _bound(work.decode, counted[1], rate, peaks, decoded),
    )


def peak_rate(peaks: Peaks, precision: str, arithmetic: str = "") -> float | Absent:
    """Return the FLOP/s of a variant's fastest kernel; Absent if none was measured."""
    kernels = _kernels(arithmetic or precision)
    rate = max((peaks.gemm_flops_per_s.get(p, 0.0) for p in kernels), default=0.0)
    known = bool(rate and peaks.bandwidth)
    return (
        rate
        if known
        else Absent(reason=f"no peak was measured for {precision} on {peaks.provider}")
    )


def _kernels(precision: str) -> tuple[str, ...]:
    """Return the kernels of a variant, or of its family: int4b128 is an int4."""
    return KERNELS.get(precision) or KERNELS.get(precision[:4], ("fp32",))


def _bound(
    work: StepWork, counted: float | None, rate: float, peaks: Peaks, measured: stats.Quantity
) -> Bound:
    flops = float(work.matrix_flops) if counted is None else counted
    moved = float(max(1, work.weight_bytes + work.cache_bytes))
    bandwidth = bandwidth_of(peaks.bandwidth, moved)
    compute_s, memory_s = flops / rate, moved / bandwidth
    attainable = max(compute_s, memory_s)
    seconds, draws = measured
    return Bound(
        flops=flops,
        bytes=moved,
        peak_flops_per_s=rate,
        peak_bytes_per_s=bandwidth,
        attainable_s=attainable,
        limit="compute" if compute_s >= memory_s else "memory",
        intensity=flops / moved,
        compute_utilisation=compute_s / seconds,
        bandwidth_utilisation=memory_s / seconds,
        ratio=stats.interval(attainable / seconds, None if draws is None else attainable / draws),
    )


def bandwidth_of(measured: Sequence[Bandwidth], moved: float) -> float:
    """Return the bytes per second for a step that moves `moved` bytes.

    Uses the peak of the next smaller working set and above: a smaller set may sit in a faster
    cache, so that the bound stays a bound.
    """
    ordered = sorted(measured, key=lambda b: b.working_set_bytes)
    fitting = [b for b in ordered if b.working_set_bytes <= moved] or ordered[:1]
    return max(b.read_bytes_per_s for b in ordered[len(fitting) - 1 :])
