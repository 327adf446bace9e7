"""Power that is sampled and integrated: a thread reads watts, a trapezoid between samples gives joules.

The sum moves once a sample, so its tick is the period and windows are sized to it. What the thread itself
costs is measured (its own CPU clock) and reported; two samples further apart than three periods are a gap:
still integrated, counted, and told.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

from edgecap.protocols import CounterHealth

GAP_PERIODS, SILENT_PERIODS, SILENT_S = 3.0, 30.0, 5.0


class PowerIntegral:
    """Joules by domain from samples of watts; negative watts (an offset of the sensor) count as none."""

    def __init__(self, count: int, period_s: float) -> None:
        self.joules, self.gaps = [0.0] * count, 0
        self._period = period_s
        self.at: float | None = None
        self._watts = [0.0] * count

    def add(self, now: float, watts: Sequence[float]) -> None:
        """One sample of each domain, taken at `now` seconds."""
        if len(watts) != len(self.joules) or not all(map(math.isfinite, watts)):
            raise OSError(f"the sensor answered {list(watts)}")
        had = [max(0.0, float(w)) for w in watts]
        if self.at is not None:
            step = now - self.at
            self.gaps += step > GAP_PERIODS * self._period
            self.joules = [
                j + (a + b) / 2 * step
                for j, a, b in zip(self.joules, self._watts, had, strict=True)
            ]
        self.at, self._watts = now, had


class SampledCounter:
    """Domains whose device only tells watts; see `seams.Counter`. The thread starts with the first `read`.

    `watts` gives watts by domain; its errors, of whatever library, become OSError at the next `read`.
    `extra_cpu_s` tells CPU seconds that sampling cost outside the thread (a child process).
    """

    provenance = "sampled"

    def __init__(
        self,
        name: str,
        scope: str,
        domains: Sequence[str],
        watts: Callable[[], Sequence[float]],
        period_s: float,
        resolution_w: float = 1e-3,
        extra_cpu_s: Callable[[], float] = float,
    ) -> None:
        self.name, self.scope, self.domains, self.period_s = name, scope, tuple(domains), period_s
        self.resolution_j = resolution_w * period_s
        self._watts, self._extra = watts, extra_cpu_s
        self._sum = PowerIntegral(len(self.domains), period_s)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._error: str | None = None
        self._cpu_s = self._extra_at = 0.0

    def read(self) -> tuple[float, ...]:
        """Joules of each domain up to the last sample."""
        if self._thread is None:
            self._start()
        with self._lock:
            self._check()
            return tuple(self._sum.joules)

    def _check(self) -> None:
        if self._error:
            raise OSError(self._error)
        silent = time.monotonic() - (self._sum.at or 0.0)
        if silent > max(SILENT_S, SILENT_PERIODS * self.period_s):
            raise OSError(f"no sample for {silent:.1f} s")

    def _start(self) -> None:
        self._extra_at = self._extra()
        self._take()
        self._thread = threading.Thread(target=self._run, name=f"{self.name}-sampler", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic() + self.period_s
        while not self._stop.wait(max(0.0, due - time.monotonic())) and self._error is None:
            self._take()
            self._cpu_s = time.thread_time()
            due = max(due + self.period_s, time.monotonic())

    def _take(self) -> None:
        """One sample, dated in the middle of its reading."""
        before = time.monotonic()
        try:
            watts = self._watts()
            with self._lock:
                self._sum.add((before + time.monotonic()) / 2, watts)
        except Exception as error:
            self._error = (
                str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            )

    def health(self) -> CounterHealth:
        """CPU seconds of the thread, and gaps."""
        return CounterHealth(
            cpu_s=self._cpu_s + self._extra() - self._extra_at, gaps=self._sum.gaps
        )

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
