"""What can be typed. Each command parses, calls one function of the API, and prints its result."""

from __future__ import annotations

import os

import click

from edgecap import __version__
from edgecap.cli.board import board
from edgecap.cli.cache import cache
from edgecap.cli.codec import compress, decompress
from edgecap.cli.compare import compare
from edgecap.cli.completion import completion
from edgecap.cli.doctor import doctor
from edgecap.cli.export import export, optimize
from edgecap.cli.fleet import fleet
from edgecap.cli.flops import flops
from edgecap.cli.profile import profile
from edgecap.cli.recommend import recommend
from edgecap.cli.report import report
from edgecap.cli.show import schema, show
from edgecap.cli.sweep import sweep
from edgecap.cli.worker import worker

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
  edgecap sweep night.toml                           many cells overnight, none lost
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


COMMANDS = (
    board,
    cache,
    compare,
    completion,
    compress,
    decompress,
    doctor,
    export,
    fleet,
    flops,
    optimize,
    profile,
    recommend,
    report,
    schema,
    show,
    sweep,
    worker,
)
for command in COMMANDS:
    cli.add_command(command)
