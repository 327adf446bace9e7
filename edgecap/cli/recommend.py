"""`edgecap recommend`: which variant to ship under the user's limits, or how to split documents between two."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecap.cli import types
from edgecap.cli.output import print_json, print_text, width
from edgecap.errors import UsageError

if TYPE_CHECKING:
    from edgecap.analysis.recommend import Limit
    from edgecap.record import Profile

EXAMPLES = """\b
Examples:
  edgecap recommend RECORD.json                     the best by capacity
  edgecap recommend RECORD.json --max-latency-ms 0.4 --max-file 2MB
  edgecap recommend *.json --max-memory 512MiB      of several models
  edgecap recommend *.json --prefer quality --max-energy-j 20mJ
  edgecap recommend SMALL.json LARGE.json --route   who takes which text
"""


@click.command(epilog=EXAMPLES)
@click.argument("records", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--max-latency-ms", type=types.LIMIT, metavar="MS", help="Milliseconds of a decoded token."
)
@click.option(
    "--max-ttft-ms",
    type=types.LIMIT,
    metavar="MS",
    help="Milliseconds to read the prompt, of the length that was measured.",
)
@click.option(
    "--max-memory",
    type=types.LIMIT,
    metavar="SIZE",
    help="Peak RAM of the process: 200MB, 1.5GB, 512MiB, or bytes.",
)
@click.option(
    "--max-file", type=types.LIMIT, metavar="SIZE", help="Size of the ONNX files, written likewise."
)
@click.option(
    "--max-energy-j",
    type=types.LIMIT,
    metavar="J",
    help="Joules of a decoded token: 0.02, or 20mJ. Assumed joules do not count.",
)
@click.option(
    "--max-bits-per-byte",
    "--min-bits-per-byte-quality",
    "max_bits_per_byte",
    type=types.LIMIT,
    metavar="BITS",
    help="Quality at least so good: at most so many bits for a byte of text, since fewer are better.",
)
@click.option(
    "--max-kl",
    type=types.LIMIT,
    metavar="BITS",
    help="Divergence from the same model's fp32, bits a token.",
)
@click.option(
    "--prefer",
    metavar="WHAT",
    help="What decides among those that fit: capacity (default), speed, quality, memory, energy or size.",
)
@click.option(
    "--route",
    is_flag=True,
    help="Split the documents between a small and a large model by difficulty.",
)
@click.option("--route-by", metavar="WHAT", help="What routing saves: time (default) or energy.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def recommend(
    records: tuple[Path, ...],
    prefer: str | None,
    route: bool,
    route_by: str | None,
    as_json: bool,
    **given: Limit | None,
) -> None:
    """Say which variant to ship: the best within your limits, the runner-up, what each limit costs.

    Exit status 1 where nothing fits: then the nearest, how far off it is, and what to try.

    Example: edgecap recommend profiles/RECORD.json --max-latency-ms 0.4
    """
    from edgecap.storage.records import load

    limits = [limit for limit in given.values() if limit is not None]
    if not records:
        raise UsageError("recommend needs a record; edgecap profile writes one into profiles/")
    if route:
        _refuse_beside_route(limits, prefer)
        _route([load(path) for path in records], limits, route_by or "time", as_json)
    elif route_by:
        raise UsageError("--route-by belongs to --route")
    else:
        _recommend([load(path) for path in records], limits, prefer, as_json)


def _refuse_beside_route(limits: list[Limit], prefer: str | None) -> None:
    strange = [limit.option for limit in limits if limit.metric != "bits_per_byte"]
    if prefer is not None:
        strange.append("--prefer")
    if strange:
        raise UsageError(f"--route takes --max-bits-per-byte and --route-by, not {strange[0]}")


def _recommend(
    records: list[Profile], limits: list[Limit], prefer: str | None, as_json: bool
) -> None:
    from edgecap.analysis.recommend import recommend as choose
    from edgecap.report.terminal.recommendation import advised

    found = choose(records, limits, prefer)
    _print(found, as_json, advised)
    if found.best is None:
        sys.exit(1)


def _route(records: list[Profile], limits: list[Limit], by: str, as_json: bool) -> None:
    from edgecap.analysis.routing import route
    from edgecap.report.terminal.routing import routed

    found = route(records, by, limits[0].most if limits else None)
    _print(found, as_json, routed)
    if found.verdict == "out of reach":
        sys.exit(1)


def _print(found: Any, as_json: bool, as_text: Any) -> None:
    import msgspec

    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        print_text(as_text(found, width()))
