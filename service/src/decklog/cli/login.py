"""`decklog login`."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from decklog.cli.connection import read_key
from decklog.cli.exits import EXITS, FOUND
from decklog.cli.manual import manual
from decklog.client.client import Client
from decklog.client.contexts import Context, Contexts, default_file
from decklog.domain.errors import Code, DecklogError

STDIN = Path("-")

app = App(
    name="login",
    help_epilogue=manual(
        """Asks for a key, checks it with the server, and stores both as a context, which is then the current one. A terminal is asked
without showing what is typed; without a terminal, and with --key-file -, the key is read from standard input. It is never a word of
the command line, where other users and the history of the shell would have it.

With --key-file FILE the context keeps the name of the file and reads it each time, so a rotated key is used at once.

Contexts are in $XDG_CONFIG_HOME/decklog/contexts.json (~/.config), which only its owner can read. decklog use changes between them.
The options --url, --key-file and --context, and the variables DECKLOG_URL, DECKLOG_KEY, DECKLOG_KEY_FILE and DECKLOG_CONTEXT precede
the current context.""",
        "decklog login https://decklog.example.com",
        "decklog login https://decklog.example.com --key-file auditor.key --name audit",
        "pass show decklog/auditor | decklog login https://decklog.example.com",
        exits=EXITS,
    ),
)


@app.default
async def login(
    url: str | None = None,
    /,
    *,
    key_file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    name: str | None = None,
) -> int:
    """Store an address and a key as the current context.

    Args:
        url: Address of the API, as in https://decklog.example.com (DECKLOG_URL).
        key_file: File that holds the key, or - for standard input.
        name: Name of the context (tenant and role of the key).
    """
    address = url or os.environ.get("DECKLOG_URL")
    if not address:
        raise DecklogError(Code.MISCONFIGURED, "No address is given: decklog login https://decklog.example.com")
    named = None if key_file in (None, STDIN) else key_file
    key = _asked(address) if named is None else read_key(named)
    async with Client(address, key) as client:
        found = await client.whoami()
        address = client.url
    who = f"{found.tenant or 'platform'}, {found.role}"
    chosen = name or f"{found.tenant}-{found.role}" if found.tenant else name or found.role
    contexts = Contexts(default_file(os.environ))
    held = contexts.all().get(chosen)
    if name is None and held is not None and held.url != address:
        raise DecklogError(
            Code.MISCONFIGURED, f"The context {chosen!r} is for {held.url}. Give this one another name: --name NAME."
        )
    contexts.put(chosen, Context(address, key_file=str(named.absolute())) if named else Context(address, key=key))
    sys.stdout.write(f"Signed in to {address} as {who}. The current context is {chosen}.\n")
    return FOUND


def _asked(address: str) -> str:
    """Return the key from a terminal, or from standard input. Raises `misconfigured` where it is empty."""
    key = (getpass.getpass(f"Key for {address}: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not key:
        raise DecklogError(Code.MISCONFIGURED, "No key was given.")
    return key
