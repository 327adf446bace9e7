"""`edgecap cache`: what is kept between runs, and how to free room."""

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
  edgecap cache                                 what is kept, the largest first
  edgecap cache prune --older-than 30d --dry-run
  edgecap cache prune --to 10GB                 the least recently used goes first
  edgecap cache prune --model my-model --kind variant
"""
CHOOSE = "say what to remove: --older-than 30d, --to 10GB, --model NAME, --kind KIND, or --all; --dry-run shows it first"


def _options(command: Any) -> Any:
    folder = click.option(
        "--cache",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="The cache. Default: EDGECAP_CACHE or the user's cache.",
    )
    return folder(
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)
    )


@click.group(invoke_without_command=True, epilog=EXAMPLES)
@_options
@click.pass_context
def cache(context: click.Context, cache: Path | None, as_json: bool) -> None:
    """Show what is kept between runs: exports, variants, peaks, texts; and remove what is no longer needed.

    Example: edgecap cache
    """
    context.obj = (cache, as_json)
    if context.invoked_subcommand is None:
        _list(cache, as_json)


@cache.command(name="list")
@_options
@click.pass_context
def list_kept(context: click.Context, cache: Path | None, as_json: bool) -> None:
    """Show what is kept, the largest first.

    Example: edgecap cache list --json
    """
    above, json_above = context.obj
    _list(cache or above, as_json or json_above)


def _list(cache: Path | None, as_json: bool) -> None:
    from edgecap.report.terminal.cache import kept, kept_values

    found = _survey(cache)
    if as_json:
        print_json(kept_values(found))
    else:
        print_text(kept(found, width()))


@cache.command()
@_options
@click.option(
    "--older-than",
    "older_than_s",
    type=types.AGE,
    metavar="TIME",
    help="What was last used longer ago: 30d, 12h or 90m.",
)
@click.option(
    "--to",
    "to_bytes",
    type=types.SIZE,
    metavar="SIZE",
    help="The least recently used, until the cache is as small: 10GB, 500MB.",
)
@click.option("--model", metavar="NAME", help="Graphs of a model.")
@click.option(
    "--kind",
    type=types.CACHE_KIND,
    metavar="KIND",
    help="One kind: export, variant, fused, peaks, journal, ...",
)
@click.option(
    "--all", "everything", is_flag=True, help="All that edgecap keeps, the machine's peaks too."
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed.")
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
    """Remove what fits all of the options, the least recently used first.

    What another process makes or measures stays, and what edgecap did not put there. Peaks, which are measurements,
    stay unless --kind peaks or --all names them. Exit status 1 where something else that was chosen could not be
    removed, or --to was not reached.

    Example: edgecap cache prune --older-than 30d --dry-run
    """
    from edgecap.storage.cache_prune import prune as remove

    above, json_above = context.obj
    wanted = _wanted(everything, **chosen)
    place = _folder(cache or above)
    found = remove(place, wanted, dry_run)
    _show(found, _survey(place), as_json or json_above, dry_run)
    if _fell_short(found, wanted):
        sys.exit(1)


def _wanted(everything: bool, **chosen: Any) -> PruneOptions:
    """Return what to remove. Raise UsageError if no option, or --all beside another, chooses it."""
    from edgecap.storage.cache_prune import PruneOptions

    is_chosen = any(value is not None for value in chosen.values())
    if everything and is_chosen:
        raise UsageError("--all removes all that edgecap keeps: leave it out, or the other options")
    if not everything and not is_chosen:
        raise UsageError(CHOOSE)
    return PruneOptions(everything=everything, **chosen)


def _folder(cache: Path | None) -> Path:
    from edgecap.storage.files import resolve_paths

    return resolve_paths(cache).cache


def _survey(cache: Path | None) -> Survey:
    from edgecap.storage.cache import survey

    return survey(_folder(cache))


def _show(found: PruneResult, after: Survey, as_json: bool, dry_run: bool) -> None:
    from edgecap.report.terminal.cache import pruned, pruned_values

    if as_json:
        print_json(pruned_values(found, after.cache, after.free_bytes, dry_run))
    else:
        print_text(pruned(found, after.cache, after.free_bytes, dry_run))


def _fell_short(found: PruneResult, wanted: PruneOptions) -> bool:
    """Whether the disk refused something, or the cache is still larger than asked for."""
    return any(one.refused for one in found.stayed) or (
        wanted.to_bytes is not None and found.left_bytes > wanted.to_bytes
    )
