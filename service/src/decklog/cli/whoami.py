"""`decklog whoami`."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from decklog.cli.connection import KEY_HELP, Asking
from decklog.cli.exits import EXITS, FOUND
from decklog.cli.manual import manual

app = App(
    name="whoami",
    help_epilogue=manual(
        f"""Asks the server for the tenant, the role and the permissions of the key.

{KEY_HELP}""",
        "decklog whoami",
        "decklog whoami --context acme-writer -o json",
        exits=EXITS,
    ),
)


@app.default
async def whoami(
    *,
    connection: Asking | None = None,
    output: Annotated[Literal["text", "json"], Parameter(name=("--output", "-o"))] = "text",
) -> int:
    """Print the identity and the permissions of the key.

    Args:
        connection: Address and credential.
        output: Text for a person, or the JSON of the API.
    """
    async with (connection or Asking()).client() as client:
        found = await client.whoami()
    if output == "json":
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return FOUND
    facts = {
        "address": client.url,
        "tenant": found.tenant,
        "role": found.role,
        "may": ", ".join(found.permissions),
        "key": f"{found.kind} {found.subject}" + (f" of {found.issuer}" if found.issuer else ""),
        "state": found.state,
        "expires": None if found.expires_at is None else found.expires_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    for name, value in facts.items():
        if value is not None:
            sys.stdout.write(f"{name:8} {value}\n")
    return FOUND
