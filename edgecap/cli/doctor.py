"""`edgecap doctor`: check what this machine can measure."""

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
    help="Cache for exports, variants and peaks. Default: EDGECAP_CACHE or the user's cache.",
)
@click.option("--calibrate", is_flag=True, help="Measure the machine's peaks again.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def doctor(cache: Path | None, calibrate: bool, as_json: bool) -> None:
    """Check what this machine can measure, and say how to fix the rest.

    Tries each execution provider on one node, reads each energy counter idle and under load, and
    measures the machine's peaks, which it stores in the cache. Changes nothing else. Exit status 0
    if profile can run here, else 1.

    Example: edgecap doctor --json
    """
    import msgspec

    from edgecap.cli.live import Live
    from edgecap.pipeline.doctor import examine
    from edgecap.report.terminal.doctor import diagnosis
    from edgecap.storage.files import resolve_paths

    with Live() as live:
        diagnostics = examine(resolve_paths(cache), live, calibrate=calibrate)
    if as_json:
        print_json({**msgspec.to_builtins(diagnostics), "can_run": diagnostics.can_run})
    else:
        print_text(diagnosis(diagnostics, width()))
    sys.exit(0 if diagnostics.can_run else 1)
