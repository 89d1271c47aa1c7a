"""`decklog tenants`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cyclopts import App

from decklog import settings
from decklog.assembly.control_plane import open_directory
from decklog.cli.columns import Column, Item, member, text_of
from decklog.cli.connection import KEY_HELP, Connection
from decklog.cli.dev_folder import DevFolder
from decklog.cli.manual import manual
from decklog.cli.options import All, Flag, Json
from decklog.cli.output import Listing, Output, encoded, is_live
from decklog.domain.errors import DecklogError
from decklog.domain.tenancy.columns import table
from decklog.domain.tenancy.status import READY, TenantListing
from decklog.domain.tenant import PLATFORM_TENANT, State

app = App(
    name="tenants",
    help_epilogue=manual(
        f"""Reads the registry in the database where DECKLOG_DATABASE_DSN, DECKLOG_DATABASE_OWNER_DSN or --data-dir names one, so it works
without Kubernetes. Otherwise it asks the API: with the platform's key for all tenants, with another key for its own.

{KEY_HELP}""",
        "decklog tenants",
        "decklog tenants --data-dir .decklog",
        "decklog tenants -o wide --all",
        exits="0, 2 (the tenants could not be read)",
    ),
)


@app.default
async def tenants(
    *,
    wide: Flag = False,
    every: All = False,
    as_json: Json = False,
    data_dir: Path | None = None,
    connection: Connection | None = None,
    output: Output = "table",
) -> int:
    """Print the table of tenants, as kubectl get tenants does.

    Args:
        wide: Also schema, index, queue and message.
        every: Also the platform's own tenant, and deleted tenants that are retained.
        as_json: As GET /api/v1/tenants answers.
        data_dir: Data folder of a running decklog dev, in place of the settings of the environment.
        connection: Address and credential of the API, which is asked where no database is named.
        output: Form of the list.
    """
    output = "json" if as_json else "wide" if wide else output
    if data_dir is None and not any(os.environ.get(name) for name in _DATABASES):
        return await _of_api(connection or Connection(), every=every, output=output)
    wide = output == "wide"
    configured = DevFolder(data_dir).running_settings() if data_dir is not None else settings.load(os.environ)
    async with open_directory(configured) as directory:
        found = [listing for listing in await directory.tenants() if every or _listed(listing)]
    found.sort(key=lambda listing: listing.name)  # The database may sort by the collation of a language.
    if output not in ("table", "wide"):
        _list(encoded([listing.shown() for listing in found]), output)
    elif found:
        sys.stdout.write(table(found, datetime.now(UTC), wide=wide))
    else:
        sys.stderr.write("There are no tenants.\n")
    return 0


_DATABASES = (
    "DECKLOG_DATABASE_DSN",
    "DECKLOG_DATABASE_DSN_FILE",
    "DECKLOG_DATABASE_OWNER_DSN",
    "DECKLOG_DATABASE_OWNER_DSN_FILE",
)


async def _of_api(connection: Connection, *, every: bool, output: str) -> int:
    """Print the tenants that the API shows to a key."""
    try:
        api = connection.client()
    except DecklogError as error:
        raise DecklogError(error.code, f"{error.detail} Or name a database: DECKLOG_DATABASE_DSN, or --data-dir.") from None
    async with api as client:
        own = (await client.whoami()).tenant
        found = await client.tenants() if own is None else [await client.tenant(own)]
    shown = [each for each in found if every or (each.name != PLATFORM_TENANT and each.state != "deleted")]
    _list(encoded(shown), output)
    if not shown:
        sys.stderr.write("There are no tenants.\n")
    return 0


def _list(items: Sequence[bytes], output: str) -> None:
    """Print tenants, given as the API answers them."""

    def ready(item: Item, name: str) -> str:
        return next((text_of(each[name]) for each in item["conditions"] if each["type"] == READY), "")

    columns = [
        *(member("name"), member("state"), Column("ready", lambda item: ready(item, "status"))),
        *(
            Column("reason", lambda item: ready(item, "reason")),
            member("isolation"),
            member("retention_days"),
            member("created_at"),
        ),
    ]
    if output == "wide":
        columns.append(Column("message", lambda item: ready(item, "message")))
    listing = Listing(columns, output, live=is_live(output))
    for item in items:
        listing.add(item)
    listing.close()


def _listed(listing: TenantListing) -> bool:
    """Return whether kubectl would list this tenant."""
    return listing.name != PLATFORM_TENANT and listing.state is not State.DELETED
