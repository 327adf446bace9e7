"""Record what an NVIDIA board did during a benchmark: its clock, what slowed it, who else used it.

Other processes count only where NVML shows this one, too: in a container it may show numbers of
processes that mean nothing here.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from typing import Any

from edgecap.machine.nvidia import NvmlBoard, cuda_board, load_nvml, processes, reading
from edgecap.record import BoardConditions

# Bits of nvmlDeviceGetCurrentClocksThrottleReasons, and what they say.
_IDLE = 0x1
_SLOWED = {"power limit": 0x4 | 0x80, "heat": 0x20 | 0x40}


class BoardMonitor:
    """Records a board from its creation until `conditions`; `sample` once per round."""

    def __init__(self, nvml: Any, board: NvmlBoard) -> None:
        self._nvml, self._board = nvml, board
        self._began_us = int(time.time() * 1e6)
        self._rounds, self._clocks, self._others = 0, list[float](), list[int]()
        self._slowed: Counter[str] = Counter()

    def sample(self) -> None:
        """Record the clock, what holds it down, and the other processes of this round."""
        handle = self._board.handle
        clock = reading(self._nvml, "nvmlDeviceGetClockInfo", handle, self._nvml.NVML_CLOCK_SM)
        bits = reading(self._nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", handle) or 0
        if clock and not bits & _IDLE:
            self._clocks.append(clock * 1e6)
        self._slowed.update(name for name, mask in _SLOWED.items() if bits & mask)
        self._rounds += 1
        pids = {p.pid for p in processes(self._nvml, self._board)}
        if os.getpid() in pids:
            self._others.append(len(pids) - 1)

    def conditions(self) -> BoardConditions:
        """Return what was recorded since this monitor was created."""
        most = reading(
            self._nvml, "nvmlDeviceGetMaxClockInfo", self._board.handle, self._nvml.NVML_CLOCK_SM
        )
        return BoardConditions(
            rounds=self._rounds,
            clocks_hz=tuple(self._clocks),
            most_hz=most * 1e6 if most else None,
            slowed=dict(self._slowed),
            others=max(self._others, default=None),
            other_load=self._other_load() if self._others else None,
        )

    def _other_load(self) -> float | None:
        """Return the share of time of kernels of other processes, by NVML's samples of each."""
        samples = reading(
            self._nvml, "nvmlDeviceGetProcessUtilization", self._board.handle, self._began_us
        )
        if not samples:
            return None
        shares: dict[int, list[int]] = {}
        for s in samples:
            shares.setdefault(s.pid, []).append(s.smUtil)
        others = (statistics.fmean(x) for pid, x in shares.items() if pid not in (0, os.getpid()))
        return min(1.0, sum(others) / 100)


def monitor_board(device: int) -> BoardMonitor | None:
    """Watch the board that CUDA numbers `device`; None if it is not known."""
    try:
        nvml = load_nvml()
        board = cuda_board(nvml, device)
    except Exception:  # no library, no driver, no permission
        return None
    return BoardMonitor(nvml, board) if board else None
