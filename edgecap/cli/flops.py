"""`edgecap flops`: count the FLOPs of a config or a graph, without running a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecap.cli import types
from edgecap.cli.output import print_json, print_text, width

if TYPE_CHECKING:
    from edgecap.model.manifest import OnnxFile

DEFAULT_CONTEXT, DEFAULT_PROMPT = 1024, 512
LARGEST = 1 << 24  # largest size of a graph input
EXAMPLES = """\b
Examples:
  edgecap flops --config config.json --context 4096
  edgecap flops --config ./my-model --sweep context=128:131072:x2
  edgecap flops --onnx ./my-model-onnx --sequence 1 --past 511
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--config",
    metavar="FILE|FOLDER|NAME|ORG/NAME",
    help="Count from a config.json, or from a model that has one.",
)
@click.option(
    "--onnx",
    type=click.Path(path_type=Path),
    metavar="FOLDER|FILE",
    help="Count an ONNX graph, node by node.",
)
@click.option(
    "--context",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Decoding steps to average over. Default: 1024.",
)
@click.option(
    "--prompt", type=click.IntRange(1), metavar="TOKENS", help="Prompt length. Default: 512."
)
@click.option(
    "--batch",
    type=click.IntRange(1, LARGEST),
    default=1,
    show_default=True,
    metavar="N",
    help="Batch size.",
)
@click.option(
    "--sweep",
    type=types.CONTEXT_GROWTH,
    metavar="context=FIRST:LAST:x2",
    help="Also show counts at several contexts: FIRST:LAST:xFACTOR, FIRST:LAST:+STEP or a list.",
)
@click.option(
    "--sequence",
    type=click.IntRange(1, LARGEST),
    metavar="N",
    help="New positions of the graph. Default: 1.",
)
@click.option(
    "--past",
    type=click.IntRange(0, LARGEST),
    metavar="N",
    help="Positions in the KV cache of the graph. Default: 0.",
)
@click.option("--precision", metavar="NAME", help="Graph of the folder to count. Default: all.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def flops(config: str | None, onnx: Path | None, as_json: bool, **sizes: Any) -> None:
    """Count FLOPs, bytes and parameters from a config or a graph.

    A multiply-add is 2 FLOPs. A config is counted for one decoded token (mean over the context) and
    for one prompt; a graph for one run of --sequence new positions after --past cached ones.
    """
    if (config is None) == (onnx is None):
        raise click.UsageError("give either --config or --onnx")
    misplaced = [n for n in (_ONNX_ONLY if config else _CONFIG_ONLY) if sizes[n] is not None]
    if misplaced:
        raise click.UsageError(f"--{misplaced[0]} belongs to {'--onnx' if config else '--config'}")
    if config is not None:
        _count_config(config, as_json, sizes)
    else:
        assert onnx is not None
        _count_graphs(onnx, as_json, sizes)


_CONFIG_ONLY, _ONNX_ONLY = ("context", "prompt", "sweep"), ("sequence", "past", "precision")


def _count_config(config: str, as_json: bool, sizes: dict[str, Any]) -> None:
    import msgspec

    from edgecap.model.architecture import read_architecture
    from edgecap.model.config_counts import count_config
    from edgecap.model.locate import read_config
    from edgecap.report.terminal.counts import counted

    name, fields, where = read_config(config)
    model = read_architecture(fields, where)
    sweep = sizes["sweep"] or ()
    context, prompt = sizes["context"] or DEFAULT_CONTEXT, sizes["prompt"] or DEFAULT_PROMPT
    counts = count_config(model, name, context, prompt, sizes["batch"], sweep)
    if as_json:
        print_json(msgspec.to_builtins(counts))
    else:
        print_text(counted(counts, width()))


def _count_graphs(onnx: Path, as_json: bool, sizes: dict[str, Any]) -> None:
    import msgspec

    from edgecap.graph.cost.count import count_graph
    from edgecap.report.terminal.counts import graph_costs

    counts = {
        name: count_graph(file.path, sizes["batch"], sizes["sequence"] or 1, sizes["past"] or 0)
        for name, file in _graphs(onnx, sizes["precision"]).items()
    }
    if as_json:
        print_json({name: msgspec.to_builtins(count) for name, count in counts.items()})
        return
    print_text("\n\n".join(graph_costs(name, count, width()) for name, count in counts.items()))


def _graphs(folder: Path, precision: str | None) -> dict[str, OnnxFile]:
    """Return the graphs of a folder by precision, or by file name where none is recorded."""
    from edgecap.errors import UsageError
    from edgecap.model.onnx_folder import onnx_graphs

    graphs = {file.precision or file.path.name: file for file in onnx_graphs(folder)}
    if precision is None:
        return graphs
    if precision not in graphs:
        raise UsageError(f"{folder} holds {', '.join(graphs)}, not {precision}")
    return {precision: graphs[precision]}
