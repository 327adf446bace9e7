"""The command line: parses, calls the same functions as the Python API, prints, and sets the exit status.

    commands   what can be typed
    live       progress on a terminal, plain lines elsewhere

Results go to standard output; progress, cautions of a run in progress and errors to standard error.
"""

from __future__ import annotations

import os
import signal
import sys

import click


def main() -> None:
    """Runs the command line; every error that edgecap knows ends in one line and its exit status."""
    from edgecap.errors import EdgecapError

    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # as Ctrl-C: what is unfinished is cleared away
    try:
        from edgecap.cli.commands import cli

        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        _fail("interrupted", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except EdgecapError as error:
        if os.environ.get("EDGECAP_DEBUG"):
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except OSError as error:
        if os.environ.get("EDGECAP_DEBUG"):
            raise
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)


def _fail(message: str, code: int) -> None:
    from edgecap.names import printable

    click.echo(f"edgecap: {printable(' '.join(message.split()))}", err=True)
    sys.exit(code)
