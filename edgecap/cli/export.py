"""`edgecap export` and `edgecap optimize`: write folders of ONNX graphs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from edgecap.cli.options import how_run, model_options, precision_option, request, which_model
from edgecap.cli.output import print_json
from edgecap.errors import UsageError
from edgecap.record import Graph


@click.command()
@model_options
@precision_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Folder to write; it must not exist.",
)
@click.option(
    "--for",
    "provider",
    default="cpu",
    show_default=True,
    metavar="PROVIDER",
    help="Build graphs for this execution provider, which need not be installed.",
)
def export(cache: Path | None, output: Path, as_json: bool, provider: str, **fields: Any) -> None:
    """Write a portable ONNX folder: variants, tokenizer, and a manifest with hashes.

    A device can profile the folder without PyTorch and transformers.

    Example: edgecap export --model ./my-model --precision fp16,int8 -o my-model-onnx
    """
    from edgecap.pipeline.export_folder import export_folder

    graphs = _write_folder(
        partial(export_folder, provider=provider), cache, output, as_json, fields
    )
    _warn_of_missing_kernels(output, graphs, provider)


@click.command()
@which_model
@how_run
@precision_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Folder to write; it must not exist.",
)
def optimize(cache: Path | None, output: Path, as_json: bool, **fields: Any) -> None:
    """Fuse the fp32 graph of an ONNX folder: attention, rotary embedding, norms.

    Checks the fused graph against the original. edgecap export fuses by itself; use this command
    for folders from other exporters. --precision makes variants from the fused graph.

    Example: edgecap optimize --model ./optimum-folder -o ./fused
    """
    from edgecap.pipeline.export_folder import optimize_folder

    _write_folder(optimize_folder, cache, output, as_json, fields)


def _write_folder(
    work: Any,
    cache: Path | None,
    output: Path,
    as_json: bool,
    fields: dict[str, Any],
) -> dict[str, Graph]:
    import msgspec

    from edgecap.cli.live import Live
    from edgecap.report.data import fidelity_note
    from edgecap.storage.files import resolve_paths
    from edgecap.units import size

    spec = request(**fields)
    with Live() as live:
        graphs: dict[str, Graph] = work(spec, output, resolve_paths(cache), live)
    if as_json:
        print_json(
            {
                "folder": str(output),
                "graphs": {p: msgspec.to_builtins(g) for p, g in graphs.items()},
            }
        )
        return graphs
    for precision, graph in graphs.items():
        click.echo(f"{precision:<6} {size(graph.bytes):>9}  {output / precision}")
    first = next(iter(graphs.values()))
    click.echo(f"fp32 graph: {fidelity_note(first)}")
    for reason in first.unfused:
        click.echo(f"not fused: {reason}", err=True)
    return graphs


def _warn_of_missing_kernels(folder: Path, graphs: dict[str, Graph], provider: str) -> None:
    """Say for each graph which operators will run on the CPU instead of the provider."""
    from edgecap.graph.kernels import missing_kernels
    from edgecap.provider_options import parse_provider

    name = parse_provider(provider).name
    for precision, graph in graphs.items() if name != "cpu" else ():
        try:
            missing = missing_kernels(folder / precision / graph.files[0].path, name)
        except UsageError as error:
            click.echo(f"{precision}: not compared with the kernels of {name}: {error}", err=True)
            continue
        if compute := [str(m) for m in missing if not m.of_shapes]:
            click.echo(
                f"{precision}: {name} has no kernel for {', '.join(compute)}; they will run on the "
                "CPU, and profile refuses a cell with more than 5 % of its time there",
                err=True,
            )
