"""`edgecap compress` and `edgecap decompress`: the bits that profile counts, as a real file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgecap.cli import types
from edgecap.cli.options import model_options, request
from edgecap.cli.output import print_json, print_text
from edgecap.spec import PRECISIONS


def _codec_options(command: Any) -> Any:
    output = click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        required=True,
        metavar="FILE",
        help="A new file.",
    )
    provider = click.option(
        "--provider",
        "providers",
        type=types.PROVIDERS,
        default="cpu",
        show_default=True,
        help="One execution provider.",
    )
    return output(provider(command))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@model_options
@_codec_options
@click.option(
    "--precision",
    "precisions",
    type=types.NAMES,
    metavar="NAME",
    default="",
    help=f"One of {', '.join(PRECISIONS)}. Default: fp32.",
)
@click.option(
    "--context",
    type=int,
    metavar="POSITIONS",
    help="Positions of a window. Default: 1024 or the model's.",
)
@click.option(
    "--threads", type=int, metavar="N", help="Intra-op threads. Default: the physical cores."
)
def compress(
    file: Path,
    cache: Path | None,
    output: Path,
    precisions: tuple[str, ...],
    as_json: bool,
    **fields: Any,
) -> None:
    """Compress a file with a model: the bits that profile measures, as a real file.

    Any bytes go in, and the same come out of decompress, which needs the same model, processor and
    ONNX Runtime. Slow: each token is a decoding step.

    Example: edgecap compress book.txt -o book.ecap
    """
    from edgecap.pipeline.compress import compress as pack

    if len(precisions) > 1:
        raise click.UsageError(f"compress takes one precision, not {','.join(precisions)}")
    _pack(pack, file, cache, output, as_json, {"precisions": precisions, **fields})


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@model_options
@_codec_options
def decompress(file: Path, cache: Path | None, output: Path, as_json: bool, **fields: Any) -> None:
    """Give back a file that compress was given. Precision, window and threads are read from it.

    Example: edgecap decompress book.ecap -o book.txt
    """
    from edgecap.pipeline.compress import decompress as unpack

    _pack(unpack, file, cache, output, as_json, fields)


def _pack(
    work: Any, file: Path, cache: Path | None, output: Path, as_json: bool, fields: dict[str, Any]
) -> None:
    import msgspec

    from edgecap.cli.live import Live
    from edgecap.storage.files import resolve_paths
    from edgecap.units import si, size

    spec = request(**fields)
    with Live() as live:
        found = work(file, output, spec, resolve_paths(cache), live)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    ratio = (
        f", {8 * found.coded_bytes / found.plain_bytes:.3f} bits/byte" if found.plain_bytes else ""
    )
    print_text(
        f"{output}: {size(found.plain_bytes)} in all, {size(found.coded_bytes)} compressed{ratio}"
    )
    print_text(
        f"{found.tokens} tokens in {si(found.seconds, 's')}; {size(found.stored_bytes)} stored without the model"
    )
