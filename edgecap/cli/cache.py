"""`edgecap cache`: list the files kept between runs, and remove them to free disk space."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecap.cli import types
from edgecap.cli.output import print_json, print_text, width
from edgecap.errors import UsageError

if TYPE_CHECKING:
    from edgecap.storage.cache import Survey
    from edgecap.storage.cache_prune import PruneOptions, PruneResult

EXAMPLES = """\b
Examples:
  edgecap cache                                 list the contents, largest first
  edgecap cache prune --older-than 30d --dry-run
  edgecap cache prune --to 10GB                 remove the least recently used first
  edgecap cache prune --model my-model --kind variant
"""
CHOOSE = (
    "say what to remove: --older-than 30d, --to 10GB, --model NAME, --kind KIND, or --all; "
    "--dry-run shows it first"
)


def _options(command: Any) -> Any:
    folder = click.option(
        "--cache",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Cache to use. Default: EDGECAP_CACHE or the user's cache.",
    )
    return folder(
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)
    )


@click.group(invoke_without_command=True, epilog=EXAMPLES)
@_options
@click.pass_context
def cache(context: click.Context, cache: Path | None, as_json: bool) -> None:
    """Show the files kept between runs (exports, variants, peaks, texts), or remove them.

    Example: edgecap cache
    """
    context.obj = (cache, as_json)
    if context.invoked_subcommand is None:
        _list(cache, as_json)


@cache.command(name="list")
@_options
@click.pass_context
def list_kept(context: click.Context, cache: Path | None, as_json: bool) -> None:
    """List the contents of the cache, largest first.

    Example: edgecap cache list --json
    """
    above, json_above = context.obj
    _list(cache or above, as_json or json_above)


def _list(cache: Path | None, as_json: bool) -> None:
    from edgecap.report.terminal.cache import kept, kept_values

    contents = _survey(cache)
    if as_json:
        print_json(kept_values(contents))
    else:
        print_text(kept(contents, width()))


@cache.command()
@_options
@click.option(
    "--older-than",
    "older_than_s",
    type=types.AGE,
    metavar="TIME",
    help="Remove entries not used for this long: 30d, 12h or 90m.",
)
@click.option(
    "--to",
    "to_bytes",
    type=types.SIZE,
    metavar="SIZE",
    help="Remove the least recently used until the cache is this small: 10GB, 500MB.",
)
@click.option("--model", metavar="NAME", help="Remove graphs of this model.")
@click.option(
    "--kind",
    type=types.CACHE_KIND,
    metavar="KIND",
    help="Remove one kind: export, variant, fused, peaks, journal, ...",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Remove everything that edgecap keeps, the machine's peaks too.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.pass_context
def prune(
    context: click.Context,
    /,
    cache: Path | None,
    as_json: bool,
    everything: bool,
    dry_run: bool,
    **chosen: Any,
) -> None:
    """Remove entries that match all options, least recently used first.

    Keeps entries that another process builds or measures, and files that edgecap did not write.
    Keeps peaks, which are measurements, unless --kind peaks or --all is given. Exit status 1 if a
    chosen entry could not be removed, or --to was not reached.

    Example: edgecap cache prune --older-than 30d --dry-run
    """
    from edgecap.storage.cache_prune import prune as remove

    above, json_above = context.obj
    wanted = _wanted(everything, **chosen)
    folder = _folder(cache or above)
    result = remove(folder, wanted, dry_run)
    _show(result, _survey(folder), as_json or json_above, dry_run)
    if _fell_short(result, wanted):
        sys.exit(1)


def _wanted(everything: bool, **chosen: Any) -> PruneOptions:
    """Return what to remove. Raise UsageError if no option, or --all beside another, chooses it."""
    from edgecap.storage.cache_prune import PruneOptions

    is_chosen = any(value is not None for value in chosen.values())
    if everything and is_chosen:
        raise UsageError(
            "--all removes everything that edgecap keeps: leave it out, or the other options"
        )
    if not everything and not is_chosen:
        raise UsageError(CHOOSE)
    return PruneOptions(everything=everything, **chosen)


def _folder(cache: Path | None) -> Path:
    from edgecap.storage.files import resolve_paths

    return resolve_paths(cache).cache


def _survey(cache: Path | None) -> Survey:
    from edgecap.storage.cache import survey

    return survey(_folder(cache))


def _show(result: PruneResult, after: Survey, as_json: bool, dry_run: bool) -> None:
    from edgecap.report.terminal.cache import pruned, pruned_values

    if as_json:
        print_json(pruned_values(result, after.cache, after.free_bytes, dry_run))
    else:
        print_text(pruned(result, after.cache, after.free_bytes, dry_run))


def _fell_short(result: PruneResult, wanted: PruneOptions) -> bool:
    """Return True if an entry could not be removed, or the cache is larger than --to."""
    return any(entry.refused for entry in result.stayed) or (
        wanted.to_bytes is not None and result.left_bytes > wanted.to_bytes
    )
