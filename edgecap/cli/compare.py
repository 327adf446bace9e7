"""`edgecap compare`: compare cells of records, with verdicts and exit codes for CI."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgecap.cli import types
from edgecap.cli.options import law_option
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
    help="Baseline cell. Default: the fp32 cell of a single record.",
)
@law_option
@click.option(
    "--fail-on",
    "rules",
    type=types.FAIL_RULE,
    multiple=True,
    metavar="worse[:METRIC[:PERCENT]]",
    help="Exit with 1 if a metric is worse by more than PERCENT; repeatable. "
    "Also unknown[:METRIC].",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="Output: tables, Markdown for a pull request, JUnit XML for a CI system, or JSON.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the comparison to a file.",
)
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
def compare(
    records: tuple[Path, ...],
    baseline: str | None,
    law: str | None,
    rules: tuple[FailRule, ...],
    form: str,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compare cells of one record, or matching cells of several: ratios, intervals, verdicts.

    A verdict is better, same, worse or unknown. Without --baseline, one record compares its fp32
    cell with its other cells; several records compare each cell of the first record with the
    matching cells of the others.

    Example: edgecap compare profiles/RECORD.json --baseline precision=fp16

    Example: edgecap compare OLD.json NEW.json --fail-on worse:decode_s:10
    """
    from edgecap.analysis.compare import compare as compare_records
    from edgecap.analysis.law import with_law
    from edgecap.analysis.thresholds import violations
    from edgecap.names import printable
    from edgecap.report.terminal import comparison
    from edgecap.storage.records import load, uncollected

    if as_json and form not in ("text", "json"):
        raise click.UsageError(f"--json is --format json, not {form}")
    with uncollected():
        loaded = [load(path) for path in records]
        known = [with_law(record, Path(law)) for record in loaded] if law else loaded
        results = compare_records(known, baseline)
        broken = violations(results, rules)
        text = {
            "text": lambda: comparison.comparisons(results, width()),
            "md": lambda: comparison.markdown(results, broken),
            "junit": lambda: comparison.junit(results, broken),
            "json": lambda: json_of(results),
        }["json" if as_json else form]()
    print_or_write(text, output, records)
    for violation in broken:
        words = f"{violation.candidate} against {violation.baseline}: {violation.message}"
        click.echo(f"not accepted: {printable(words)}", err=True)
    if broken:
        sys.exit(1)
