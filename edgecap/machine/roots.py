"""Roots of the kernel's file systems: `EDGECAP_SYSFS` and `EDGECAP_PROCFS` move them."""

from __future__ import annotations

import os
from pathlib import Path


def sysfs() -> Path:
    """Return the root of sysfs: `EDGECAP_SYSFS` or /sys."""
    return Path(os.environ.get("EDGECAP_SYSFS") or "/sys")


def procfs() -> Path:
    """Return the root of procfs: `EDGECAP_PROCFS` or /proc."""
    return Path(os.environ.get("EDGECAP_PROCFS") or "/proc")


def read_text(path: Path) -> str:
    """Return the text of a kernel's file without white space around it; "" if unreadable."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
