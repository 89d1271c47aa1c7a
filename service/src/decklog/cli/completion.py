"""`decklog completion`."""

from __future__ import annotations

import sys
from typing import Literal

from cyclopts import App

from decklog.cli import program
from decklog.cli.manual import manual

app = App(
    name="completion",
    help_epilogue=manual(
        """""",
        "decklog completion bash > ~/.local/share/bash-completion/completions/decklog",
        'decklog completion zsh > "${fpath[1]}/_decklog"',
        "decklog completion fish > ~/.config/fish/completions/decklog.fish",
    ),
)


@app.default
def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print the completion script of a shell.

    Args:
        shell: Shell that the script is for.
    """
    sys.stdout.write(program.app.generate_completion(shell=shell))
    return 0
