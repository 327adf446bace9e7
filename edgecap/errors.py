"""The errors of edgecap, each with the exit status of the command.

    EdgecapError            1   something could not be done
    ├── UsageError          2   usage error: the message says what, where and what to try
    │   ├── DiskFull        2   no space left on the disk
    │   ├── Uncountable     2   a config does not say what a token costs
    │   └── Unreadable      2   a graph is missing, damaged or no graph
    ├── RecordError         3   a record cannot be read
    └── Interrupted       130   the user pressed Ctrl-C; finished cells are kept

The module that owns a library translates its exceptions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgecapError(Exception):
    """Base of all errors that edgecap raises on purpose, with a message for users."""

    exit_code = 1


class UsageError(EdgecapError):
    """The request cannot be met."""

    exit_code = 2


class DiskFull(UsageError):
    """No space is left on the disk."""


class Uncountable(UsageError):
    """FLOPs cannot be counted from a config; a profile goes on without them."""


class Unreadable(UsageError):
    """A graph cannot be read: a usage error, or a failure if it could be read before."""


class RecordError(EdgecapError):
    """A record is missing, damaged or newer than this program."""

    exit_code = 3


class Interrupted(EdgecapError):
    """The run was stopped by the user."""

    exit_code = 130


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message, `; did you mean 'int8'?`, or "" if nothing is close."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
