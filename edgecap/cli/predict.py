"""`edgecap predict`: another size of a series, before it is run."""

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
    help="The size to predict: a config.json, or a model that has one.",
)
@click.option(
    "--precision", default="fp32", show_default=True, metavar="NAME", help="Whose cells are taken."
)
@click.option(
    "--provider", metavar="NAME", help="Whose cells are taken. Default: that of the most models."
)
@click.option(
    "--bias", "bias_bits", type=float, metavar="BITS", help="Default: fitted on the records."
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
    """Predict a model of a series that was not run: bits, capacity, FLOPs, seconds and joules.

    Bits come from the information capacity of the records, seconds and joules from the roofline of their machine,
    how near to it they came, and what starting an operator takes. Intervals are those of a size that is new.
    """
    import msgspec

    from edgecap.analysis.predicting import predict as predicted_from
    from edgecap.model.architecture import read_architecture
    from edgecap.model.locate import read_config
    from edgecap.report.terminal.prediction import predicted
    from edgecap.storage.records import load

    name, fields, where = read_config(config)
    found = predicted_from(
        [load(path) for path in records],
        read_architecture(fields, where),
        name,
        precision,
        provider,
        bias_bits,
    )
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        print_text(predicted(found, width()))
