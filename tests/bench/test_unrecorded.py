"""The floor of `read_audit`: a list without its access record."""

from __future__ import annotations

import asyncpg
import httpx

from decklog.domain.tenant import Isolation
from tests.backends import PostgresServer
from tests.bench.processes import HOST
from tests.bench.stand import Stand, stand


async def _access_records(place: Stand, tenant_id: int) -> int:
    connection = await asyncpg.connect(place.admin_dsn)
    try:
        found: int = await connection.fetchval("SELECT next_seq FROM decklog.heads WHERE tenant_id = $1 AND log = 1", tenant_id)
        return found
    finally:
        await connection.close()


async def test_only_the_benchmark_api_lists_without_an_access_record(postgres_server: PostgresServer) -> None:
    async with stand(postgres_server) as place:
        [customer] = await place.customers(1, Isolation.DEDICATED)
        for module, recorded in (("decklog", 1), ("tests.bench.unrecorded", 0)):
            before = await _access_records(place, customer.tenant.id)
            async with place.api(module=module) as server, httpx.AsyncClient() as client:
                answer = await client.get(
                    f"http://{HOST}:{server.port}/api/v1/logs", headers={"Authorization": f"Bearer {customer.auditor}"}
                )
            assert answer.status_code == 200, answer.text
            assert await _access_records(place, customer.tenant.id) - before == recorded
