"""Limits of the container that this process runs in: CPU quota and memory, by cgroup v1 and v2.

The own cgroup and all its parents limit a process; the smallest limit counts. Below the mount of a
container, the path of /proc/self/cgroup may not exist: its root is then the container's.
Sources: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst and
scheduler/sched-bwc.rst of the Linux kernel. `EDGECAP_SYSFS` and `EDGECAP_PROCFS` move the roots.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from edgecap.machine.roots import procfs, read_text, sysfs

_NO_LIMIT = 1 << 60  # bytes; cgroup v1 writes the largest number of pages instead of none


class QuotaWaits(NamedTuple):
    """Count how often a CPU quota stopped processes so far, in `seconds` summed over processors."""

    periods: int
    seconds: float


def cpu_quota() -> float | None:
    """Return the CPU time that this process may use, in processors; None without a quota."""
    quotas = [q for folder in _folders("cpu") if (q := _quota(folder)) is not None]
    return min(quotas, default=None)


def memory_limit() -> int | None:
    """Return the bytes that this process's container may use; None without a limit."""
    limits = [b for folder in _folders("memory") if (b := _limit(folder)) is not None]
    return min(limits, default=None)


def memory_left() -> int | None:
    """Return the bytes that new processes can use below all limits; None without a limit.

    The page cache of files that are not in use counts as free: the kernel drops it first.
    """
    left = [b for folder in _folders("memory") if (b := _left(folder)) is not None]
    return min(left, default=None)


def quota_waits() -> QuotaWaits | None:
    """Return how often CPU quotas stopped processes so far; None if the system does not count."""
    waits = [w for folder in _folders("cpu") if (w := _waits(folder)) is not None]
    if not waits:
        return None
    return QuotaWaits(sum(w.periods for w in waits), sum(w.seconds for w in waits))


# --- folders ----------------------------------------------------------------------------------


def _folders(controller: str) -> list[Path]:
    """Return the folders of the own cgroup and of its parents, in v1 and v2 hierarchies."""
    own = [top / part for top, path in _mounts(controller) for part in (path, *path.parents)]
    return list(dict.fromkeys(folder.resolve() for folder in own if folder.is_dir()))


def _mounts(controller: str) -> Iterator[tuple[Path, PurePosixPath]]:
    """Yield where a controller may be mounted, and the path of the own cgroup below it."""
    root, paths = _root(), _own_paths()
    yield root, paths.get("", PurePosixPath())
    if (root / "cgroup.controllers").exists():  # v2 only
        return
    yield root / "unified", paths.get("", PurePosixPath())
    for top in sorted(root.glob("*")):  # v1, as `cpu` or `cpu,cpuacct`
        if controller in top.name.split(","):
            yield top, paths.get(controller, PurePosixPath())


def _root() -> Path:
    """Return where cgroups are mounted; a moved sysfs may hold counters of energy only."""
    moved = sysfs() / "fs/cgroup"
    return moved if moved.is_dir() else Path("/sys/fs/cgroup")


def _own_paths() -> dict[str, PurePosixPath]:
    """Return the path of the own cgroup by controller; "" is the v2 hierarchy.

    A path that leads out of this namespace counts as the root.
    """
    paths = {}
    for line in read_text(procfs() / "self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        below = PurePosixPath(path.lstrip("/"))
        for name in controllers.split(","):
            paths[name] = PurePosixPath() if ".." in below.parts else below
    return paths


# --- files ------------------------------------------------------------------------------------


def _quota(folder: Path) -> float | None:
    """Return the quota of a cgroup in processors: `cpu.max` of v2, `cpu.cfs_*` of v1."""
    words = read_text(folder / "cpu.max").split() or [
        read_text(folder / "cpu.cfs_quota_us"),
        read_text(folder / "cpu.cfs_period_us"),
    ]
    quota, period = (_number(word) for word in [*words, ""][:2])
    return quota / period if quota and period and quota > 0 else None


def _limit(folder: Path) -> int | None:
    """Return the memory limit of a cgroup; above `memory.high` the kernel slows processes down."""
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    limits = [_number(read_text(folder / name)) for name in names]
    limits.append(_stat(folder / "memory.stat").get("hierarchical_memory_limit"))
    return min((b for b in limits if b is not None and b < _NO_LIMIT), default=None)


def _left(folder: Path) -> int | None:
    limit = _limit(folder)
    names = ("memory.current", "memory.usage_in_bytes")
    used = next((b for n in names if (b := _number(read_text(folder / n))) is not None), 0)
    stat = _stat(folder / "memory.stat")
    reclaimable = stat.get("total_inactive_file", stat.get("inactive_file", 0))
    return None if limit is None else max(0, limit - max(0, used - reclaimable))


def _waits(folder: Path) -> QuotaWaits | None:
    stat = _stat(folder / "cpu.stat")
    if "nr_throttled" not in stat:
        return None
    seconds = stat.get("throttled_usec", 0) / 1e6 + stat.get("throttled_time", 0) / 1e9
    return QuotaWaits(stat["nr_throttled"], seconds)


def _stat(path: Path) -> dict[str, int]:
    """Return the numbers of a file with a name and a number a line."""
    pairs = (line.split() for line in read_text(path).splitlines())
    return {p[0]: n for p in pairs if len(p) == 2 and (n := _number(p[1])) is not None}


def _number(word: str) -> int | None:
    """Return a whole number; None for `max`, and for a file that is not there."""
    try:
        return int(word)
    except ValueError:
        return None
