"""`edgecap profile --rank-documents FILE`: a line a document, the hardest first, and a few of them on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgecap.cli.output import check_output, print_text, width, write

if TYPE_CHECKING:
    from edgecap.record import Profile

_MARK = '{"rank":1,"document":'  # what a former file begins with


def check_ranked(output: Path, corpus: Path) -> None:
    """Now, rather than after hours. Raises UsageError or DiskFull."""
    from edgecap.storage.files import check_writable

    check_output(output, {"the corpus": [corpus]}, _MARK, "--rank-documents")
    check_writable(output.parent)


def rank(records: Sequence[Profile], output: Path, quiet: bool) -> None:
    """Writes the file, and unless `quiet` prints what stands in it. Raises UsageError where nothing can be ranked."""
    import msgspec

    from edgecap.analysis.ranking import rank_documents
    from edgecap.report.terminal.ranking import ranked_text

    found = rank_documents(records)
    write(output, "".join(msgspec.json.encode(row).decode() + "\n" for row in found.documents))
    if not quiet:
        print_text(f"\n{ranked_text(found, width())}")
    click.echo(f"documents, the hardest first: {output}", err=True)
