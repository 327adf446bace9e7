"""`edgecap flops`: counts a config or a graph, without running a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecap.cli import types
from edgecap.cli.output import print_json, print_text, width

if TYPE_CHECKING:
    from edgecap.model.manifest import OnnxFile

DEFAULT_CONTEXT, DEFAULT_PROMPT = 1024, 512
LARGEST = 1 << 24  # of a size of a graph
EXAMPLES = """\b
Examples:
  edgecap flops --config config.json --context 4096
  edgecap flops --config ./my-model --sweep context=128:131072:x2
  edgecap flops --onnx ./my-model-onnx --sequence 1 --past 511
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--config", metavar="FILE|FOLDER|NAME|ORG/NAME", help="A config.json, or a model that has one."
)
@click.option(
    "--onnx",
    type=click.Path(path_type=Path),
    metavar="FOLDER|FILE",
    help="Count a graph, node by node.",
)
@click.option(
    "--context",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Steps of decoding to average over. Default: 1024.",
)
@click.option(
    "--prompt", type=click.IntRange(1), metavar="TOKENS", help="Length of the prompt. Default: 512."
)
@click.option(
    "--batch",
    type=click.IntRange(1, LARGEST),
    default=1,
    show_default=True,
    metavar="N",
    help="Sequences at once.",
)
@click.option(
    "--sweep",
    type=types.CONTEXT_GROWTH,
    metavar="context=FIRST:LAST:x2",
    help="Also show how the counts grow: FIRST:LAST:xFACTOR, FIRST:LAST:+STEP or a list.",
)
@click.option(
    "--sequence",
    type=click.IntRange(1, LARGEST),
    metavar="N",
    help="New positions of a graph. Default: 1.",
)
@click.option(
    "--past",
    type=click.IntRange(0, LARGEST),
    metavar="N",
    help="Positions in a graph's cache. Default: 0.",
)
@click.option("--precision", metavar="NAME", help="Which graph of the folder. Default: all.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def flops(config: str | None, onnx: Path | None, as_json: bool, **asked: Any) -> None:
    """Count FLOPs, bytes and parameters from a config, or from a graph.

    2 FLOPs a multiply-add. A config is counted for one decoded token (mean over the context) and for a
    prompt; a graph for one run of new positions behind those in the cache.
    """
    if (config is None) == (onnx is None):
        raise click.UsageError("give either --config or --onnx")
    strange = [name for name in (_ONNX_ONLY if config else _CONFIG_ONLY) if asked[name] is not None]
    if strange:
        raise click.UsageError(f"--{strange[0]} belongs to {'--onnx' if config else '--config'}")
    if config is not None:
        _of_config(config, as_json, asked)
    else:
        assert onnx is not None
        _of_graphs(onnx, as_json, asked)


_CONFIG_ONLY, _ONNX_ONLY = ("context", "prompt", "sweep"), ("sequence", "past", "precision")


def _of_config(config: str, as_json: bool, asked: dict[str, Any]) -> None:
    import msgspec

    from edgecap.model.architecture import read_architecture
    from edgecap.model.config_counts import count_config
    from edgecap.model.locate import read_config
    from edgecap.report.terminal.counts import counted

    name, fields, where = read_config(config)
    model = read_architecture(fields, where)
    sweep = asked["sweep"] or ()
    context, prompt = asked["context"] or DEFAULT_CONTEXT, asked["prompt"] or DEFAULT_PROMPT
    found = count_config(model, name, context, prompt, asked["batch"], sweep)
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        print_text(counted(found, width()))


def _of_graphs(onnx: Path, as_json: bool, asked: dict[str, Any]) -> None:
    import msgspec

    from edgecap.graph.cost.count import count_graph
    from edgecap.report.terminal.counts import graph_costs

    counts = {
        name: count_graph(file.path, asked["batch"], asked["sequence"] or 1, asked["past"] or 0)
        for name, file in _graphs(onnx, asked["precision"]).items()
    }
    if as_json:
        print_json({name: msgspec.to_builtins(found) for name, found in counts.items()})
        return
    print_text("\n\n".join(graph_costs(name, found, width()) for name, found in counts.items()))


def _graphs(where: Path, precision: str | None) -> dict[str, OnnxFile]:
    """The graphs of a folder by their precision, or by the name of their file."""
    from edgecap.errors import UsageError
    from edgecap.model.onnx_folder import onnx_graphs

    found = {file.precision or file.path.name: file for file in onnx_graphs(where)}
    if precision is None:
        return found
    if precision not in found:
        raise UsageError(f"{where} holds {', '.join(found)}, not {precision}")
    return {precision: found[precision]}
