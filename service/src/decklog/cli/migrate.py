"""`decklog migrate`."""

from __future__ import annotations

import os

from cyclopts import App

from decklog import settings
from decklog.assembly import maintenance
from decklog.cli.manual import manual
from decklog.cli.options import Flag

app = App(
    name="migrate",
    help_epilogue=manual(
        """May run again, and beside running processes of the version before. Needs DECKLOG_DATABASE_OWNER_DSN, and with --bootstrap
DECKLOG_DATABASE_ADMIN_DSN and the passwords: DECKLOG_DATABASE_SERVICE_PASSWORD, DECKLOG_DATABASE_WORKER_PASSWORD and
DECKLOG_DATABASE_OWNER_PASSWORD.""",
        "decklog migrate --bootstrap --wait 60",
        "decklog migrate --post --wait 300",
    ),
)


@app.default
async def migrate(*, bootstrap: Flag = False, post: Flag = False, wait: float = 0.0) -> int:
    """Bring the database to this version.

    Args:
        bootstrap: Create the three roles first, with DECKLOG_DATABASE_ADMIN_DSN.
        post: Then remove what only older versions use, once none of them is connected.
        wait: Seconds for the database to answer, and for older versions to disconnect.
    """
    await maintenance.migrate(settings.load(os.environ), with_roles=bootstrap, wait=wait, post=post)
    return 0
