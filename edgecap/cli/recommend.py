"""`edgecap recommend`: choose a variant under limits, or split documents between two models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecap.cli import types
from edgecap.cli.options import limit_options
from edgecap.cli.output import print_json, print_text, width
from edgecap.errors import UsageError

if TYPE_CHECKING:
    from edgecap.analysis.recommend import Limit
    from edgecap.record import Profile

EXAMPLES = """\b
Examples:
  edgecap recommend RECORD.json                     the variant of most worth
  edgecap recommend RECORD.json --max-latency-ms 0.4 --max-file 2MB
  edgecap recommend *.json --max-memory 512MiB      choose among several models
  edgecap recommend *.json --prefer quality --max-energy-j 20mJ
  edgecap recommend SMALL.json LARGE.json --route   split documents by difficulty
"""


@click.command(epilog=EXAMPLES)
@click.argument("records", nargs=-1, type=click.Path(path_type=Path))
@limit_options
@click.option(
    "--max-ttft-ms",
    type=types.LIMIT,
    metavar="MS",
    help="Largest time to first token at the measured prompt length, in ms.",
)
@click.option(
    "--max-energy-j",
    type=types.LIMIT,
    metavar="J",
    help="Largest measured energy of a decoded token: 0.02, or 20mJ.",
)
@click.option(
    "--max-bits-per-byte",
    "--min-bits-per-byte-quality",
    "max_bits_per_byte",
    type=types.LIMIT,
    metavar="BITS",
    help="Largest bits per byte of text; fewer bits are better quality.",
)
@click.option(
    "--route",
    is_flag=True,
    help="Split documents by difficulty between a small and a large model.",
)
@click.option(
    "--route-by", metavar="WHAT", help="Cost that routing saves: time (default) or energy."
)
@click.option("--json", "as_json", is_flag=True, help="Print the recommendation as JSON.")
def recommend(
    records: tuple[Path, ...],
    prefer: str | None,
    route: bool,
    route_by: str | None,
    as_json: bool,
    **given: Limit | None,
) -> None:
    """Recommend a variant: the best within the limits, the runner-up, the cost of each limit.

    Exit status 1 if nothing fits; then shows the nearest variant, its distance, and what to try.

    Example: edgecap recommend profiles/RECORD.json --max-latency-ms 0.4
    """
    from edgecap.storage.records import load

    limits = [limit for limit in given.values() if limit is not None]
    if not records:
        raise UsageError("recommend needs a record; edgecap profile writes one to profiles/")
    if route:
        _refuse_beside_route(limits, prefer)
        _route([load(path) for path in records], limits, route_by or "time", as_json)
    elif route_by:
        raise UsageError("--route-by belongs to --route")
    else:
        _recommend([load(path) for path in records], limits, prefer, as_json)


def _refuse_beside_route(limits: list[Limit], prefer: str | None) -> None:
    misplaced = [limit.option for limit in limits if limit.metric != "bits_per_byte"]
    if prefer is not None:
        misplaced.append("--prefer")
    if misplaced:
        raise UsageError(f"--route takes --max-bits-per-byte and --route-by, not {misplaced[0]}")


def _recommend(
    records: list[Profile], limits: list[Limit], prefer: str | None, as_json: bool
) -> None:
    from edgecap.analysis.recommend import recommend as choose
    from edgecap.report.terminal.recommendation import advised

    result = choose(records, limits, prefer)
    _print(result, as_json, lambda found, columns: advised(found, columns, records))
    if result.best is None:
        sys.exit(1)


def _route(records: list[Profile], limits: list[Limit], by: str, as_json: bool) -> None:
    from edgecap.analysis.routing import route
    from edgecap.report.terminal.routing import routed

    result = route(records, by, limits[0].most if limits else None)
    _print(result, as_json, routed)
    if result.verdict == "out of reach":
        sys.exit(1)


def _print(result: Any, as_json: bool, as_text: Any) -> None:
    import msgspec

    if as_json:
        print_json(msgspec.to_builtins(result))
    else:
        print_text(as_text(result, width()))
