"""The release from which upgrades are tested: this repository at one commit, with the dependencies of its own lock.

Before the first release this is the first commit whose databases stay compatible. Each release sets its own commit here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.cache import Building, Recipe, UnavailableError, make_folder, provision
from tests.backends.packages import command

ROOT = Path(__file__).parents[2]
COMMIT = "bb4734010c6cc8911b7bb506e295cb2eb7ac03f3"


def _uv() -> str | Path:
    """Return the uv that the Makefile installs, else the one on the PATH."""
    own = ROOT / ".uv/bin/uv"
    return own if own.exists() else command("uv")


def _build(building: Building) -> None:
    git = command("git")
    if subprocess.run([git, "-C", ROOT, "cat-file", "-e", f"{COMMIT}^{{commit}}"], capture_output=True, check=False).returncode:
        raise UnavailableError(f"this copy of the repository has no commit {COMMIT[:12]}: it is shallow, or no clone at all")
    tree, packed = building.folder / "tree", building.folder / "tree.tar"
    make_folder(tree)
    building.run([git, "-C", ROOT, "archive", f"--output={packed}", COMMIT])
    building.run([command("tar"), "-xf", packed, "-C", tree])
    packed.unlink()
    environment = building.folder / "venv"
    building.run([_uv(), "venv", "--quiet", "--python", sys.executable, environment])
    install = [_uv(), "pip", "install", "--quiet", "--python", environment, "--require-hashes", "--requirement"]
    building.run([*install, tree / "requirements.lock"])


RECIPE = Recipe("release", (COMMIT, sys.version), _build)


@pytest.fixture(scope="session")
def release() -> Path:
    """The folder of the release, with its `tree` and a `venv` of its locked dependencies."""
    try:
        return provision(RECIPE)
    except UnavailableError as unavailable:
        pytest.skip(f"the release is not available: {unavailable}")
