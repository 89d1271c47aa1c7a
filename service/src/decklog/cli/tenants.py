"""`decklog tenants`."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cyclopts import App

from decklog import settings
from decklog.assembly.control_plane import open_directory
from decklog.cli.dev_folder import DevFolder
from decklog.cli.manual import manual
from decklog.cli.options import All, Flag, Json
from decklog.domain.tenancy.columns import table
from decklog.domain.tenancy.status import TenantListing
from decklog.domain.tenant import PLATFORM_TENANT, State

app = App(
    name="tenants",
    help_epilogue=manual(
        """Reads the registry in the database, so it works without Kubernetes. Needs DECKLOG_DATABASE_DSN, DECKLOG_DATABASE_OWNER_DSN, or
--data-dir.""",
        "decklog tenants --data-dir .decklog",
        "decklog tenants --wide --all",
        exits="0, 2 (the registry could not be read)",
    ),
)


@app.default
async def tenants(
    *,
    wide: Flag = False,
    every: All = False,
    as_json: Json = False,
    data_dir: Path | None = None,
) -> int:
    """Print the table of tenants, as kubectl get tenants does.

    Args:
        wide: Also schema, index, queue and message.
        every: Also the platform's own tenant, and deleted tenants that are retained.
        as_json: As GET /api/v1/tenants answers.
        data_dir: Data folder of a running decklog dev, in place of the settings of the environment.
    """
    configured = DevFolder(data_dir).running_settings() if data_dir is not None else settings.load(os.environ)
    async with open_directory(configured) as directory:
        found = [listing for listing in await directory.tenants() if every or _listed(listing)]
    found.sort(key=lambda listing: listing.name)  # The database may sort by the collation of a language.
    if as_json:
        sys.stdout.write(msgspec.json.encode({"items": [listing.shown() for listing in found]}).decode() + "\n")
    elif found:
        sys.stdout.write(table(found, datetime.now(UTC), wide=wide))
    else:
        sys.stderr.write("There are no tenants.\n")
    return 0


def _listed(listing: TenantListing) -> bool:
    """Return whether kubectl would list this tenant."""
    return listing.name != PLATFORM_TENANT and listing.state is not State.DELETED
