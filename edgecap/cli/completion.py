"""`edgecap completion`: print the completion script of a shell."""

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

    Add the line of the example to ~/.bashrc (bash 4.4 or newer) or ~/.zshrc. For fish, write the
    script to ~/.config/fish/completions/edgecap.fish.

    Example: eval "$(edgecap completion bash)"
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click knows each of them
    print_text(kind(context.find_root().command, {}, "edgecap", "_EDGECAP_COMPLETE").source())
