"""`edgecap predict`: predict a model size of a series before it is run."""

from __future__ import annotations

from pathlib import Path

import click

from edgecap.cli.output import print_json, print_text, width

EXAMPLES = """\b
Examples:
  edgecap predict profiles/small.json profiles/medium.json --config bigger/config.json
  edgecap predict profiles/*.json --config ORG/NAME --precision int8
"""


@click.command(epilog=EXAMPLES)
@click.argument(
    "records", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RECORD..."
)
@click.option(
    "--config",
    required=True,
    metavar="FILE|FOLDER|NAME|ORG/NAME",
    help="Size to predict: a config.json, or a model that has one.",
)
@click.option(
    "--precision", default="fp32", show_default=True, metavar="NAME", help="Precision to use."
)
@click.option(
    "--provider", metavar="NAME", help="Provider to use. Default: the one with the most models."
)
@click.option(
    "--bias",
    "bias_bits",
    type=float,
    metavar="BITS",
    help="Bias of the corpus, bits per token. Default: fitted on the records.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the prediction as JSON.")
def predict(
    records: tuple[Path, ...],
    config: str,
    precision: str,
    provider: str | None,
    bias_bits: float | None,
    as_json: bool,
) -> None:
    """Predict a model size that was not run: bits, capacity, FLOPs, latency and energy.

    Bits come from the information capacity of the records. Latency and energy come from the
    roofline of their machine, the efficiency that the records reached, and the overhead per
    operator. Intervals are prediction intervals for a new size.
    """
    import msgspec

    from edgecap.analysis.predicting import predict as predicted_from
    from edgecap.model.architecture import read_architecture
    from edgecap.model.locate import read_config
    from edgecap.report.terminal.prediction import predicted
    from edgecap.storage.records import load

    name, fields, where = read_config(config)
    prediction = predicted_from(
        [load(path) for path in records],
        read_architecture(fields, where),
        name,
        precision,
        provider,
        bias_bits,
    )
    if as_json:
        print_json(msgspec.to_builtins(prediction))
    else:
        print_text(predicted(prediction, width()))
