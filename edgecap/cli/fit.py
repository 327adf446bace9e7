"""`edgecap fit`: the bias of a corpus that makes a series of models equal in capacity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgecap.cli.output import print_json, print_text, width, write

if TYPE_CHECKING:
    from edgecap.analysis.fitting import Fit
    from edgecap.record import Profile

EXAMPLES = """\b
Examples:
  edgecap fit profiles/small.json profiles/medium.json profiles/large.json
  edgecap fit profiles/*.json --write-corpus my.jsonl.card.json
"""


@click.command(epilog=EXAMPLES)
@click.argument(
    "records", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RECORD..."
)
@click.option(
    "--precision", default="fp32", show_default=True, metavar="NAME", help="Whose cells are taken."
)
@click.option(
    "--write-corpus",
    "card",
    type=click.Path(path_type=Path),
    metavar="CARD",
    help="Store the bias; profile takes it from CORPUS.card.json beside the corpus.",
)
@click.option(
    "--rescore",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write the records there with their scores under the fitted bias, all that was measured as it is.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a fit a corpus as JSON.")
def fit(
    records: tuple[Path, ...],
    precision: str,
    card: Path | None,
    rescore: Path | None,
    as_json: bool,
) -> None:
    """Fit the bias of a corpus on a series of models: the one that makes information capacity most constant.

    Takes a record of each model, all scored alike; of several corpora each gets its bias. Two models have one exact
    solution, three and more also show what remains.
    """
    import msgspec

    from edgecap.analysis.fitting import fit as fitted_on
    from edgecap.report.terminal.fit import fitted
    from edgecap.storage.records import load

    loaded = [load(path) for path in records]
    found = fitted_on(loaded, precision)
    if card is not None:
        _keep(found, card, records)
    if rescore is not None:
        _rescore(found, loaded, records, rescore)
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        print_text(fitted(found, width()))


def _keep(found: list[Fit], output: Path, records: tuple[Path, ...]) -> None:
    from edgecap.analysis.fitting import make_card
    from edgecap.errors import UsageError
    from edgecap.text.bias_card import CARD_MARKER, CARD_SUFFIX, encode_card

    if len(found) > 1:
        corpora = ", ".join(one.corpus for one in found)
        raise UsageError(
            f"--write-corpus holds the bias of one corpus, these records are of {corpora}"
        )
    write(output, encode_card(make_card(found[0])), records, CARD_MARKER)
    click.echo(f"card: {output}", err=True)
    if not output.name.endswith(CARD_SUFFIX):
        click.echo(f"profile looks for CORPUS{CARD_SUFFIX} beside the corpus: name it so", err=True)


def _rescore(
    found: list[Fit], records: list[Profile], paths: tuple[Path, ...], folder: Path
) -> None:
    from edgecap.analysis.fitting import apply_bias
    from edgecap.errors import UsageError
    from edgecap.storage.records import save

    biases = {one.sha256: one.bias_bits.value for one in found}
    names = [folder / path.name for path in paths]
    there = next((n for i, n in enumerate(names) if n in names[:i] or n.exists()), None)
    if there is not None:
        raise UsageError(
            f"--rescore would write over {there}: give a new folder, and records of different names"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for record, path, name in zip(records, paths, names, strict=True):
        bias_bits = biases.get(record.corpus.sha256)
        if bias_bits is None:
            click.echo(f"not rescored: {path}, whose text has no fitted bias", err=True)
            continue
        save(apply_bias(record, bias_bits), name)
        click.echo(f"record: {name}", err=True)
