"""`edgecap profile --rank-documents FILE`: write documents by difficulty, and print a few."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgecap.cli.output import check_output, print_text, width, write

if TYPE_CHECKING:
    from edgecap.record import Profile

_MARK = '{"rank":1,"document":'  # start of a file that this option wrote


def check_ranked(output: Path, corpus: Path) -> None:
    """Raise UsageError or DiskFull if the file cannot be written, before anything is measured."""
    from edgecap.storage.files import check_writable

    check_output(output, {"the corpus": [corpus]}, _MARK, "--rank-documents")
    check_writable(output.parent)


def rank(records: Sequence[Profile], output: Path, quiet: bool) -> None:
    """Write the ranking, and print a summary unless `quiet`. Raise UsageError if it is empty."""
    import msgspec

    from edgecap.analysis.ranking import rank_documents
    from edgecap.report.terminal.ranking import ranked_text

    ranking = rank_documents(records)
    write(output, "".join(msgspec.json.encode(row).decode() + "\n" for row in ranking.documents))
    if not quiet:
        print_text(f"\n{ranked_text(ranking, width())}")
    click.echo(f"documents, hardest first: {output}", err=True)
