"""`decklog platform-key`."""

from __future__ import annotations

import os
import sys

from cyclopts import App

from decklog import settings
from decklog.assembly.control_plane import open_provisioner
from decklog.cli.manual import manual

app = App(
    name="platform-key",
    help_epilogue=manual(
        """The platform's key creates and lists tenants over the API, and reads no log. Needs DECKLOG_DATABASE_OWNER_DSN.""",
        "decklog platform-key > platform.key",
    ),
)


@app.default
async def platform_key() -> int:
    """Create a new platform key, print it once, and revoke the previous one."""
    async with open_provisioner(settings.load(os.environ)) as provisioner:
        sys.stdout.write(await provisioner.ensure_platform_key(None) + "\n")
    return 0
