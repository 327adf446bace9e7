"""`edgecap doctor`: what this machine can measure, and why not the rest."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgecap.cli.output import print_json, print_text, width


@click.command()
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where exports, variants and peaks are kept. Default: EDGECAP_CACHE or the user's cache.",
)
@click.option("--calibrate", is_flag=True, help="Measure the machine's peaks again.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def doctor(cache: Path | None, calibrate: bool, as_json: bool) -> None:
    """Say what this machine can measure, why not the rest, and what would help.

    Tries each execution provider on a node, reads each energy counter idle and under load, and shows the
    machine's peaks, which it keeps in the cache. Changes nothing else. Exit status 0 if profile can run here, else 1.

    Example: edgecap doctor --json
    """
    import msgspec

    from edgecap.cli.live import Live
    from edgecap.pipeline.doctor import examine
    from edgecap.report.terminal.doctor import diagnosis
    from edgecap.storage.files import resolve_paths

    with Live() as live:
        found = examine(resolve_paths(cache), live, calibrate=calibrate)
    if as_json:
        print_json({**msgspec.to_builtins(found), "can_run": found.can_run})
    else:
        print_text(diagnosis(found, width()))
    sys.exit(0 if found.can_run else 1)
