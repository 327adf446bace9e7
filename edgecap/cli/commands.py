"""What can be typed. Each command parses, calls one function of the API, and prints its result."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgecap import __version__
from edgecap.cli.board import board
from edgecap.cli.cache import cache
from edgecap.cli.compare import compare
from edgecap.cli.completion import completion
from edgecap.cli.doctor import doctor
from edgecap.cli.fleet import fleet
from edgecap.cli.flops import flops
from edgecap.cli.recommend import recommend
from edgecap.cli.report import report
from edgecap.cli.sweep import sweep
from edgecap.cli.words import print_json, print_text, width
from edgecap.cli.worker import worker
from edgecap.provider_options import PROVIDERS, parse_providers
from edgecap.spec import DEFAULT_CORPUS, DEFAULT_MODEL, LEVELS, PRECISIONS, split_names, split_numbers, split_steps

EXAMPLES = """\b
Examples:
  edgecap profile                                    the shipped model on this processor
  edgecap profile --model ./my-model --precision fp32,int8
  edgecap compare profiles/RECORD.json --baseline precision=fp16
  edgecap report profiles/RECORD.json -o report.html
  edgecap recommend profiles/RECORD.json --max-latency-ms 20 --max-memory 2GB
  edgecap board profiles/ -o board.html              many records in one page
  edgecap export --model ./my-model --precision fp16,int8 -o my-model-onnx
  edgecap flops --config config.json                 counts of a published config, without a model
  edgecap cache prune --older-than 30d --dry-run     room that old graphs take
  edgecap compress book.txt -o book.ecap && edgecap decompress book.ecap -o again.txt
"""


@click.group(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgecap")
@click.option("--debug", is_flag=True, help="Show tracebacks and what child processes print.")
def cli(debug: bool) -> None:
    """Measure what a language model really delivers on this hardware.

    edgecap exports a model to ONNX, makes fp16, int8 and int4 variants, and measures each on the
    same graph: bits per byte of text, latency, energy and memory, beside analytic FLOPs.
    """
    if debug:
        os.environ["EDGECAP_DEBUG"] = "1"


def _options(*options: Any) -> Callable[[Any], Any]:
    """Several options as one decorator, in the order of the help."""

    def added(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return added


_which_model = _options(
    click.option(
        "--model",
        default=DEFAULT_MODEL,
        show_default=True,
        metavar="NAME|FOLDER|ORG/NAME[@REVISION]",
        help="A shipped reference model, a Hugging Face or ONNX folder, or a Hub id.",
    ),
    click.option("--revision", metavar="REVISION", help="Revision of a model on the Hub."),
)
_how_exported = _options(
    click.option("--trust-remote-code", is_flag=True, help="Let the exporter run code from the model's folder."),
    click.option(
        "--exporter",
        default="optimum",
        show_default=True,
        metavar="NAME",
        help="Who makes the fp32 graph: optimum, or genai (the model builder of onnxruntime-genai).",
    ),
    click.option(
        "--plain",
        "optimize",
        is_flag=True,
        default=True,
        flag_value=False,
        help="Keep the exported graph unfused.",
    ),
)
_how_run = _options(
    click.option(
        "--cache",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="Where exports and variants are kept. Default: EDGECAP_CACHE or the user's cache.",
    ),
    click.option(
        "--timeout",
        "timeout_s",
        type=float,
        default=3600.0,
        show_default=True,
        metavar="SECONDS",
        help="End a child process that says nothing for so long.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output."),
)
_model_options = _options(_which_model, _how_exported, _how_run)


_precision_option = click.option(
    "--precision",
    "precisions",
    metavar="LIST",
    default="",
    help=f"Variants, of {', '.join(PRECISIONS)}. Default: the first four, or all that an ONNX folder holds.",
)


def _codec_options(command: Any) -> Any:
    output = click.option(
        "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help="A new file."
    )
    provider = click.option("--provider", "providers", default="cpu", show_default=True, help="One execution provider.")
    return output(provider(command))


for command in (board, cache, compare, completion, doctor, fleet, flops, recommend, report, sweep, worker):
    cli.add_command(command)


@cli.command()
@_model_options
@_precision_option
@click.option(
    "--corpus",
    default=DEFAULT_CORPUS,
    show_default=True,
    metavar="NAME|FILE|hf:ORG/NAME:FILE",
    help="The bundled corpus, a .jsonl file with a 'text' field, a text file, or a file of a dataset on the Hub.",
)
@click.option("--documents", type=int, metavar="N", help="Only the first N documents of the corpus.")
@click.option(
    "--provider",
    "providers",
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
    help="How text is scored: exact, or paper (the published scripts of arXiv 2511.08066).",
)
@click.option("--context", type=int, metavar="POSITIONS", help="Positions of a window. Default: 1024 or the model's.")
@click.option(
    "--stride",
    type=int,
    metavar="POSITIONS",
    help="Let windows overlap: one begins every N positions, and only its new tokens are scored.",
)
@click.option("--bias", "bias_bits", type=float, metavar="BITS", help="Bias of the corpus, bits per token.")
@click.option("--threads", type=int, metavar="N", help="Intra-op threads. Default: the physical cores.")
@click.option("--affinity", metavar="LIST", default="", help="Processors to run on, as 0,2 or 0-3. Default: all.")
@click.option(
    "--graph-level",
    metavar="LEVEL",
    default="all",
    show_default=True,
    help=f"Graph optimisation of the runtime: {', '.join(LEVELS)}.",
)
@click.option(
    "--no-arena", "arena", is_flag=True, default=True, flag_value=False, help="Without the runtime's memory arena."
)
@click.option(
    "--skip-unfit", is_flag=True, help="Leave out variants that will not pay on this machine, with the reason."
)
@click.option(
    "--allow-fallback", is_flag=True, help="Go on where over 5 % of the time is spent on another provider than asked."
)
@click.option(
    "--limit",
    "limit_s",
    type=float,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="For the latency rounds of one cell.",
)
@click.option(
    "--precision-target",
    type=float,
    default=0.03,
    show_default=True,
    metavar="SHARE",
    help="Take rounds until half the 95 % interval of a median is this share of it, or the limit is reached.",
)
@click.option(
    "--energy",
    metavar="MODE",
    default="auto",
    show_default=True,
    help="auto, off, or require: refuse to run without a counter.",
)
@click.option("--assume-watts", type=float, metavar="W", help="Stand in for a counter: marked as assumed, in no score.")
@click.option("--meter", metavar="FILE", help="A wall meter's timestamped CSV, written while this runs.")
@click.option(
    "--meter-offset",
    "meter_offset_s",
    type=float,
    metavar="SECONDS",
    help="How far the meter's clock is ahead. Default: found from steps of load.",
)
@click.option(
    "--context-sweep",
    metavar="LIST",
    default="",
    help="Also time prefill and decoding at these contexts: 128,512 or FIRST:LAST:x2, or none. Default: 128,512,1024.",
)
@click.option(
    "--batch",
    "batches",
    metavar="LIST",
    default="1",
    show_default=True,
    help="Rows read and decoded at once: throughput of each size beside its latency.",
)
@click.option(
    "--streams",
    metavar="LIST",
    default="1",
    show_default=True,
    help="Concurrent streams of one session, whose weights they share; with every batch size.",
)
@click.option("--operators", is_flag=True, help="Also show the share of time of each operator.")
@click.option("--calibrate", is_flag=True, help="Measure the machine's peaks again, not only the first time.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("profiles"),
    show_default=True,
    metavar="FOLDER",
    help="Where the record is written.",
)
def profile(
    precisions: str,
    providers: str,
    context_sweep: str,
    batches: str,
    streams: str,
    affinity: str,
    cache: Path | None,
    output: Path,
    as_json: bool,
    **fields: Any,
) -> None:
    """Measure a model: text compression, latency, energy, memory, scores.

    Example: edgecap profile --model ./my-model --precision fp32,int8 --corpus my.jsonl
    """
    from edgecap.cli.live import Live
    from edgecap.metrics import went_wrong
    from edgecap.pipeline import profile as measure
    from edgecap.spec import Spec
    from edgecap.store import home, record_path

    asked = Spec(
        precisions=split_names(precisions),
        providers=_providers(providers),
        context_sweep=_sweep(context_sweep),
        batches=split_steps(batches, "--batch"),
        streams=split_steps(streams, "--streams"),
        affinity=split_numbers(affinity, "--affinity"),
        **fields,
    )
    where = home(cache, output)
    with Live() as live:
        record = measure(asked, where, live)
    _show(record, as_json)
    click.echo(f"record: {record_path(where.profiles, record)}", err=True)
    if any(map(went_wrong, record.cells)):
        sys.exit(1)


@cli.command()
@_model_options
@_precision_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="A new folder.")
@click.option(
    "--for",
    "provider",
    default="cpu",
    show_default=True,
    metavar="PROVIDER",
    help="Finish the graphs for this execution provider, which need not be here.",
)
def export(precisions: str, cache: Path | None, output: Path, as_json: bool, provider: str, **fields: Any) -> None:
    """Write one portable ONNX folder with tokenizer, variants and a manifest of hashes.

    Profile it on a device that has neither PyTorch nor transformers.

    Example: edgecap export --model ./my-model --precision fp16,int8 -o my-model-onnx
    """
    from edgecap.portable import export_folder

    _write_folder(partial(export_folder, provider=provider), precisions, cache, output, as_json, fields)


@cli.command()
@_which_model
@_how_run
@_precision_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="A new folder.")
def optimize(precisions: str, cache: Path | None, output: Path, as_json: bool, **fields: Any) -> None:
    """Fuse the fp32 graph of an ONNX folder: attention, rotary embedding, norms.

    The fused graph is checked against the plain one. edgecap export does this by itself; this is for
    folders that others exported. Variants that --precision names are made from the fused graph.

    Example: edgecap optimize --model ./optimum-folder -o ./fused
    """
    from edgecap.portable import optimize_folder

    _write_folder(optimize_folder, precisions, cache, output, as_json, fields)


def _write_folder(
    work: Any, precisions: str, cache: Path | None, output: Path, as_json: bool, fields: dict[str, Any]
) -> None:
    import msgspec

    from edgecap.cli.live import Live
    from edgecap.spec import Spec
    from edgecap.store import home
    from edgecap.units import size

    asked = Spec(precisions=split_names(precisions), **fields)
    with Live() as live:
        graphs = work(asked, output, home(cache), live)
    if as_json:
        print_json({"folder": str(output), "graphs": {p: msgspec.to_builtins(g) for p, g in graphs.items()}})
        return
    for precision, graph in graphs.items():
        click.echo(f"{precision:<6} {size(graph.bytes):>9}  {output / precision}")
    for reason in next(iter(graphs.values())).unfused:
        click.echo(f"not fused: {reason}", err=True)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@_model_options
@_codec_options
@click.option("--precision", metavar="NAME", default="", help=f"One of {', '.join(PRECISIONS)}. Default: fp32.")
@click.option("--context", type=int, metavar="POSITIONS", help="Positions of a window. Default: 1024 or the model's.")
@click.option("--threads", type=int, metavar="N", help="Intra-op threads. Default: the physical cores.")
def compress(file: Path, cache: Path | None, output: Path, precision: str, as_json: bool, **fields: Any) -> None:
    """Compress a file with a model: the bits that profile measures, as a real file.

    Any bytes go in, and the same come out of decompress, which needs the same model, processor and
    ONNX Runtime. Slow: each token is a decoding step.

    Example: edgecap compress book.txt -o book.ecap
    """
    from edgecap.packing import compress as pack

    names = split_names(precision)
    if len(names) > 1:
        raise click.UsageError(f"compress takes one precision, not {precision}")
    _pack(pack, file, cache, output, as_json, {"precisions": names, **fields})


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@_model_options
@_codec_options
def decompress(file: Path, cache: Path | None, output: Path, as_json: bool, **fields: Any) -> None:
    """Give back a file that compress was given. Precision, window and threads are read from it.

    Example: edgecap decompress book.ecap -o book.txt
    """
    from edgecap.packing import decompress as unpack

    _pack(unpack, file, cache, output, as_json, fields)


def _pack(work: Any, file: Path, cache: Path | None, output: Path, as_json: bool, fields: dict[str, Any]) -> None:
    import msgspec

    from edgecap.cli.live import Live
    from edgecap.spec import Spec
    from edgecap.store import home
    from edgecap.units import si, size

    asked = Spec(**{**fields, "providers": _providers(fields["providers"])})
    with Live() as live:
        found = work(file, output, asked, home(cache), live)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    ratio = f", {8 * found.coded_bytes / found.plain_bytes:.3f} bits/byte" if found.plain_bytes else ""
    print_text(f"{output}: {size(found.plain_bytes)} in all, {size(found.coded_bytes)} compressed{ratio}")
    print_text(
        f"{found.tokens} tokens in {si(found.seconds, 's')}; {size(found.stored_bytes)} stored without the model"
    )


@cli.command()
@click.argument("record", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the record with its medians as JSON.")
def show(record: Path, as_json: bool) -> None:
    """Show a record.

    Example: edgecap show profiles/edgecap-ref-xs--laptop--20261123T204500Z.json
    """
    from edgecap.store import load

    _show(load(record), as_json)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="The same: a JSON Schema is JSON.")
def schema(as_json: bool) -> None:
    """Print the JSON Schema of a record.

    Example: edgecap schema > record.schema.json
    """
    from edgecap.store import schema as record_schema

    print_json(record_schema())


def _providers(text: str) -> tuple[str, ...]:
    return tuple(str(provider) for provider in parse_providers(text))


def _sweep(text: str) -> tuple[int, ...] | None:
    """None where nothing was said, nothing where that was asked for."""
    if text.strip().lower() == "none":
        return ()
    return split_steps(text, "--context-sweep") if text else None


def _show(record: Any, as_json: bool) -> None:
    from edgecap.report.data import record_values
    from edgecap.report.tables import show as as_tables

    if as_json:
        print_json(record_values(record))
    else:
        print_text(as_tables(record, width()))
