"""Sample power in a thread and integrate it: a trapezoid between samples gives joules.

The sum changes once per sample, so its tick is the period, and windows are sized to it. The CPU
time of the thread is measured and reported. Two samples further apart than three periods are a gap:
it is integrated, counted and reported.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

from edgecap.protocols import CounterHealth

GAP_PERIODS, SILENT_PERIODS, SILENT_S = 3.0, 30.0, 5.0


class PowerIntegral:
    """Joules by domain from samples of watts; negative watts (a sensor's offset) count as 0."""

    def __init__(self, count: int, period_s: float) -> None:
        self.joules, self.gaps = [0.0] * count, 0
        self._period = period_s
        self.at: float | None = None
        self._watts = [0.0] * count

    def add(self, now: float, watts: Sequence[float]) -> None:
        """Add one sample per domain, taken at `now` seconds.

        Raises OSError if the number of values is wrong or one is not finite.
        """
        if len(watts) != len(self.joules) or not all(map(math.isfinite, watts)):
            raise OSError(f"the sensor answered {list(watts)}")
        clipped = [max(0.0, float(w)) for w in watts]
        if self.at is not None:
            step = now - self.at
            self.gaps += step > GAP_PERIODS * self._period
            self.joules = [
                j + (a + b) / 2 * step
                for j, a, b in zip(self.joules, self._watts, clipped, strict=True)
            ]
        self.at, self._watts = now, clipped


class SampledCounter:
    """Domains whose device reports only watts; implements `protocols.Counter`.

    The thread starts with the first `read`. `watts` returns watts by domain; its exceptions
    become OSError at the next `read`. `extra_cpu_s` returns the CPU seconds that sampling cost
    outside the thread (child processes).
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
        """Return the joules of each domain up to the last sample.

        Raises OSError if sampling failed or stopped.
        """
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
        self._sample()
        self._thread = threading.Thread(target=self._run, name=f"{self.name}-sampler", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic() + self.period_s
        while not self._stop.wait(max(0.0, due - time.monotonic())) and self._error is None:
            self._sample()
            self._cpu_s = time.thread_time()
            due = max(due + self.period_s, time.monotonic())

    def _sample(self) -> None:
        """Take one sample, with the middle of its reading as its time."""
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
        """Return the CPU seconds of sampling, and the gaps."""
        return CounterHealth(
            cpu_s=self._cpu_s + self._extra() - self._extra_at, gaps=self._sum.gaps
        )

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
