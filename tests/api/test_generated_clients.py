"""A client that somebody else's generator makes of the OpenAPI document (openapi-python-client), against a served API.

`tests/senders` does the same with types that openapi-typescript makes.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decklog.api.app import openapi_document
from decklog.domain.identity.access import Role
from tests.support.api_world import World

LEFT_OUT = {"POST /api/v1/logs/bulk within append"}
"""Operations that openapi-python-client does not know how to send: it has no NDJSON."""


async def run(*words: str | Path, cwd: Path) -> str:
    """Return what a program prints. Fails with all of it where the program does."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words), cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed = (await process.communicate())[0].decode()
    assert process.returncode == 0, printed
    return printed


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(openapi_document()))
    return path


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules below `tmp_path` can be imported, and are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "generated_client"]:
        del sys.modules[name]


@pytest.mark.usefixtures("imported")
async def test_python_client_filters_by_metadata_and_raises_nothing(world: World, document: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("openapi-python-client")
    configuration = tmp_path / "configuration.yaml"
    configuration.write_text("post_hooks: []\n")
    target = tmp_path / "generated_client"
    printed = await run(
        program,
        "generate",
        "--path",
        document,
        "--output-path",
        target,
        "--meta",
        "none",
        "--config",
        configuration,
        cwd=tmp_path,
    )
    left_out = {
        line.removeprefix("WARNING parsing ").partition(". ")[0] for line in printed.splitlines() if line.startswith("WARN")
    }
    assert {found.rstrip(".") for found in left_out} == LEFT_OUT
    made: Any = importlib.import_module("generated_client")
    api: Any = importlib.import_module("generated_client.api.read.list_records")
    append: Any = importlib.import_module("generated_client.api.append.append")
    models: Any = importlib.import_module("generated_client.models")
    async with made.AuthenticatedClient(base_url=world.url, token=world.keys["acme", Role.ADMIN]) as client:
        for reason in ("a b&c", "other"):
            body = {"action": "a", "actor": {"id": "alice"}, "metadata": {"reason": reason, "k8s.io/x": {"y": "z"}}}
            receipt = await append.asyncio(client=client, body=models.RecordInput.from_dict(body))
            assert receipt.status == "stored"
        wanted = models.ListRecordsMetadata.from_dict({"metadata[reason]": "a b&c", "metadata[k8s.io/x.y]": "z"})
        page = await api.asyncio(client=client, metadata=wanted, severity=[models.ListRecordsSeverityItem.INFO])
        assert [record.seq for record in page.items] == [0]
        problem = await api.asyncio(client=client, limit=0)
        assert problem.code == "invalid-parameter"
