"""`edgecap report`: write records as an HTML page, Markdown, CSV or JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from edgecap.cli.output import GENERATED, print_json, write
from edgecap.cli.output import to_json as json_of
from edgecap.record import Profile

PAGE = Path("report.html")
ENDINGS = {".html": "html", ".htm": "html", ".md": "md", ".csv": "csv", ".json": "json"}


@click.command()
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"File to write; only an earlier report is overwritten. "
    f"Default: {PAGE} for a page, else standard output.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "md", "csv", "json"]),
    help="Format. Default: from the suffix of FILE, else html. "
    "csv has one row per cell and one column per number, in SI units.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Same as --format json: the records with their medians.",
)
def report(records: tuple[Path, ...], output: Path | None, form: str | None, as_json: bool) -> None:
    """Write a report of records: verdict, figures with intervals, warnings, raw numbers.

    The page is one file that works offline and loads nothing from the network.

    Example: edgecap report profiles/RECORD.json -o report.html
    """
    from edgecap.storage.records import load

    if as_json and form not in (None, "json"):
        raise click.UsageError(f"--json is --format json, not {form}")
    form = "json" if as_json else form or _form(output)
    loaded = [load(path) for path in records]
    if form == "json" and output is None:
        print_json(_values(loaded))
        return
    output = output or (PAGE if form == "html" else None)
    if output is None:
        click.echo(_FORMS[form](loaded), nl=False)
        return
    write(output, _FORMS[form](loaded), records, _MARKS[form])
    click.echo(f"report: {output}", err=True)


def _form(output: Path | None) -> str:
    return "html" if output is None else ENDINGS.get(output.suffix.lower(), "html")


def _html(records: Sequence[Profile]) -> str:
    from edgecap.report.page.report import html

    return html(records)


def _markdown(records: Sequence[Profile]) -> str:
    from edgecap.report.page.markdown import markdown

    return markdown(records)


def _csv(records: Sequence[Profile]) -> str:
    from edgecap.report.rows import as_csv, rows

    return as_csv(rows(records))


def _values(records: Sequence[Profile]) -> list[object]:
    from edgecap.report.data import record_values

    return [record_values(record) for record in records]


def _json(records: Sequence[Profile]) -> str:
    return f"{json_of(_values(records))}\n"


_FORMS: dict[str, Callable[[Sequence[Profile]], str]] = {
    "html": _html,
    "md": _markdown,
    "csv": _csv,
    "json": _json,
}

# Text near the start of a report that this command wrote, by format.
_MARKS = {
    "html": GENERATED,
    "md": "<!-- edgecap report -->",
    "csv": "record,created_utc,edgecap,",
    "json": '[\n {\n  "schema": ',
}
