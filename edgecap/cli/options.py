"""Options that several commands share, and the request that they make."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from edgecap.cli import types
from edgecap.errors import UsageError
from edgecap.spec import DEFAULT_MODEL, PRECISIONS, Spec


def options(*options: Any) -> Callable[[Any], Any]:
    """Combine options into one decorator, in the order of the help."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


which_model = options(
    click.option(
        "--model",
        default=DEFAULT_MODEL,
        show_default=True,
        metavar="NAME|FOLDER|FILE.onnx|ORG/NAME[@REVISION]",
        help="Model: a reference model, a Hugging Face or ONNX folder, one ONNX file, or a Hub id.",
    ),
    click.option("--revision", metavar="REVISION", help="Revision of the model on the Hub."),
)
how_exported = options(
    click.option(
        "--trust-remote-code",
        is_flag=True,
        help="Allow the exporter to run code from the model's folder.",
    ),
    click.option(
        "--exporter",
        default="optimum",
        show_default=True,
        metavar="NAME",
        help="Exporter of the fp32 graph: optimum, or genai (onnxruntime-genai model builder).",
    ),
    click.option(
        "--plain",
        "optimize",
        is_flag=True,
        default=True,
        flag_value=False,
        help="Do not fuse the exported graph.",
    ),
)
how_run = options(
    click.option(
        "--cache",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="Cache for exports and variants. Default: EDGECAP_CACHE or the user's cache.",
    ),
    click.option(
        "--timeout",
        "timeout_s",
        type=float,
        default=3600.0,
        show_default=True,
        metavar="SECONDS",
        help="End a child process after this long without progress.",
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="Print the result as JSON on standard output."
    ),
)
model_options = options(which_model, how_exported, how_run)


how_joined = options(
    click.option(
        "--tls",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Certificate bundle of this machine, from `edgecap fleet init`.",
    ),
    click.option("--insecure", is_flag=True, help="Connect beyond this machine without TLS."),
    click.option(
        "--shared",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Transfer models through this folder, which client and devices share.",
    ),
)
limit_options = options(
    click.option(
        "--max-latency-ms",
        "--max-latency",
        "max_latency_ms",
        type=types.LIMIT,
        metavar="MS",
        help="Largest latency of a decoded token, in ms.",
    ),
    click.option(
        "--max-memory",
        type=types.LIMIT,
        metavar="SIZE",
        help="Largest peak memory of the process: 200MB, 1.5GB, 512MiB, or bytes.",
    ),
    click.option(
        "--max-file",
        "--max-bytes",
        "max_file",
        type=types.LIMIT,
        metavar="SIZE",
        help="Largest size of the ONNX files: 200MB, 1.5GB, 512MiB, or bytes.",
    ),
    click.option(
        "--max-kl",
        type=types.LIMIT,
        metavar="BITS",
        help="Largest KL divergence from the model's fp32 variant, in bits per token.",
    ),
    click.option(
        "--prefer",
        metavar="WHAT",
        help="Metric to choose by: worth (default), speed, quality, memory, energy or size.",
    ),
)
law_option = click.option(
    "--law",
    type=click.Path(path_type=str),
    metavar="CARD",
    help="Take bits a doubling of FLOPs from this card of a series of models (edgecap fit).",
)
precision_option = click.option(
    "--precision",
    "precisions",
    type=types.NAMES,
    metavar="LIST",
    default="",
    help=f"Variants to use: {', '.join(PRECISIONS)}. "
    "Default: the first four, or all variants of an ONNX folder.",
)


# Fields of `Spec` and axes of a plan whose option has another name; others only change _ to -.
OPTION_NAMES = {
    "models": "model",
    "precisions": "precision",
    "providers": "provider",
    "corpora": "corpus",
    "contexts": "context",
    "batches": "batch",
    "bias_bits": "bias",
    "limit_s": "limit",
    "timeout_s": "timeout",
    "meter_offset_s": "meter-offset",
    "arena": "no-arena",
    "optimize": "plain",
}
_FIELD = re.compile(r"`(\w+)`|^'(\w+)'")  # `field` of a request, or 'key' of a plan


def request(**fields: Any) -> Spec:
    """Return the `Spec` of these fields. Raise UsageError that names options, not fields."""
    with option_names():
        return Spec(**fields)


@contextlib.contextmanager
def option_names() -> Iterator[None]:
    """Write options for the fields that a UsageError names: `limit_s` becomes --limit."""
    try:
        yield
    except UsageError as error:
        raise type(error)(_FIELD.sub(_option, str(error))) from error


def _option(field: re.Match[str]) -> str:
    name = field[1] or field[2]
    known = name in OPTION_NAMES or name in Spec.__struct_fields__ or name == "device"
    return f"--{OPTION_NAMES.get(name, name.replace('_', '-'))}" if known else field[0]
