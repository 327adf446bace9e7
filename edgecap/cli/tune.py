"""`edgecap tune`: choose a format for each group of matrices under limits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecap.cli.options import limit_options, model_options, request
from edgecap.cli.output import print_json, print_text, width
from edgecap.errors import UsageError
from edgecap.spec import DEFAULT_CORPUS, DEFAULT_MODEL

if TYPE_CHECKING:
    from edgecap.analysis.recommend import Limit
    from edgecap.pipeline.tune import TuningResult

EXAMPLES = """\b
Examples:
  edgecap tune ./my-model                            the most worth of all candidates
  edgecap tune ./my-model --max-bytes 100MB --prefer quality -o small
  edgecap profile --model ./small                    measure the result
  edgecap report profiles/RECORD.json                draw the front of all candidates
"""


@click.command(epilog=EXAMPLES)
@click.argument("named", required=False, metavar="[MODEL]")
@model_options
@limit_options
@click.option(
    "--min-quality",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="SHARE",
    help="Least share of fp32's compression gain to keep: 0.99 allows --max-kl of 1 % of the gain.",
)
@click.option(
    "--corpus",
    default=DEFAULT_CORPUS,
    show_default=True,
    metavar="NAME|FILE|hf:ORG/NAME:FILE",
    help="Text to score candidates on. They are fitted to another text.",
)
@click.option(
    "--documents",
    type=int,
    default=8,
    show_default=True,
    metavar="N",
    help="Only the first N documents of the corpus.",
)
@click.option(
    "--provider",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="Execution provider to measure with.",
)
@click.option(
    "--threads", type=int, metavar="N", help="Intra-op threads. Default: the physical cores."
)
@click.option(
    "--limit",
    "limit_s",
    type=float,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit for the latency rounds of one candidate.",
)
@click.option("--keep-fp32", is_flag=True, help="Write the fp32 graph beside the tuned one.")
@click.option(
    "--records",
    type=click.Path(path_type=Path),
    default=Path("profiles"),
    show_default=True,
    metavar="FOLDER",
    help="Folder for the record of all candidates.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("tuned"),
    show_default=True,
    metavar="FOLDER",
    help="Folder to write the best candidate to; it must not exist.",
)
def tune(
    named: str | None,
    model: str,
    cache: Path | None,
    output: Path,
    records: Path,
    as_json: bool,
    prefer: str | None,
    min_quality: float | None,
    keep_fp32: bool,
    provider: str,
    max_file: Limit | None,
    max_memory: Limit | None,
    max_latency_ms: Limit | None,
    max_kl: Limit | None,
    **fields: Any,
) -> None:
    """Choose 4 or 8 bits and a block size for each group of matrices, under limits.

    Measures what each group loses when it is rounded, builds the best assignments, measures them
    beside int8, int4 and int4s, and writes the best one as an ONNX folder. Finished groups and
    graphs stay in the cache, so that a run that was cut off goes on with the next group.

    Exit status 1 if nothing fits the limits. MODEL is the same as --model.

    Example: edgecap tune ./my-model --max-bytes 100MB -o tuned
    """
    from edgecap.cli.live import Live
    from edgecap.pipeline.tune import tune as tune_model
    from edgecap.storage.files import resolve_paths
    from edgecap.storage.records import record_path

    if named and model not in (named, DEFAULT_MODEL):
        raise UsageError(f"give one model, not {named} and --model {model}")
    if max_kl and min_quality is not None:
        raise UsageError("--max-kl and --min-quality set the same limit; give one of them")
    limits = [x for x in (max_file, max_memory, max_latency_ms, max_kl) if x is not None]
    spec = request(model=named or model, providers=(provider,), context_sweep=(), **fields)
    paths = resolve_paths(cache, records)
    with Live() as live:
        result = tune_model(spec, output, limits, min_quality, prefer, keep_fp32, paths, live)
    _show(result, as_json)
    click.echo(f"record: {record_path(paths.profiles, result.record)}", err=True)
    if result.folder is None:
        sys.exit(1)


def _show(result: TuningResult, as_json: bool) -> None:
    import msgspec

    from edgecap.report.terminal.recommendation import advised
    from edgecap.report.terminal.tuning import duel_lines, formats_line

    if as_json:
        duels = [duel._asdict() for duel in result.duels]
        folder = str(result.folder) if result.folder else None
        answer = msgspec.to_builtins(result.recommendation)
        print_json(
            {"folder": folder, "formats": result.formats, "duels": duels, "recommendation": answer}
        )
        return
    print_text(advised(result.recommendation, width()))
    lines = duel_lines(result.record, [(d.fixed, d.tuned) for d in result.duels], width())
    print_text("\n".join(["", *lines]))
    if result.folder:
        print_text(f"\n{formats_line(result.folder, result.formats)}")
