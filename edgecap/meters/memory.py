"""Resident memory of this process, which only loads a model, prefills and decodes.

interpreter + runtime | load ....... | prefill, decode ....... | at rest
baseline              | load peak    | peak (of the process)   | steady
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgecap.protocols import Engine
from edgecap.record import Absent, Memory

ON_HOST = Absent(reason="the model ran on the processor")


def resident_bytes() -> int:
    """Return the resident set of this process in bytes."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """Return the largest resident set that this process has had, in bytes."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":  # ru_maxrss survives fork and exec: it may be the parent's
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure_memory(
    open_engine: Callable[[], Engine],
    vocabulary: int,
    prefill_tokens: int,
    steps: int,
    files: list[Path],
    on_device: Callable[[], int | Absent] = lambda: ON_HOST,
) -> Memory:
    """Load, prefill and decode once, and read the resident set after each.

    Call it first in a process. `on_device` is called while the cache is held: the runtime's arena
    on a device grows and never shrinks.
    """
    baseline = resident_bytes()
    engine = open_engine()
    load_peak = peak_bytes()
    rng = np.random.default_rng(0)
    cache = engine.prefill(rng.integers(0, vocabulary, prefill_tokens, dtype=np.int64))
    for token in rng.integers(0, vocabulary, steps).tolist():
        cache = engine.decode(cache, token)
    return Memory(
        baseline_bytes=baseline,
        load_peak_bytes=load_peak,
        peak_bytes=peak_bytes(),
        steady_bytes=resident_bytes(),
        file_bytes=sum(f.stat().st_size for f in files),
        kv_bytes_per_token=engine.cache_bytes(cache) // (prefill_tokens + steps),
        device_peak_bytes=on_device(),
    )
