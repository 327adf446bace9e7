"""Apple Silicon through zeus-apple-silicon, which reads IOReport without root.

Cumulative millijoules:

    cpu_total_mj gpu_mj ane_mj dram_mj   counted: disjoint parts of the chip
    gpu_sram_mj                          left out: whether gpu_mj holds it is not documented
    efficiency_* performance_*           parts of cpu_total_mj, never added

Fields that a processor does not have are None. Source: zeus-apple-silicon, `AppleEnergyMetrics`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from edgecap.machine.energy.failures import one_line
from edgecap.machine.energy.tally import CumulativeCounter
from edgecap.protocols import Counter
from edgecap.record import LeftOut

_COUNTED = {"cpu_total_mj": "cpu", "gpu_mj": "gpu", "ane_mj": "ane", "dram_mj": "dram"}


def open_apple(load: Callable[[], Any] | None = None) -> list[Counter | LeftOut]:
    """Open the chip as one counter; a LeftOut if it cannot be read."""
    try:
        monitor = (load or _load)().AppleEnergyMonitor()
        first = monitor.get_cumulative_energy()
    except ImportError:
        return [_missing("zeus-apple-silicon is not installed: pip install zeus-apple-silicon")]
    except Exception as error:
        return [_missing(f"IOReport cannot be read: {one_line(error)}")]
    fields = [f for f in _COUNTED if getattr(first, f, None) is not None]
    if "cpu_total_mj" not in fields:
        return [_missing("IOReport reports no processor energy on this chip")]

    def joules() -> list[float]:
        reading = monitor.get_cumulative_energy()
        return [getattr(reading, f) / 1e3 for f in fields]

    sram = LeftOut(
        name="apple gpu_sram", reason="it may be within gpu: not documented", scope="board"
    )
    has_sram = getattr(first, "gpu_sram_mj", None) is not None
    counter = CumulativeCounter(
        "apple", "board", [_COUNTED[f] for f in fields], joules, resolution_j=1e-3
    )
    return [counter, sram] if has_sram else [counter]


def _load() -> Any:
    return importlib.import_module("zeus_apple_silicon")


def _missing(reason: str) -> LeftOut:
    return LeftOut(name="apple", reason=reason, scope="board", missing=True)
