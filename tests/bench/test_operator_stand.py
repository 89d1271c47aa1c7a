"""The stand of the operator's benchmarks detects every write to a backend, and only writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import httpx
import pytest

from decklog.domain.tenant import Isolation
from tests.backends import KubernetesServer, OpenSearchServer, PostgresServer, SqsServer, running
from tests.bench.context import Context
from tests.bench.operator_stand import OperatorStand, operator_stand, touched

pytestmark = pytest.mark.xdist_group("kubernetes")

_WAIT_MAX = 300.0


async def _row(place: OperatorStand, _: str) -> None:
    connection = await asyncpg.connect(place.place.admin_dsn)
    await connection.execute("UPDATE decklog.tenants SET display_name = display_name")
    await connection.close()


async def _record(place: OperatorStand, _: str) -> None:
    connection = await asyncpg.connect(place.place.admin_dsn)
    await connection.execute(
        "CREATE TEMP TABLE copied AS SELECT * FROM shared_90.records LIMIT 1; UPDATE copied SET seq = -1;"
        "INSERT INTO shared_90.records SELECT * FROM copied"
    )
    await connection.close()


async def _range(client: httpx.AsyncClient, place: OperatorStand) -> str:
    """The first range of the index of a class."""
    found: dict[str, object] = (
        (await client.get(f"/{place.place.settings.prefix}-shared-90.*/_settings")).raise_for_status().json()
    )
    return min(found)


async def _setting_of_an_index(place: OperatorStand, _: str) -> None:
    async with httpx.AsyncClient(base_url=place.place.settings.search.url, timeout=_WAIT_MAX) as client:
        index = await _range(client, place)
        (await client.put(f"/{index}/_settings", json={"index.refresh_interval": "7s"})).raise_for_status()


async def _document(place: OperatorStand, _: str) -> None:
    async with httpx.AsyncClient(base_url=place.place.settings.search.url, timeout=_WAIT_MAX) as client:
        (await client.put(f"/{await _range(client, place)}/_doc/one", json={})).raise_for_status()


async def _attribute_of_a_queue(place: OperatorStand, _: str) -> None:
    client = place.sqs()
    url = client.get_queue_url(QueueName=f"{place.place.settings.prefix}-shared-90-wake")["QueueUrl"]
    client.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "17"})


async def _tenant(place: OperatorStand, name: str) -> None:
    place.fleet.kubernetes("annotate", "tenant", name, "test.decklog.dev/touched=yes")


async def _secret(place: OperatorStand, name: str) -> None:
    place.fleet.kubernetes("annotate", "secret", f"{name}-decklog", "test.decklog.dev/touched=yes")


WRITES: dict[str, Callable[[OperatorStand, str], Awaitable[None]]] = {
    "relation decklog.tenants": _row,
    "relation shared_90.": _record,
    "index ": _setting_of_an_index,
    "index  again": _document,
    "queue ": _attribute_of_a_queue,
    "/tenants": _tenant,
    "/secrets/": _secret,
}


async def test_operator_stand_detects_a_write_to_any_backend_and_ignores_reads(
    kubernetes_server: KubernetesServer,
    postgres_server: PostgresServer,
    opensearch_server: OpenSearchServer,
    sqs_server: SqsServer,
) -> None:
    with running() as servers:
        async with AsyncExitStack() as kept, operator_stand(Context(servers, "small", kept), "decklog") as place:
            async with place.operator():
                await place.fleet.apply(1, {"isolation": Isolation.SHARED.value, "retention": {"days": 90}})
                await place.fleet.until(lambda: len(place.fleet.settled) == 1, _WAIT_MAX)
            [name] = place.fleet.seen
            before = await place.written()
            assert touched(before, await place.written()) == []
            for where, write in WRITES.items():
                await write(place, name)
                after = await place.written()
                found = touched(before, after)
                assert any(where.removesuffix(" again") in each for each in found), (where, found)
                before = after
