"""`python -m tests.support.operator_on_folder`: the operator process, with `FolderProvisioner` behind it."""

from __future__ import annotations

import os

import uvloop

from decklog_operator.run import run
from tests.support.provisioning import open_folder

if __name__ == "__main__":
    uvloop.run(run(os.environ, open_folder))
