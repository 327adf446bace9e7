"""`edgecap show` and `edgecap schema`: a record, and the shape of records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgecap.cli.output import print_json, print_text, width


@click.command()
@click.argument("record", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the record with its medians as JSON.")
def show(record: Path, as_json: bool) -> None:
    """Show a record.

    Example: edgecap show profiles/edgecap-ref-xs--laptop--20261123T204500Z.json
    """
    from edgecap.storage.records import load

    show_record(load(record), as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The same: a JSON Schema is JSON.")
def schema(as_json: bool) -> None:
    """Print the JSON Schema of a record.

    Example: edgecap schema > record.schema.json
    """
    from edgecap.storage.records import schema as record_schema

    print_json(record_schema())


def show_record(record: Any, as_json: bool) -> None:
    """Prints a record, for people or for programs."""
    from edgecap.report.data import record_values
    from edgecap.report.terminal.record import show as as_tables

    if as_json:
        print_json(record_values(record))
    else:
        print_text(as_tables(record, width()))
