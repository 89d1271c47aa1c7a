"""The compose file as compose reads it, with its variables interpolated."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from decklog.cli.program import app
from tests.support.images import ROOT, source_in_checkout

FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "service/Dockerfile"
IMAGE = "decklog:dev"
Json = dict[str, Any]


def interpolated(text: str) -> str:
    """Interpolate as compose does with no variable set."""
    return re.sub(r"\$(?:(\$)|\{\w+:-([^}]*)\})", lambda match: match[1] or match[2], text)


COMPOSE: Json = yaml.safe_load(interpolated(FILE.read_text()))
SERVICES: dict[str, Json] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == IMAGE}
PROGRAMS = {name: service for name, service in OURS.items() if "entrypoint" not in service}


def mounts(service: Json) -> dict[str, str]:
    """Return the sources of mounts, by the path inside."""
    return {path.split(":")[1]: path.split(":")[0] for path in service.get("volumes", [])}


def arguments(words: Sequence[str]) -> Json:
    """Return the arguments that `decklog` reads from a command line, defaults included. Raises CycloptsError."""
    _, bound, _ = app.parse_args(list(words))
    bound.apply_defaults()
    return bound.arguments


def make_secrets(root: Path) -> None:
    """Run the script of the service `secrets` over folders in place of its volumes."""
    secrets = SERVICES["secrets"]
    script = source_in_checkout(DOCKERFILE, secrets["entrypoint"][1])
    for path, name in mounts(secrets).items():
        if path.startswith("/secrets/"):
            assert path == f"/secrets/{name}"
            (root / name).mkdir(exist_ok=True)
    given = [word.replace("65532", str(os.getuid())) for word in secrets["command"][1:]]
    subprocess.run([sys.executable, script, root, *given], check=True, timeout=60)


def variables(service: Json, volumes: Path) -> dict[str, str]:
    """Return the environment of a program, with the paths of the files that were made."""
    found = {}
    for name, value in service.get("environment", {}).items():
        assert isinstance(value, str), f"{name} is {value!r}, which YAML does not parse as a string"
        found[name] = value
        if name.endswith("_FILE"):
            folder, file = value.rsplit("/", 1)
            found[name] = str(volumes / mounts(service)[folder] / file)
    return found
