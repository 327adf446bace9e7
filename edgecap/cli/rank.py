"""`edgecap profile --rank-documents FILE`: write documents by difficulty, and print a few."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgecap.cli.output import check_output, print_text, width, write

if TYPE_CHECKING:
    from edgecap.record import Profile
    from edgecap.spec import Spec

_MARK = '{"rank":1,"document":'  # start of a file that this option wrote


def check_ranked(output: Path, spec: Spec) -> None:
    """Raise UsageError or DiskFull if nothing can be ranked or written, before any measurement."""
    from edgecap.errors import UsageError
    from edgecap.storage.files import check_writable

    if spec.quick:
        raise UsageError(
            "--rank-documents ranks whole documents, and --quick scores pieces of them: "
            "leave one of them out"
        )
    check_output(output, {"the corpus": [Path(spec.corpus)]}, _MARK, "--rank-documents")
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
