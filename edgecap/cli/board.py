"""`edgecap board`: a leaderboard of many records, as a page or served on this machine."""

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
MOST_NAMED = 5  # files and folders not shown that the terminal lists; the page lists all


@click.command()
@click.argument("places", nargs=-1, type=click.Path(path_type=Path), metavar="[FOLDER|RECORD]...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Page to write. Default: board.html.",
)
@click.option(
    "--serve",
    is_flag=True,
    help="Serve the page on 127.0.0.1 until Ctrl-C; new records appear as they are written.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of --serve; 0 for a free port. Default: 8765.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one row per cell as JSON; write a page only with -o.",
)
def board(
    places: tuple[Path, ...], output: Path | None, serve: bool, port: int | None, as_json: bool
) -> None:
    """Rank the cells of many records on one page, to filter, sort and compare.

    Cells of one text are ranked by effective FLOP/s: what a second of decoding is worth.

    Reads records, and folders of records with their sub-folders (default: profiles). The page is
    one file that works offline and links to the records. It lists files that are not records,
    folders without a record, and sweep cells without one, with the reason.

    Example: edgecap board profiles/ -o board.html
    """
    if serve and (output or as_json):
        raise click.UsageError("--serve writes no file: leave out -o and --json")
    if port is not None and not serve:
        raise click.UsageError("--port belongs to --serve")
    records = _open(places)
    if serve:
        _serve(records, port)
    else:
        _write(records, output, as_json)


def _open(places: tuple[Path, ...]) -> Cells:
    from edgecap.errors import UsageError
    from edgecap.report.board.entries import entries
    from edgecap.storage.collection import Collection
    from edgecap.sweep.state import cells_without_record

    if not places and not DEFAULT_PLACE.is_dir():
        raise UsageError(
            "nothing to show: there is no folder profiles here; name records or folders of records"
        )
    return Collection(places or (DEFAULT_PLACE,), entries, cells_without_record)


def _write(records: Cells, output: Path | None, as_json: bool) -> None:
    from edgecap.errors import UsageError
    from edgecap.names import shortened_list
    from edgecap.report.board.board import board_page, board_values, relative_link, rows_of, unread
    from edgecap.storage.collection import LoadedRecord

    files = records.read(_show_progress)
    if not any(isinstance(one, LoadedRecord) and one.value for one in files):
        why = shortened_list([one.reason for one in unread(files)], 3)
        raise UsageError(f"nothing to show: no record with a cell was given ({why})")
    if as_json:
        print_json(rows_of(files))
    if output or not as_json:
        page = output or DEFAULT_PAGE
        values = board_values(files, lambda path: relative_link(path, page.parent))
        write(page, board_page(values), {one.path for one in files}, GENERATED)
        click.echo(f"board: {page}, {len(values['cells']['latest'])} cells", err=True)
    _report_unread(unread(files))


def _report_unread(files: list[SkippedFile]) -> None:
    from edgecap.names import printable

    for one in files[:MOST_NAMED]:
        click.echo(f"not shown: {printable(one.reason)}", err=True)
    if len(files) > MOST_NAMED:
        click.echo(f"not shown: {len(files) - MOST_NAMED} more; the page lists them", err=True)


def _serve(records: Cells, port: int | None) -> None:
    from edgecap.report.board.board import unread
    from edgecap.report.server import ADDRESS, BoardApp, open_server

    _report_unread(unread(records.read(_show_progress)))
    with open_server(BoardApp(records), port) as server:
        click.echo(
            f"board: http://{ADDRESS}:{server.server_address[1]}/ (Ctrl-C to stop)", err=True
        )
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)


def _show_progress(done: int, total: int) -> None:
    """Count the records that were read, on a terminal, if there are many."""
    if total > 100 and sys.stderr.isatty():
        click.echo(f"\rreading records: {done} of {total}", err=True, nl=done == total)
