"""`edgecap show` and `edgecap schema`: a record, and the shape of records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgecap.cli.output import print_json, print_text, width

if TYPE_CHECKING:
    from edgecap.record import Profile


details_option = click.option(
    "--details",
    is_flag=True,
    help="Also print scores with intervals, roofline, contexts, energy windows and all cautions; "
    "profile also times the usual contexts.",
)


@click.command()
@click.argument("record", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the record with its medians as JSON.")
@details_option
def show(record: Path, as_json: bool, details: bool) -> None:
    """Show a record: the measured values, and the cautions that change a decision.

    Example: edgecap show profiles/edgecap-ref-xs--laptop--20261123T204500Z.json
    """
    from edgecap.storage.records import load

    show_record(load(record), as_json, details)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The same: a JSON Schema is JSON.")
def schema(as_json: bool) -> None:
    """Print the JSON Schema of a record.

    Example: edgecap schema > record.schema.json
    """
    from edgecap.storage.records import schema as record_schema

    print_json(record_schema())


def show_record(record: Profile, as_json: bool, details: bool) -> None:
    """Print a record for people, in short or with all tables, or for programs."""
    from edgecap.report.data import record_values
    from edgecap.report.terminal.details import details as in_detail
    from edgecap.report.terminal.summary import summary

    if as_json:
        print_json(record_values(record))
    else:
        print_text((in_detail if details else summary)(record, width()))
