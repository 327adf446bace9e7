"""`edgecap compare`: cells of one record, or of several, with verdicts and a gate for CI."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgecap.cli import types
from edgecap.cli.output import print_or_write, width
from edgecap.cli.output import to_json as json_of

if TYPE_CHECKING:
    from edgecap.analysis.thresholds import FailRule

FORMATS = ("text", "md", "junit", "json")


@click.command()
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--baseline",
    type=types.BASELINE,
    metavar="precision=NAME[,provider=NAME]",
    help="The cell that others are held against.",
)
@click.option(
    "--fail-on",
    "rules",
    type=types.FAIL_RULE,
    multiple=True,
    metavar="worse[:METRIC[:PERCENT]]",
    help="Exit with 1 where a metric is worse, by more than so many percent; may be repeated. Also unknown[:METRIC].",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="Tables, Markdown for a pull request, JUnit XML for a CI system, or JSON.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it to a file."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def compare(
    records: tuple[Path, ...],
    baseline: str | None,
    rules: tuple[FailRule, ...],
    form: str,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compare cells of one record, or the like cells of several: ratios, intervals, verdicts.

    A verdict is better, same, worse or unknown. Without --baseline, the fp32 cell of a single record is held
    against its others, and each cell of the first of several records against its like in the rest.

    Example: edgecap compare profiles/RECORD.json --baseline precision=fp16

    Example: edgecap compare OLD.json NEW.json --fail-on worse:decode_s:10 --format junit -o compare.xml
    """
    from edgecap.analysis.compare import compare as compare_records
    from edgecap.analysis.thresholds import violations
    from edgecap.names import printable
    from edgecap.report.data import comparison_values
    from edgecap.report.terminal import comparison
    from edgecap.storage.records import load

    if as_json and form not in ("text", "json"):
        raise click.UsageError(f"--json is --format json, not {form}")
    found = compare_records([load(path) for path in records], baseline)
    broken = violations(found, rules)
    text = {
        "text": lambda: comparison.comparisons(found, width()),
        "md": lambda: comparison.markdown(found, broken),
        "junit": lambda: comparison.junit(found, broken),
        "json": lambda: json_of(comparison_values(found)),
    }["json" if as_json else form]()
    print_or_write(text, output, records)
    for one in broken:
        words = printable(f"{one.candidate} against {one.baseline}: {one.message}")
        click.echo(f"not accepted: {words}", err=True)
    if broken:
        sys.exit(1)
