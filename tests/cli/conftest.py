"""A running API with a few records, and no context yet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from decklog.domain.identity.access import Role
from tests.support.api_world import World
from tests.support.served import served_world


def store(world: World, *records: Mapping[str, Any]) -> None:
    """Append records as the writer of acme."""
    content = "\n".join(json.dumps(record) for record in records)
    headers = {"Authorization": f"Bearer {world.keys['acme', Role.WRITER]}", "Content-Type": "application/x-ndjson"}
    answer = httpx.post(f"{world.url}/api/v1/logs/bulk", content=content, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["rejected"] == 0, answer.text


@pytest.fixture(scope="module")
def served() -> Iterator[World]:
    """The API, for all tests of a module."""
    with served_world() as world:
        yield world


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of contexts in an empty home; no variable names a server or a key."""
    for name in ("DECKLOG_URL", "DECKLOG_KEY", "DECKLOG_KEY_FILE", "DECKLOG_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "config" / "decklog" / "contexts.json"


@pytest.fixture
def auditor(served: World, config: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The API, with the key of the auditor in the environment."""
    monkeypatch.setenv("DECKLOG_URL", served.url)
    monkeypatch.setenv("DECKLOG_KEY", served.keys["acme", Role.AUDITOR])
    return served
