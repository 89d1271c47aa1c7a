"""Start test servers as containers if a Docker engine responds.

compose.yaml beside this module declares the services with pinned public images; the engine assigns free ports on loopback. Each
run is a separate compose project, so that parallel runs do not collide and one command removes the containers of a run.
"""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.backends import progress
from tests.backends.cache import UnavailableError, locked

FILE = Path(__file__).with_name("compose.yaml")
DIGESTS = Path(__file__).parents[2] / ".env"
"""Digests of the images; empty where `make pin` has not run."""
ANSWER_MAX = timedelta(seconds=2)  # for `docker info`
UP_MAX = timedelta(minutes=10)  # pulling images takes most of it
PASSWORD_VARIABLE = "DECKLOG_TEST_COMPOSE_PASSWORD"
FSYNC_VARIABLE = "DECKLOG_TEST_COMPOSE_FSYNC"


@functools.cache
def docker_lacks() -> str | None:
    """Return the reason why containers are not usable on this machine, or None if they are."""
    if os.environ.get("DECKLOG_TEST_DOCKER") == "0":
        return "switched off by DECKLOG_TEST_DOCKER=0"
    docker = shutil.which("docker")
    if not docker:
        return "docker is not installed"
    for words in (["info"], ["compose", "version"]):
        try:
            run = subprocess.run([docker, *words], capture_output=True, timeout=ANSWER_MAX.total_seconds(), check=False)
        except (OSError, subprocess.TimeoutExpired):
            return f"`docker {' '.join(words)}` did not respond within {ANSWER_MAX.total_seconds():.0f} s"
        if run.returncode:
            return f"`docker {' '.join(words)}` exited with {run.returncode}"
    return None


@dataclass(frozen=True)
class Compose:
    """One compose project: the containers of one run."""

    project: str
    password: str
    folder: Path
    durable: bool = False

    @classmethod
    def of(cls, folder: Path, *, durable: bool = False) -> Compose:
        """Return the project of a run folder. Its name is written to the folder before use, to find containers of killed runs."""
        note = folder / f"compose-{'durable' if durable else 'shared'}"
        with locked(folder / "compose.lock", "another process to write its compose project"):
            if not note.exists():
                note.write_text(f"decklog-{secrets.token_hex(4)} {secrets.token_hex(12)}")
        project, password = note.read_text().split()
        return cls(project, password, folder, durable)

    @classmethod
    def all_of(cls, folder: Path) -> list[Compose]:
        """Return the projects that a run folder names."""
        return [
            cls.of(folder, durable=durable)
            for durable in (False, True)
            if (folder / f"compose-{'durable' if durable else 'shared'}").exists()
        ]

    def up(self, service: str, port: int) -> tuple[str, int]:
        """Start one service, wait until it is healthy, and return the host and port at which its `port` is published."""
        with progress.doing(f"starting {service} in a container"):
            self._run("up", "--detach", "--wait", "--quiet-pull", service)
        host, _, number = self._run("port", service, str(port)).strip().rpartition(":")
        return host, int(number)

    def read(self, service: str, *command: str) -> str:
        """Run a command inside a running service and return its output."""
        return self._run("exec", "-T", service, *command)

    def down(self) -> None:
        self._run("down", "--volumes", "--remove-orphans", "--timeout", "1")

    def _run(self, *words: str) -> str:
        command = ["docker", "compose", "--project-name", self.project, "--file", str(FILE), "--env-file", str(DIGESTS), *words]
        environ = {**os.environ, PASSWORD_VARIABLE: self.password, FSYNC_VARIABLE: "on" if self.durable else "off"}
        try:
            run = subprocess.run(
                command, env=environ, capture_output=True, text=True, timeout=UP_MAX.total_seconds(), check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"`docker compose {words[0]}` failed: {error}") from error
        if run.returncode:
            raise UnavailableError(
                f"`docker compose {' '.join(words[:4])}` exited with {run.returncode}: {run.stderr.strip()[-400:]}"
            )
        return run.stdout
