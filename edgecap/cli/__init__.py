"""Command line: parse options, call the Python API, print the result, set the exit status.

    commands    the list of commands
    types       types of options
    options     options that several commands share
    output      JSON, text and files
    live        progress on a terminal, plain lines elsewhere

Results go to standard output; progress and errors go to standard error. Exit status: 0 success,
1 failure, 2 usage error, 3 unreadable record, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys

import click


def main() -> None:
    """Run the command line; an expected error ends in one line and its exit status."""
    from edgecap.errors import EdgecapError

    # SIGTERM ends like Ctrl-C, so that unfinished files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
    """Print an error as one line and exit."""
    from edgecap.names import one_line, printable

    click.echo(f"edgecap: {printable(one_line(message))}", err=True)
    sys.exit(code)
