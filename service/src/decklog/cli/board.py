"""`decklog board`."""

from __future__ import annotations

import sys
from pathlib import Path

from cyclopts import App

from decklog.cli.connection import KEY_HELP, Connection
from decklog.cli.dev_folder import DevFolder
from decklog.cli.manual import manual
from decklog.client.board import make_link

app = App(
    name="board",
    help_epilogue=manual(
        f"""Prints a link that signs one browser in, once and within ten minutes, and is a secret until then. With --data-dir it has the
admins of all tenants and the platform of a running decklog dev; otherwise it has the given credential.
{KEY_HELP}""",
        "decklog board --data-dir .decklog",
        "decklog board --url https://decklog.example.com --key-file admin.key",
        exits="0, 2 (no link was made)",
    ),
)


@app.default
async def board(*, connection: Connection | None = None, data_dir: Path | None = None) -> int:
    """Print a one-time link that signs in to the board.

    Args:
        connection: Address and credential.
        data_dir: Data folder of a running decklog dev, in place of an address and a key.
    """
    connection = connection or Connection()
    if data_dir is None:
        url, keys = connection.address(), [connection.credential()]
    else:
        url, keys = DevFolder(data_dir).running_keys()
    link = await make_link(url, keys)
    sys.stdout.write(f"{link.url}\n")
    return 0
