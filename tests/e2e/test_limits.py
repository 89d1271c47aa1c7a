"""A tenant's rate limit is exact across several API processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.backends import PostgresServer
from tests.support.stack import Stack, installed
from tests.support.stores import Database, drop_database, freeze_clock, new_database

pytestmark = pytest.mark.slow

REPLICAS, WRITERS = 3, 4
PER_SECOND, BURST = 50, 60
SURE = 6  # refusals of one writer, each later than a process may refuse by what it heard before
PAUSE = 2 / PER_SECOND
RECORD = {"action": "flood", "actor": {"id": "somebody"}}


async def flooded(stack: Stack, tenant: str) -> tuple[list[int], list[Any]]:
    """Append through every process until the bucket is empty. Return the stored sequence numbers and the refusals."""
    places: list[int] = []
    refusals: list[Any] = []

    async def write(url: str) -> None:
        refused = 0
        async with stack.client(url, stack.key(tenant, "writer")) as client:
            while refused < SURE:
                answer = await client.post("/api/v1/logs", json=RECORD)
                if answer.status_code == 201:
                    places.append(answer.json()["seq"])
                else:
                    refusals.append(answer)
                    refused += 1
                    await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as group:
        for program in stack.programs:
            for _ in range(WRITERS):
                group.create_task(write(program.url))
    return places, refusals


@pytest.fixture
async def stack(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[tuple[Stack, Database]]:
    """Three processes of the API over one database."""
    database = await new_database(postgres_server)
    quotas = {"eventsPerSecond": PER_SECOND, "burst": BURST}
    try:
        async with installed(tmp_path, service_dsn=database.service_dsn, owner_dsn=database.owner_dsn) as made:
            await made.provision(
                flooding={"isolation": "Shared", "retention": {"days": 30}, "quotas": quotas},
                calm={"isolation": "Shared", "retention": {"days": 30}},
            )
            for _ in range(REPLICAS):
                await made.api()
            yield made, database
    finally:
        await drop_database(database)


async def test_rate_limit_is_exact_across_replicas_and_does_not_affect_other_tenants(
    stack: tuple[Stack, Database],
) -> None:
    made, database = stack
    begun = datetime.now(UTC)
    stored: list[int] = []
    # Full at first; then what half a second brings, and what a minute brings, which is no more than fits.
    for passed, due in ((0.0, BURST), (0.5, PER_SECOND // 2), (60.0, BURST)):
        await freeze_clock(database, (begun + timedelta(seconds=passed)).isoformat())
        others = [asyncio.create_task(_append(made, program.url, "calm")) for program in made.programs]
        places, refusals = await flooded(made, "flooding")
        assert len(places) == due
        assert Counter((answer.status_code, answer.json()["code"]) for answer in refusals) == {
            (429, "rate-limited"): REPLICAS * WRITERS * SURE
        }
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refusals)
        assert [await other for other in others] == [201] * REPLICAS
        stored += places
    assert sorted(stored) == list(range(2 * BURST + PER_SECOND // 2))


async def _append(stack: Stack, url: str, tenant: str) -> int:
    async with stack.client(url, stack.key(tenant, "writer")) as client:
        return (await client.post("/api/v1/logs", json=RECORD)).status_code
