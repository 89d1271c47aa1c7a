"""`decklog recover`: what an operator declares once after a disaster; see `decklog.services.tenancy.recovery`."""

from __future__ import annotations

import os
import sys

from cyclopts import App

from decklog import settings
from decklog.assembly import maintenance
from decklog.assembly.control_plane import open_provisioner
from decklog.cli.manual import manual
from decklog.cli.options import All
from decklog.domain.errors import Code, DecklogError
from decklog.services.tenancy.recovery import recover_tenants

app = App(name="recover", help_epilogue="Needs DECKLOG_DATABASE_OWNER_DSN. Both verbs may run again.")
app.command(
    database_app := App(
        name="database",
        help="Declare that the database was restored from a copy.",
        help_epilogue=manual(
            """For a database that lost records it had acknowledged: it was restored from a copy, or a standby that was behind took over. Every
log begins a new epoch. The search indices are removed; provisioning and workers create and fill them again. Run it after
decklog migrate and before the first process that writes.

Needs DECKLOG_DATABASE_OWNER_DSN, and DECKLOG_SEARCH_ as the operator has them. May run again.""",
            "decklog migrate && decklog recover database",
            exits="0, 1 (an index is left, which is printed), 2 (the command could not be completed)",
        ),
    )
)
app.command(
    tenants_app := App(
        name="tenants",
        help="Declare that the Tenant objects are lost while the database is not.",
        help_epilogue=manual(
            """For a cluster that is gone with its Tenants. Each tenant is stopped, its keys are revoked, and all its data is kept. A Tenant of the
same name that is applied later takes the data over, and its sequence numbers continue.

Needs DECKLOG_DATABASE_OWNER_DSN. May run again.""",
            "decklog recover tenants acme globex",
            "decklog recover tenants --all",
            exits="0, 1 (a tenant is left as it was), 2 (the command could not be completed)",
        ),
    )
)


@database_app.default
async def database() -> int:
    """Declare that the database was restored from a copy."""
    configured = settings.load(os.environ)
    done = await maintenance.recover_database(configured)
    sys.stdout.write(f"{done.logs} logs have begun a new epoch.\n")
    for index in done.indices:
        sys.stdout.write(f"removed the index {index}; provisioning creates it again\n")
    for index, why in done.left.items():
        sys.stdout.write(f"left the index {index}: {why} It may find lost records: delete it.\n")
    if not configured.search.url:
        sys.stdout.write("No search is configured here. Where there is one, set DECKLOG_SEARCH_URL and run this again.\n")
    return 1 if done.left else 0


@tenants_app.default
async def tenants(*names: str, every: All = False) -> int:
    """Declare that the Tenant objects are lost while the database is not.

    Args:
        names: Names of tenants.
        every: All tenants of this installation.
    """
    if bool(names) is every:
        raise DecklogError(Code.MISCONFIGURED, "Give names of tenants, or --all.")
    async with open_provisioner(settings.load(os.environ)) as provisioner:
        troubles = await recover_tenants(provisioner, None if every else list(names))
    for name, trouble in sorted(troubles.items()):
        sys.stdout.write(f"{name}: {trouble or 'kept, for the next Tenant of this name to take over'}\n")
    return 1 if any(troubles.values()) else 0
