"""`edgecap` as people type it, in a process, and as a call that is refused."""

import subprocess
import sys

import click
import pytest

from edgecap.cli.commands import cli
from edgecap.errors import UsageError


def edgecap(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "edgecap", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def refused(*words):
    """What the command says of a request that it refuses with status 2."""
    with pytest.raises((UsageError, click.UsageError)) as caught:
        cli.main([str(word) for word in words], standalone_mode=False)
    assert caught.value.exit_code == 2
    return str(caught.value)
