"""`edgecap profile`: measure a model."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecap.cli import types
from edgecap.cli.options import law_option, model_options, precision_option, request
from edgecap.cli.output import print_json
from edgecap.cli.rank import check_ranked, rank
from edgecap.cli.show import details_option, show_record
from edgecap.provider_options import PROVIDERS
from edgecap.spec import DEFAULT_CORPUS, LEVELS

if TYPE_CHECKING:
    from edgecap.record import Profile
    from edgecap.spec import Spec
    from edgecap.storage.files import Paths


@click.command()
@model_options
@precision_option
@click.option(
    "--corpus",
    default=DEFAULT_CORPUS,
    show_default=True,
    metavar="NAME|FILE|hf:ORG/NAME:FILE",
    help="The bundled corpus, a .jsonl file with a 'text' field, a text file, or a Hub file.",
)
@click.option(
    "--documents", type=int, metavar="N", help="Only the first N documents of the corpus."
)
@click.option(
    "--provider",
    "providers",
    type=types.PROVIDERS,
    default="cpu",
    show_default=True,
    metavar="LIST",
    help=f"Execution providers, of {', '.join(PROVIDERS)}.",
)
@click.option(
    "--protocol",
    default="exact",
    show_default=True,
    metavar="NAME",
    help="Scoring protocol: exact, or paper (the published scripts of arXiv 2511.08066).",
)
@click.option(
    "--context",
    type=int,
    metavar="POSITIONS",
    help="Window length in tokens. Default: 1024, or the model's maximum.",
)
@click.option(
    "--stride",
    type=int,
    metavar="POSITIONS",
    help="Overlap windows: start one every N positions and score only its new tokens.",
)
@click.option(
    "--bias",
    "bias_bits",
    type=float,
    metavar="BITS",
    help="Bias of the corpus, bits per token. Default: that of its card, else 0.",
)
@law_option
@click.option(
    "--threads",
    type=int,
    metavar="N",
    help="Intra-op threads. Default: the physical cores, or fewer under a CPU quota.",
)
@click.option(
    "--affinity",
    type=types.PROCESSORS,
    metavar="LIST",
    default="",
    help="Processors to run on, as 0,2 or 0-3. Default: all.",
)
@click.option(
    "--graph-level",
    metavar="LEVEL",
    default="all",
    show_default=True,
    help=f"Graph optimisation of the runtime: {', '.join(LEVELS)}.",
)
@click.option(
    "--no-arena",
    "arena",
    is_flag=True,
    default=True,
    flag_value=False,
    help="Disable the runtime's memory arena.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Answer in about a minute: an excerpt of the text, a prompt of 128 tokens, few rounds.",
)
@click.option(
    "--skip-unfit",
    is_flag=True,
    help="Leave out variants without a benefit on this machine, with the reason.",
)
@click.option(
    "--allow-fallback",
    is_flag=True,
    help="Continue if over 5 % of the time is spent on a provider other than requested.",
)
@click.option(
    "--limit",
    "limit_s",
    type=float,
    metavar="SECONDS",
    help="Time limit for the latency rounds of one cell. Default: 30, with --quick 8.",
)
@click.option(
    "--precision-target",
    type=float,
    metavar="SHARE",
    help="Repeat rounds until half the 95 % interval is this share of the median, or --limit. "
    "Default: 0.03, or until it is sure which variants are better.",
)
@click.option(
    "--energy",
    metavar="MODE",
    default="auto",
    show_default=True,
    help="auto, off, or require: refuse to run without a counter.",
)
@click.option(
    "--assume-watts",
    type=float,
    metavar="W",
    help="Assume this power where no counter exists: marked as assumed, used in no score.",
)
@click.option(
    "--meter", metavar="FILE", help="Timestamped CSV of a wall meter, written during the run."
)
@click.option(
    "--meter-offset",
    "meter_offset_s",
    type=float,
    metavar="SECONDS",
    help="Seconds that the meter's clock is ahead. Default: estimated from steps of load.",
)
@click.option(
    "--context-sweep",
    type=types.SERIES_OR_NONE,
    metavar="LIST",
    help="Also time these contexts: 128,512 or FIRST:LAST:x2. "
    "Default: none; with --details 128,512,1024.",
)
@click.option(
    "--batch",
    "batches",
    type=types.SERIES,
    metavar="LIST",
    default="1",
    show_default=True,
    help="Batch sizes: measure throughput and latency of each.",
)
@click.option(
    "--streams",
    type=types.SERIES,
    metavar="LIST",
    default="1",
    show_default=True,
    help="Concurrent streams of one session with shared weights; with every batch size.",
)
@click.option(
    "--rank-documents",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write bits per byte of each document, hardest first; with several models, gains by size.",
)
@details_option
@click.option("--operators", is_flag=True, help="Also measure the share of time of each operator.")
@click.option(
    "--calibrate", is_flag=True, help="Measure the machine's peaks again, not only the first time."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("profiles"),
    show_default=True,
    metavar="FOLDER",
    help="Folder for the record.",
)
def profile(
    cache: Path | None,
    output: Path,
    as_json: bool,
    details: bool,
    rank_documents: Path | None,
    model: str,
    **fields: Any,
) -> None:
    """Measure a model: text compression, latency, energy, memory, scores.

    Several models, with commas, or edgecap-ref for all reference models, are measured in turn.

    Example: edgecap profile --model ./my-model --precision fp32,int8 --corpus my.jsonl

    Example: edgecap profile --model ./my-model --quick
    """
    from msgspec.structs import replace

    from edgecap.analysis.outcomes import has_failure
    from edgecap.storage.files import resolve_paths

    spec = request(details=details, **fields)
    models = _models(model, spec.revision)
    if rank_documents:
        check_ranked(rank_documents, spec)
    records = [
        _measured(replace(spec, model=name), resolve_paths(cache, output), as_json, details)
        for name in models
    ]
    if as_json:
        _print_values(records)
    if rank_documents:
        rank(records, rank_documents, quiet=as_json)
    if any(has_failure(cell) for record in records for cell in record.cells):
        sys.exit(1)


def _models(text: str, revision: str | None) -> list[str]:
    """Split a list of models and check each before the first is measured.

    Do not ask the Hub. Raise UsageError if a model is missing or given twice.
    """
    from edgecap.errors import UsageError
    from edgecap.model.locate import is_hub_model, locate
    from edgecap.model.reference_models import expand_names

    parts = [text] if os.path.isdir(text) else text.split(",")
    models = [name for part in parts for name in expand_names(part)]
    if not models:
        raise UsageError("--model names no model")
    if len(models) == 1:  # measuring it checks it first
        return models
    places = [m if is_hub_model(m) else locate(m, revision).place for m in models]
    duplicate = next((m for n, m in enumerate(models) if places[n] in places[:n]), None)
    if duplicate:
        raise UsageError(f"--model has {duplicate} twice; give different models")
    return models


def _measured(spec: Spec, paths: Paths, as_json: bool, details: bool) -> Profile:
    from edgecap.cli.live import Live

    with Live() as live:  # its first line comes before the slow imports
        from edgecap.pipeline.profile import profile as measure
        from edgecap.storage.records import record_path

        record = measure(spec, paths, live)
    if not as_json:
        show_record(record, False, details)
    click.echo(f"record: {record_path(paths.profiles, record)}", err=True)
    return record


def _print_values(records: list[Profile]) -> None:
    """Print one record as itself, several as a list."""
    from edgecap.report.data import record_values

    values = [record_values(record) for record in records]
    print_json(values[0] if len(values) == 1 else values)
