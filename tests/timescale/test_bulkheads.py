"""Readings of tenants occupy their own connections: the registry, readiness and announcements never wait for them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from decklog.assembly.api import OneCheck, open_api
from decklog.assembly.backends import open_database
from decklog.domain.identity.access import RequestContext, Role
from decklog.domain.log import LogName
from decklog.domain.tenant import Tenant
from decklog.services.records.reading import EXPORTS_PER_TENANT_MAX
from decklog.settings import Database as DatabaseSettings
from decklog.settings import Identity, Settings
from decklog.timescale.records.announcements import PostgresAnnouncements
from decklog.timescale.records.keeper import PostgresReadiness
from decklog.timescale.records.records import PostgresRecords
from tests.support.control import Control, control
from tests.support.stores import Database
from tests.support.vaults import MemoryVault

__all__ = ["control"]

REQUEST = RequestContext(request_id="request-1")
RECORD = b'{"action": "login", "actor": {"id": "alice"}}'


async def sleeping(database: Database) -> int:
    """Return the number of statements that sleep in this database."""
    [row] = await database.execute(
        "SELECT count(*) AS found FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )
    return int(row["found"])


async def test_registry_readiness_and_announcements_answer_while_all_connections_of_readings_are_busy(control: Control) -> None:
    dsn = control.database.service_dsn
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(open_database(Settings(database=DatabaseSettings(dsn=dsn, pool_max=3))))
        announcing = PostgresAnnouncements(dsn, opened.upkeep)
        hearing = PostgresAnnouncements(dsn, opened.upkeep)
        for announcements in (announcing, hearing):
            await announcements.start()
            stack.push_async_callback(announcements.stop)
        heard: asyncio.Queue[tuple[int, LogName, int]] = asyncio.Queue()
        hearing.subscribe(lambda *announced: heard.put_nowait(announced))
        for _ in range(3):
            await stack.enter_async_context(opened.reads.connection())

        assert (await opened.registry.changes(None)).version > 0
        await PostgresReadiness(opened.upkeep).check()
        while heard.empty():  # the listener connects in the background
            announcing.announce(7, LogName.EVENTS, 42)
            await asyncio.sleep(0.05)
        assert await heard.get() == (7, LogName.EVENTS, 42)


async def test_probes_at_once_share_a_check_of_the_backend() -> None:
    class Counting:
        checked = 0

        async def check(self) -> None:
            self.checked += 1
            await asyncio.sleep(0)

    backend = Counting()
    readiness = OneCheck(backend)
    await asyncio.gather(*(readiness.check() for _ in range(100)))
    assert backend.checked == 1


async def test_readings_of_one_tenant_hold_up_neither_another_tenant_nor_the_process(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten lists and all exports that one tenant may have, whose statements take for ever, beside everything that another tenant does."""
    vault = MemoryVault()
    for name in ("greedy", "other"):
        await control.provisioner().reconcile(control.manifest(name, uid=f"uid-{name}"), vault)
    swift = PostgresRecords.read

    async def read(self: PostgresRecords, tenant: Tenant, *arguments: Any, **more: Any) -> Any:
        if tenant.name == "greedy":
            async with self._pool.reading(tenant.id) as connection:
                await connection.execute("SELECT pg_sleep(25)")
        return await swift(self, tenant, *arguments, **more)

    monkeypatch.setattr(PostgresRecords, "read", read)
    database = DatabaseSettings(dsn=control.database.service_dsn, pool_max=6)
    async with AsyncExitStack() as stack:
        opening = open_api(Settings(database=database, identity=Identity(fingerprint_key="f" * 32)))
        services = await stack.enter_async_context(opening)
        greedy, other = [await services.identity.authenticate(vault.keys[name][Role.AUDITOR]) for name in ("greedy", "other")]
        assert greedy.tenant is not None
        assert other.tenant is not None
        await services.ingest.append(greedy.tenant, RECORD)
        exports = [await services.reading.export(greedy, REQUEST, []) for _ in range(EXPORTS_PER_TENANT_MAX)]
        attack: list[asyncio.Future[Any]] = [asyncio.ensure_future(anext(export)) for export in exports]
        attack += [asyncio.ensure_future(services.reading.list(greedy, REQUEST, [])) for _ in range(10)]
        while await sleeping(control.database) < 2:
            await asyncio.sleep(0.01)

        stream = await services.streams.open(other, REQUEST, [])
        stack.push_async_callback(stream.aclose)
        receipt, _ = await services.ingest.append(other.tenant, RECORD)
        assert receipt.seq == 0
        _, _, page = await services.reading.list(other, REQUEST, [])
        assert [record.seq for record in page.items] == [0]
        event = await anext(aiter(stream))
        assert event.record is not None
        assert event.record.seq == 0
        await services.readiness["database"].check()
        assert await services.identity.still_valid(other)  # raises where the registry is stale
        assert await sleeping(control.database) == 2  # a third of the connections

        assert services.reading.budget.held_by(greedy.tenant.id) > 0
        for waiting in attack:
            waiting.cancel()
        await asyncio.gather(*attack, return_exceptions=True)
        for export in exports:
            await export.aclose()
        assert services.reading.budget.held_by(greedy.tenant.id) == 0
