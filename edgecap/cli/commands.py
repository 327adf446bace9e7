"""List of commands. Each parses its options, calls one function of the API, prints the result."""

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
from edgecap.cli.fit import fit
from edgecap.cli.fleet import fleet
from edgecap.cli.flops import flops
from edgecap.cli.predict import predict
from edgecap.cli.profile import profile
from edgecap.cli.recommend import recommend
from edgecap.cli.report import report
from edgecap.cli.show import schema, show
from edgecap.cli.sweep import sweep
from edgecap.cli.tokenizer import tokenizer
from edgecap.cli.tune import tune
from edgecap.cli.worker import worker

EXAMPLES = """\b
Examples:
  edgecap profile                                    profile the reference model on the CPU
  edgecap profile --model ./my-model --precision fp32,int8
  edgecap compare profiles/RECORD.json --baseline precision=fp16
  edgecap report profiles/RECORD.json -o report.html
  edgecap recommend profiles/RECORD.json --max-latency-ms 20 --max-memory 2GB
  edgecap tune ./my-model --max-bytes 100MB          choose formats within a limit
  edgecap board profiles/ -o board.html              show many records on one page
  edgecap export --model ./my-model --precision fp16,int8 -o my-model-onnx
  edgecap flops --config config.json                 count FLOPs from a config, without weights
  edgecap cache prune --older-than 30d --dry-run     show the disk space that old graphs take
  edgecap fit profiles/*.json                        fit the bias of a corpus on a model series
  edgecap predict profiles/*.json --config bigger    predict a size that was not run
  edgecap tokenizer edgecap-ref-xs ./my-model        compare tokenizers on the same text
  edgecap sweep night.toml                           measure many cells, resumable
  edgecap compress book.txt -o book.ecap && edgecap decompress book.ecap -o again.txt
"""


@click.group(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgecap")
@click.option("--debug", is_flag=True, help="Show tracebacks and the output of child processes.")
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
    fit,
    fleet,
    flops,
    optimize,
    predict,
    profile,
    recommend,
    report,
    schema,
    show,
    sweep,
    tokenizer,
    tune,
    worker,
)
for command in COMMANDS:
    cli.add_command(command)
