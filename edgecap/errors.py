"""What can go wrong, as one small tree; each error carries the exit status of the command.

    EdgecapError            1   something could not be done
    ├── UsageError          2   asked wrongly: says what, where and what to try
    │   ├── DiskFull        2   no room left for what was asked
    │   └── Unreadable      2   a graph is missing, damaged or no graph
    ├── RecordError         3   a record cannot be read
    └── Interrupted       130   the user pressed Ctrl-C; what was finished is kept

Foreign exceptions are translated in the room that owns the library they come from.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgecapError(Exception):
    """Base of all errors that edgecap raises on purpose. The message is for people."""

    exit_code = 1


class UsageError(EdgecapError):
    """The request cannot be carried out as it was asked."""

    exit_code = 2


class DiskFull(UsageError):
    """There is no room left on the disk."""


class Unreadable(UsageError):
    """A graph cannot be read: a mistake where a user names it, a failure where it was read before."""


class RecordError(EdgecapError):
    """A record is missing, damaged or newer than this program."""

    exit_code = 3


class Interrupted(EdgecapError):
    """The run was stopped by the user."""

    exit_code = 130


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to end a message with, or nothing: `; did you mean 'int8'?`."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
