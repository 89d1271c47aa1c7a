"""`python -m tests.support.operator_on_folder`: the operator process, with `FolderProvisioner` behind it."""

from __future__ import annotations

import asyncio
import os

from decklog_operator.run import run
from tests.support.provisioning import open_folder

if __name__ == "__main__":
    asyncio.run(run(os.environ, open_folder))
