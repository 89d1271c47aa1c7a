"""`decklog keys`: the API keys of a tenant, over the API."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from decklog.cli.columns import Column, Item, member, moment
from decklog.cli.connection import KEY_HELP, Asking
from decklog.cli.exits import EXITS, FOUND, NOTHING
from decklog.cli.manual import manual
from decklog.cli.options import All
from decklog.cli.output import OUTPUT_HELP, Listing, Output, encoded, is_live
from decklog.cli.zone import Clock
from decklog.domain.errors import Code, DecklogError

_SPAN = re.compile(r"([1-9][0-9]{0,8})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

app = App(name="keys", help_epilogue=f"Role: admin.\n\n{KEY_HELP}")
app.command(
    list_app := App(
        name="list",
        help="List API keys, without their secrets.",
        help_epilogue=manual(
            f"Keys in force come first. last_used_at is about a minute behind.\n\n{OUTPUT_HELP}\n\n{KEY_HELP}",
            "decklog keys list",
            "decklog keys list --all -o json",
            exits=EXITS,
        ),
    )
)
app.command(
    create_app := App(
        name="create",
        help="Create an API key, and show it once.",
        help_epilogue=manual(
            f"""The key is the only line on standard output, or goes to --file, which only its owner can read. No later command shows it.

{KEY_HELP}""",
            'decklog keys create --role writer --name "Billing service" --file billing.key',
            "decklog keys create --role auditor --name 'Audit 2026' --expires-in 90d",
            exits=EXITS,
        ),
    )
)
app.command(
    revoke_app := App(
        name="revoke",
        help="Revoke API keys that were made over the API.",
        help_epilogue=manual(
            f"Every process refuses a revoked key within two seconds. A provisioned key is replaced by rotation instead.\n\n{KEY_HELP}",
            "decklog keys revoke 7c1d5e0a93b8f642",
            exits=EXITS,
        ),
    )
)


def _state(item: Item) -> str:
    return "revoked" if item["revoked_at"] else "in force"


@list_app.default
async def listed(
    *, connection: Asking | None = None, every: All = False, zone: str | None = None, output: Output = "table"
) -> int:
    """List API keys, without their secrets.

    Args:
        connection: Address and credential.
        every: Also keys that were revoked.
        zone: Time zone of the times, such as Europe/Amsterdam.
        output: Form of the list.
    """
    async with (connection or Asking()).client() as client:
        found = await client.keys()
    live = is_live(output)
    clock = Clock(zone, live=live)

    columns = [member("id"), member("role"), member("name", fixed=False), member("source")]
    columns += [moment(each, clock) for each in ("created_at", "expires_at", "last_used_at")]
    columns.append(Column("state", _state, fixed=True))
    listing = Listing(columns, output, live=live)
    for item in encoded([key for key in found if every or key.revoked_at is None]):
        listing.add(item)
    listing.close()
    return FOUND if listing.count else NOTHING


@create_app.default
async def create(
    *,
    role: Literal["writer", "auditor", "admin"],
    name: str,
    expires_in: str | None = None,
    file: Annotated[Path | None, Parameter(name=("--file", "-f"))] = None,
    connection: Asking | None = None,
    output: Annotated[Literal["text", "json"], Parameter(name=("--output", "-o"))] = "text",
) -> int:
    """Create an API key, and show it once.

    Args:
        role: What the key may do.
        name: What the key is for.
        expires_in: Time after which the key ends, such as 12h, 90d or 4w (without an end).
        file: New file that gets the key, in place of standard output.
        connection: Address and credential.
        output: The key alone, or the JSON of the API.
    """
    wanted = {"role": role, "name": name} | ({} if expires_in is None else {"expires_in": _seconds(expires_in)})
    if file is not None and file.exists():
        raise DecklogError(Code.MISCONFIGURED, f"{file} exists. Give another name: a key is never written over another one.")
    async with (connection or Asking()).client() as client:
        made = await client.make_key(wanted)
    text = made.key + "\n" if output == "text" else msgspec.json.encode(made).decode() + "\n"
    if file is None:
        sys.stdout.write(text)
    else:
        _write(file, text)
    sys.stderr.write(f"Key {made.id} ({made.role}){'' if file is None else f' is in {file}'}. It is not shown again.\n")
    return FOUND


def _write(file: Path, text: str) -> None:
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
        opened.write(text)


def _seconds(text: str) -> int:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise DecklogError(Code.MISCONFIGURED, f"--expires-in: {text[:80]!r} is no time such as 12h, 90d or 4w.")
    return int(found[1]) * _SECONDS[found[2]]


@revoke_app.default
async def revoke(*numbers: str, connection: Asking | None = None) -> int:
    """Revoke API keys that were made over the API.

    Args:
        numbers: Ids of the keys, as decklog keys list prints them.
        connection: Address and credential.
    """
    if not numbers:
        raise DecklogError(Code.MISCONFIGURED, "No key is named: decklog keys list prints their ids.")
    async with (connection or Asking()).client() as client:
        for number in dict.fromkeys(numbers):
            await client.revoke_key(number)
            sys.stdout.write(f"{number}: revoked\n")
    return FOUND
