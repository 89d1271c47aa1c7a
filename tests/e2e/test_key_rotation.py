"""Key rotation in two API processes: the previous key works until its overlap ends, and in no process afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace

from decklog.assembly import control_plane
from decklog.domain.tenancy.spec import parse_spec
from decklog.services.identity.keys import key_hash
from tests.backends import PostgresServer
from tests.support.stack import Program, Stack, installed
from tests.support.stores import Database, drop_database, new_database

SPEC = {"retention": {"days": 30}, "credentials": {"rotation": {"overlapHours": 1}}}
RECORD = {"action": "document.create", "actor": {"id": "alice"}}


@pytest.fixture
async def database(postgres_server: PostgresServer) -> AsyncIterator[Database]:
    made = await new_database(postgres_server)
    yield made
    await drop_database(made)


@pytest.fixture
async def stack(database: Database, tmp_path: Path) -> AsyncIterator[Stack]:
    async with installed(tmp_path, service_dsn=database.service_dsn, owner_dsn=database.owner_dsn) as made:
        await made.provision(acme=SPEC)
        yield made


async def rotate(stack: Stack, request: str) -> None:
    async with control_plane.open_provisioner(stack.settings) as provisioner:
        manifest = replace(await provisioner.manifest("acme", parse_spec(SPEC)), rotate=request)
        assert (await provisioner.reconcile(manifest, stack.vault)).ready


async def append(stack: Stack, api: Program, key: str) -> int:
    """Append with this key, and return the status once it is not 503."""
    async with stack.client(api.url, key) as client, asyncio.timeout(60):
        while (status := (await client.post("/api/v1/logs", json=RECORD)).status_code) == 503:
            await asyncio.sleep(0.1)
        return status


async def statuses(stack: Stack, apis: Iterable[Program], keys: Iterable[str]) -> list[int]:
    return [await append(stack, api, key) for api in apis for key in keys]


async def read_to_the_end(response: httpx.Response) -> str:
    return "".join([line async for line in response.aiter_lines()])


async def test_rotated_key_works_until_its_overlap_ends_in_every_process(stack: Stack, database: Database) -> None:
    apis = [await stack.api(), await stack.api()]
    old, reader = stack.key("acme", "writer"), stack.key("acme", "auditor")
    assert await statuses(stack, apis, [old]) == [201, 201]
    async with (
        stack.client(apis[0].url, reader) as watching,
        watching.stream("GET", "/api/v1/logs/stream", headers={"Accept": "text/event-stream"}) as stream,
    ):
        ending = asyncio.create_task(read_to_the_end(stream))
        await rotate(stack, "monday")
        new = stack.key("acme", "writer")
        assert new != old
        assert await statuses(stack, apis, [old, new]) == [201] * 4
        assert not ending.done()

        # The overlap is made short; when it is over, nobody writes anything.
        end = datetime.now(UTC) + timedelta(seconds=5)
        await database.execute("UPDATE decklog.api_keys SET expires_at = $1 WHERE expires_at IS NOT NULL", end)
        [before] = await database.execute("SELECT version FROM decklog.registry_version")
        while datetime.now(UTC) < end:
            await asyncio.sleep(0.05)
        assert await statuses(stack, apis, [old]) == [401, 401]
        assert await statuses(stack, apis, [new]) == [201, 201]
        async with asyncio.timeout(60):
            await ending
    [after] = await database.execute("SELECT version FROM decklog.registry_version")
    assert after == before
    [stored] = await database.execute("SELECT revoked_at FROM decklog.api_keys WHERE hash = $1", key_hash(old))
    assert stored["revoked_at"] is None
