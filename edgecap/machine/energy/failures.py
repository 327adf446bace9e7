"""Say in one line why a counter cannot be read, and keep its failure away from the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from edgecap.protocols import Counter
from edgecap.record import LeftOut

_WHOLE_TREE = "-v /sys:/host/sys:ro -e EDGECAP_SYSFS=/host/sys"


def contained(
    name: str, scope: str, open_counters: Callable[[], Sequence[Counter | LeftOut]]
) -> list[Counter | LeftOut]:
    """Return what an opener returns; a LeftOut with the reason if it raises anything.

    Only KeyboardInterrupt passes: extensions written in Rust raise a BaseException.
    """
    try:
        return list(open_counters())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return [unreadable(name, scope, error)]


def unreadable(name: str, scope: str, error: BaseException, missing: bool = True) -> LeftOut:
    """Return the LeftOut of a counter that raised `error`."""
    reason = f"it cannot be read: {reason_of(error)}"
    return LeftOut(name=name, reason=reason, scope=scope, missing=missing)


def reason_of(error: BaseException) -> str:
    """Return an exception as one line: file and cause of an OSError, else its type and message."""
    if isinstance(error, OSError):
        if isinstance(error.filename, str | os.PathLike) and error.strerror:
            file = Path(error.filename)
            return dangling(file) or f"{file}: {error.strerror}"
        return one_line(error) or type(error).__name__
    return f"{type(error).__name__}: {one_line(error)}".removesuffix(": ")


def one_line(error: BaseException) -> str:
    """Return the message of an exception without line breaks."""
    return " ".join(str(error).split())


def dangling(path: Path) -> str | None:
    """Return which link on the way to `path` leads nowhere, and what to mount; None if none does.

    sysfs lists devices as links out of `class`. A container that mounts only `class` has the links,
    and not what they lead to.
    """
    link = next((p for p in (path, *path.parents) if _leads_nowhere(p)), None)
    if link is None:
        return None
    target = os.path.normpath(link.parent / os.readlink(link))
    return f"{link} leads to {target}, which is not here; in a container, mount {_mounts(target)}"


def _leads_nowhere(path: Path) -> bool:
    if not os.path.islink(path):
        return False
    try:
        os.stat(path)
    except PermissionError:
        return False
    except OSError:
        return True
    return False


def _mounts(target: str) -> str:
    """Return the options of docker or podman that show what a link leads to."""
    root, devices, inside = target.partition("/devices/")
    if not devices:
        return f"the whole tree: {_WHOLE_TREE}"
    folder = "/devices/virtual/powercap" if inside.startswith("virtual/powercap") else "/devices"
    return f"it: -v /sys{folder}:{root}{folder}:ro (or the whole tree: {_WHOLE_TREE})"
