"""`edgecap board`: a leaderboard over many records, as a page or served on this machine."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgecap.cli.output import GENERATED, print_json, write

if TYPE_CHECKING:
    from edgecap.report.board.entries import BoardEntry
    from edgecap.storage.collection import Collection, SkippedFile

    Cells = Collection[tuple[BoardEntry, ...]]

DEFAULT_PLACE, DEFAULT_PAGE = Path("profiles"), Path("board.html")
MOST_NAMED = 5  # unread files that are named on the terminal; the page names all


@click.command()
@click.argument("places", nargs=-1, type=click.Path(path_type=Path), metavar="[FOLDER|RECORD]...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Default: board.html."
)
@click.option(
    "--serve",
    is_flag=True,
    help="Serve it on 127.0.0.1, with new records as they come, until Ctrl-C.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of --serve; 0 takes a free one. Default: 8765.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a row a cell as JSON; a page only where -o says so.",
)
def board(
    places: tuple[Path, ...], output: Path | None, serve: bool, port: int | None, as_json: bool
) -> None:
    """Show the cells of many records in one page: filter, sort, capacity against cost.

    Takes records and folders with records (default: profiles). The page is one file that opens offline and links to
    the records. Files that are no records, and cells of a sweep that have none, are listed in it with the reason.

    Example: edgecap board profiles/ -o board.html
    """
    if serve and (output or as_json):
        raise click.UsageError("--serve writes nothing: leave out -o and --json")
    if port is not None and not serve:
        raise click.UsageError("--port belongs to --serve")
    shelf = _shelf(places)
    if serve:
        _serve(shelf, port)
    else:
        _write(shelf, output, as_json)


def _shelf(places: tuple[Path, ...]) -> Cells:
    from edgecap.errors import UsageError
    from edgecap.report.board.entries import entries
    from edgecap.storage.collection import Collection
    from edgecap.sweep.state import cells_without_record

    if not places and not DEFAULT_PLACE.is_dir():
        raise UsageError(
            "nothing to show: there is no folder profiles here; name folders with records, or records"
        )
    return Collection(places or (DEFAULT_PLACE,), entries, cells_without_record)


def _write(shelf: Cells, output: Path | None, as_json: bool) -> None:
    from edgecap.errors import UsageError
    from edgecap.report.board.board import board_page, board_values, relative_link, rows_of, unread
    from edgecap.storage.collection import LoadedRecord

    found = shelf.read(_watch)
    if not any(isinstance(one, LoadedRecord) and one.value for one in found):
        why = next((f" ({one.reason})" for one in unread(found)), "")
        raise UsageError(f"nothing to show: no record with a cell in what was given{why}")
    if as_json:
        print_json(rows_of(found))
    if output or not as_json:
        page = output or DEFAULT_PAGE
        values = board_values(found, lambda path: relative_link(path, page.parent))
        write(page, board_page(values), {one.path for one in found}, GENERATED)
        click.echo(f"board: {page}, {len(values['cells']['latest'])} cells", err=True)
    _tell(unread(found))


def _tell(files: list[SkippedFile]) -> None:
    from edgecap.names import printable

    for one in files[:MOST_NAMED]:
        click.echo(f"not shown: {printable(one.reason)}", err=True)
    if len(files) > MOST_NAMED:
        click.echo(f"not shown: {len(files) - MOST_NAMED} more; the page names them", err=True)


def _serve(shelf: Cells, port: int | None) -> None:
    from edgecap.report.server import ADDRESS, BoardApp, open_server

    shelf.read(_watch)
    with open_server(BoardApp(shelf), port) as server:
        click.echo(
            f"board: http://{ADDRESS}:{server.server_address[1]}/ (Ctrl-C ends it)", err=True
        )
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)


def _watch(done: int, total: int) -> None:
    """One line that counts, where someone looks and waits."""
    if total > 100 and sys.stderr.isatty():
        click.echo(f"\rreading records: {done} of {total}", err=True, nl=done == total)
