"""`edgecap completion`: the script that lets a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from edgecap.cli.output import print_text

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands and options in bash, zsh or fish.

    bash needs version 4.4 or newer. Put the line of the example into ~/.bashrc; for zsh, into ~/.zshrc; for
    fish, write the script to ~/.config/fish/completions/edgecap.fish.

    Example: eval "$(edgecap completion bash)"
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click knows each of them
    print_text(kind(context.find_root().command, {}, "edgecap", "_EDGECAP_COMPLETE").source())
