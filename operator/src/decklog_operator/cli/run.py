"""`decklog-operator run`."""

from __future__ import annotations

import os

import uvloop

from decklog.assembly.control_plane import open_provisioner
from decklog_operator import run as operator


def run() -> None:
    """Serve the Tenants of a cluster until SIGTERM or SIGINT."""
    uvloop.run(operator.run(os.environ, open_provisioner))
