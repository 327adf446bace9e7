"""`edgecap fit`: fit the bias of a corpus on a series of models."""

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
    "--precision", default="fp32", show_default=True, metavar="NAME", help="Precision to use."
)
@click.option(
    "--write-corpus",
    "card",
    type=click.Path(path_type=Path),
    metavar="CARD",
    help="Write the bias to a card; profile reads CORPUS.card.json beside the corpus.",
)
@click.option(
    "--rescore",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write copies of the records with scores under the fitted bias to this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the fit of each corpus as JSON.")
def fit(
    records: tuple[Path, ...],
    precision: str,
    card: Path | None,
    rescore: Path | None,
    as_json: bool,
) -> None:
    """Fit the bias of a corpus: the one that makes information capacity most constant.

    Give one record per model of a series, all scored with the same protocol. Each corpus gets its
    own bias. Two models have an exact solution; three or more also show the residuals.
    """
    import msgspec

    from edgecap.analysis.fitting import fit as fitted_on
    from edgecap.report.terminal.fit import fitted
    from edgecap.storage.records import load

    loaded = [load(path) for path in records]
    fits = fitted_on(loaded, precision)
    if card is not None:
        _write_card(fits, card, records)
    if rescore is not None:
        _rescore(fits, loaded, records, rescore)
    if as_json:
        print_json(msgspec.to_builtins(fits))
    else:
        print_text(fitted(fits, width()))


def _write_card(fits: list[Fit], output: Path, records: tuple[Path, ...]) -> None:
    from edgecap.analysis.fitting import make_card
    from edgecap.errors import UsageError
    from edgecap.text.bias_card import CARD_MARKER, CARD_SUFFIX, encode_card

    if len(fits) > 1:
        corpora = ", ".join(fit.corpus for fit in fits)
        raise UsageError(
            f"--write-corpus stores the bias of one corpus; these records are of {corpora}"
        )
    write(output, encode_card(make_card(fits[0])), records, CARD_MARKER)
    click.echo(f"card: {output}", err=True)
    if not output.name.endswith(CARD_SUFFIX):
        click.echo(
            f"profile reads CORPUS{CARD_SUFFIX} beside the corpus: rename the card", err=True
        )


def _rescore(
    fits: list[Fit], records: list[Profile], paths: tuple[Path, ...], folder: Path
) -> None:
    from edgecap.analysis.fitting import apply_bias, make_card
    from edgecap.errors import UsageError
    from edgecap.storage.records import save

    cards = {fit.sha256: make_card(fit) for fit in fits}
    names = [folder / path.name for path in paths]
    existing = next((n for i, n in enumerate(names) if n in names[:i] or n.exists()), None)
    if existing is not None:
        raise UsageError(
            f"--rescore would overwrite {existing}: give a new folder, "
            "and records of different names"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for record, path, name in zip(records, paths, names, strict=True):
        card = cards.get(record.corpus.sha256)
        if card is None:
            click.echo(f"not rescored: {path}: no bias was fitted on its corpus", err=True)
            continue
        save(apply_bias(record, card), name)
        click.echo(f"record: {name}", err=True)
