"""Energy counters, one file a kind, each behind the Counter protocol; and the choice among them.

rapl   Intel and AMD packages and memory, through powercap
"""

from __future__ import annotations

from pathlib import Path

from edgecap.power.rapl import open_rapl
from edgecap.record import Absent
from edgecap.seams import Counter


def find_counter(provider: str, sysfs: Path) -> Counter | Absent:
    """The counter that makes up the total of a run on `provider`, or why there is none."""
    if provider != "cpu":
        return Absent(reason=f"no energy counter for provider '{provider}' in this version")
    return open_rapl(sysfs)
