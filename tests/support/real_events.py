"""Real audit events from a folder beside the project. Tests are skipped if it is missing."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"


def path(name: str) -> Path:
    """Return the path of a file in that folder; skip the test if it is missing."""
    found = FOLDER / name
    if not found.exists():
        pytest.skip(f"{name} is not in {FOLDER.parent.name}/{FOLDER.name} beside the project")
    return found


@cache
def _lines(found: Path) -> tuple[bytes, ...]:
    return tuple(gzip.decompress(found.read_bytes()).splitlines())


def lines(name: str) -> tuple[bytes, ...]:
    return _lines(path(name))


def values(name: str) -> list[Any]:
    return [json.loads(line) for line in lines(name)]
