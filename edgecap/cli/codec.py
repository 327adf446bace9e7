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
        help="File to write; it must not exist.",
    )
    provider = click.option(
        "--provider",
        "providers",
        type=types.PROVIDERS,
        default="cpu",
        show_default=True,
        help="Execution provider.",
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
    help=f"Precision: {', '.join(PRECISIONS)}. Default: fp32.",
)
@click.option(
    "--context",
    type=int,
    metavar="POSITIONS",
    help="Positions per window. Default: 1024 or the model's maximum.",
)
@click.option(
    "--threads",
    type=int,
    metavar="N",
    help="Intra-op threads. Default: the physical cores, or fewer under a CPU quota.",
)
def compress(
    file: Path,
    cache: Path | None,
    output: Path,
    precisions: tuple[str, ...],
    as_json: bool,
    **fields: Any,
) -> None:
    """Compress a file with a model; the size is what profile predicts.

    Works on any bytes. decompress restores the same bytes and needs the same model, processor and
    ONNX Runtime. Slow: each token is one decoding step.

    Example: edgecap compress book.txt -o book.ecap
    """
    from edgecap.pipeline.compress import compress as pack

    if len(precisions) > 1:
        raise click.UsageError(f"compress takes one precision, not {','.join(precisions)}")
    _run(pack, file, cache, output, as_json, {"precisions": precisions, **fields})


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@model_options
@_codec_options
def decompress(file: Path, cache: Path | None, output: Path, as_json: bool, **fields: Any) -> None:
    """Restore a file that compress wrote; precision, window and threads are stored in it.

    Example: edgecap decompress book.ecap -o book.txt
    """
    from edgecap.pipeline.compress import decompress as unpack

    _run(unpack, file, cache, output, as_json, fields)


def _run(
    work: Any, file: Path, cache: Path | None, output: Path, as_json: bool, fields: dict[str, Any]
) -> None:
    import msgspec

    from edgecap.cli.live import Live
    from edgecap.storage.files import resolve_paths
    from edgecap.units import si, size

    spec = request(**fields)
    with Live() as live:
        result = work(file, output, spec, resolve_paths(cache), live)
    if as_json:
        print_json(msgspec.to_builtins(result))
        return
    ratio = (
        f", {8 * result.coded_bytes / result.plain_bytes:.3f} bits/byte"
        if result.plain_bytes
        else ""
    )
    print_text(
        f"{output}: {size(result.plain_bytes)} in all, {size(result.coded_bytes)} compressed{ratio}"
    )
    print_text(
        f"{result.tokens} tokens in {si(result.seconds, 's')}; "
        f"{size(result.stored_bytes)} stored without the model"
    )
