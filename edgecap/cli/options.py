"""Options that several commands share, and how their lists are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgecap.provider_options import parse_providers
from edgecap.spec import DEFAULT_MODEL, PRECISIONS


def options(*options: Any) -> Callable[[Any], Any]:
    """Several options as one decorator, in the order of the help."""

    def added(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return added


which_model = options(
    click.option(
        "--model",
        default=DEFAULT_MODEL,
        show_default=True,
        metavar="NAME|FOLDER|ORG/NAME[@REVISION]",
        help="A shipped reference model, a Hugging Face or ONNX folder, or a Hub id.",
    ),
    click.option("--revision", metavar="REVISION", help="Revision of a model on the Hub."),
)
how_exported = options(
    click.option(
        "--trust-remote-code",
        is_flag=True,
        help="Let the exporter run code from the model's folder.",
    ),
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
how_run = options(
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
        help="This machine's bundle, of `edgecap fleet init`.",
    ),
    click.option("--insecure", is_flag=True, help="Use a fleet beyond this machine without TLS."),
    click.option(
        "--shared",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Hand models over in this folder, which client and devices see.",
    ),
)
precision_option = click.option(
    "--precision",
    "precisions",
    metavar="LIST",
    default="",
    help=f"Variants, of {', '.join(PRECISIONS)}. Default: the first four, or all that an ONNX folder holds.",
)


def providers_of(text: str) -> tuple[str, ...]:
    """Providers as typed, each with its options in one spelling."""
    return tuple(str(provider) for provider in parse_providers(text))
